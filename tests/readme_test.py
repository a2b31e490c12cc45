"""The code in the README runs, and its cell obeys the laws."""

import re
from pathlib import Path

from tests import laws

README = Path(__file__).resolve().parents[1] / "README.md"


def test_code_blocks_run_and_the_cell_obeys_the_laws() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    row = laws.Row(names["LeakyRNN"](6))
    for check in laws.laws(row).values():
        check(row)


def test_the_two_commands_stand_in_one_block() -> None:
    assert (
        "```\npip install -e . && python -m launch.train\n"
        "pip install -e '.[test]' && python -m pytest\n```\n"
    ) in README.read_text()
