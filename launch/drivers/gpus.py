"""The GPUs of this machine, and who has them: each has a lock that its user's processes hold.

The locks are files in the folder for temporary files, where all who start jobs here find them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from launch.drivers import calls, records
from recattn_jax.errors import UserError
from recattn_jax.locks import FileLock

VISIBLE = "CUDA_VISIBLE_DEVICES"
_TIMEOUT = 60.0


def visible(environment: Mapping[str, str]) -> dict[str, str]:
    """The GPUs that a process sees.

    Args:
      environment: of the process.

    Returns:
      From what CUDA calls each to what it is called everywhere: its UUID, where nvidia-smi tells.
      Those of CUDA_VISIBLE_DEVICES if it is set, as far as CUDA reads it, else those of nvidia-smi.
    """
    listed = dict(re.findall(r"^GPU (\d+): .*\(UUID: ([^)\s]+)\)$", _nvidia_smi(), re.MULTILINE))
    names = list(listed)
    if VISIBLE in environment:
        words = (word.strip() for word in environment[VISIBLE].split(","))
        names = list(takewhile(re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch, words))
    return {name: listed.get(name, name) for name in names}


def enough(environment: Mapping[str, str], needed: int) -> dict[str, str]:
    """The same, where there are as many as needed, free or not.

    Raises:
      UserError: there are not.
    """
    seen = visible(environment)
    if len(seen) < needed:
        source = VISIBLE if VISIBLE in environment else "nvidia-smi"
        raise UserError(
            f"{needed} GPUs are asked for, but by {source} there are {len(seen)} here"
            f" ({', '.join(seen) or 'none'}); ask for fewer, with --accelerator or --hosts"
        )
    return seen


def take(gpus: Mapping[str, str], needed: int) -> dict[str, FileLock] | None:
    """Takes as many as needed for as long as the locks are held.

    Args:
      gpus: those to choose from, see `visible`.
      needed: how many.

    Returns:
      From what CUDA calls each to its lock; None, and nothing is taken, where too few are free.

    Raises:
      StorageError: the locks cannot be made.
    """
    before = os.umask(0)  # other people's jobs take the same locks
    try:
        folder = Path(tempfile.gettempdir(), "recattn-gpus")
        records.make(folder)
        taken: dict[str, FileLock] = {}
        with FileLock(folder / "choosing"):  # or two that choose at once may both find too few
            for name, identity in gpus.items():
                lock = FileLock(folder / quote(identity, safe=""))
                if len(taken) < needed and lock.acquire(wait=False):
                    taken[name] = lock
            if len(taken) == needed:
                return taken
            for lock in taken.values():
                lock.release()
            return None
    finally:
        os.umask(before)


def _nvidia_smi() -> str:
    """What it lists; nothing where it is not there, or finds no driver."""
    if shutil.which("nvidia-smi") is None:
        return ""
    answer = calls.call(("nvidia-smi", "-L"), _TIMEOUT)
    return answer.out if answer.code == 0 else ""
