"""All that is tried with malformed inputs, by name."""

from collections.abc import Mapping
from pathlib import Path

from tests.inputs import fuzz
from tests.inputs.commands import commands
from tests.inputs.readers import READERS


def targets(made: Path) -> Mapping[str, fuzz.Target]:
    """Every reader and every command.

    Args:
        made: a folder for what is made once.
    """
    readers = {f"read {name}": fuzz.reading(reader) for name, reader in READERS.items()}
    return {**readers, **commands(made)}
