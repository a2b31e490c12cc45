"""Runs broken commands in children of a process that has imported everything already.

A line of JSON on stdin, `[words, output]`, starts one; its process id comes back, then `ended`;
upon an empty line it is reaped, and its exit code comes back. So it can be killed without a fear
that its id has become another's. No backend of jax is up when it is forked, and no thread.
"""

import json
import os
import sys
import threading

import launch.train  # noqa: F401
import tests.faults.experiment  # noqa: F401
from tests.faults import broken


def become(words: list[str], output: str) -> None:
    """Is the command from now on."""
    here = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(here, 1)
    os.dup2(here, 2)
    del sys.modules["launch.train"]  # as nobody has imported what is run as the main program
    broken.main(words)


def main() -> None:
    assert threading.active_count() == 1
    for line in sys.stdin:
        words, output = json.loads(line)
        child = os.fork()
        if not child:
            become(words, output)
            return
        print(child, flush=True)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        print("ended", flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
