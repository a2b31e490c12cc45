"""Programs that stand in for gcloud, kubectl and SLURM: they log their arguments and answer."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = """#!{python} -IS
import json, os, pathlib, shutil, subprocess, sys, time

here = pathlib.Path({here!r})
argv = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with (here / "calls.jsonl").open("a") as log:
    log.write(json.dumps(argv) + "\\n")
answers = json.loads((here / "answers.json").read_text())
line = " ".join(argv)
for key, queue in answers.items():
    if key in line and queue:
        answer = queue.pop(0)
        (here / "answers.json").write_text(json.dumps(answers))
        sys.stdout.write(answer.get("out", ""))
        sys.stderr.write(answer.get("err", ""))
        sys.stdout.flush()
        # A grandchild holds the pipes open, as those of the real programs do.
        if "sleep" in answer:
            subprocess.run(["sleep", str(answer["sleep"])])
        sys.exit(answer.get("code", 0))
"""


@dataclass(frozen=True)
class StandIns:
    """Programs in a folder that is first on PATH.

    Answers are looked up by a part of the command line and given once each, in turn; what has
    none succeeds and says nothing, or does what `more` says.
    """

    here: Path

    def put(self, *names: str, more: str = "") -> None:
        for name in names:
            file = self.here / "bin" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(PROGRAM.format(python=sys.executable, here=str(self.here)) + more)
            file.chmod(0o755)
        self.answer({})

    def answer(self, answers: dict[str, list[dict[str, Any]]]) -> None:
        (self.here / "answers.json").write_text(json.dumps(answers))

    def calls(self) -> list[list[str]]:
        """What was called since the last time that this was asked."""
        log = self.here / "calls.jsonl"
        if not log.exists():
            return []
        lines = log.read_text().splitlines()
        log.unlink()
        return [json.loads(line) for line in lines]
