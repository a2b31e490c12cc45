"""Calls of other people's commands end, and leave nothing behind."""

import sys

import pytest

from launch.drivers import calls, local
from recattn_jax.errors import UserError
from tests.launch.drivers.waiting import until

HANGS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(child.pid, flush=True)
child.wait()
"""


def test_a_command_that_hangs_is_killed_with_what_it_started():
    answer = calls.call((sys.executable, "-c", HANGS), timeout=3)
    assert answer.code == 124 and "did not answer within 3 s" in answer.last_line
    until(lambda: local.born(int(answer.out)) is None, "the end of the grandchild", patience=20)


def test_what_a_command_says_is_kept_apart():
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(5)"
    argv = (sys.executable, "-c", code)
    assert calls.call(argv, timeout=100) == calls.Answer(5, "out\n", "err\n")
    with pytest.raises(UserError, match="err$"):
        calls.must(argv, timeout=100)
    with pytest.raises(UserError, match="there is no no-such-command on this machine"):
        calls.call(("no-such-command",), timeout=1)
    with pytest.raises(UserError, match="cannot be run: Argument list too long"):
        calls.call(("true", "a" * 1_000_000), timeout=1)
