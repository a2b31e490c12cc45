"""What a run is trained on and by what programs, so that its numbers and minutes mean something."""

import collections
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import jax

from recattn_jax.training.experiment_file import CHECKOUT

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_CPUINFO = Path("/proc/cpuinfo")  # where Linux names the model; elsewhere Python knows something


def hardware() -> str:
    """The devices of this process, all hosts' together; of a CPU what the process may use of it.

    Returns:
      Such as "1 of 2 cores of AMD EPYC", or "8 x TPU v5 lite".

    >>> isinstance(hardware(), str)
    True
    """
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return cores()
    kinds = collections.Counter(device.device_kind for device in devices)
    return ", ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in sorted(kinds.items()))


def cores() -> str:
    """How many cores this process may use, of how many, and of which CPU."""
    there = os.cpu_count() or 1
    # Only Linux lets a process be pinned to some of them.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    count = f"{usable} of {there}" if usable < there else str(there)
    return f"{count} core{'s' if there > 1 else ''} of {_cpu_model()}"


def _cpu_model() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "an unknown CPU"


def commit() -> str | None:
    """The checkout's commit, with a + where programs differ from it; None outside a checkout."""
    git = shutil.which("git")
    if git is None or not (CHECKOUT / ".git").exists():
        return None

    def ask(*words: str) -> str:
        answer = subprocess.run(
            [git, "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip()

    # Pages, figures and recorded results change when one of them is recorded, and run nothing.
    run = ("--", ".", *(f":!*.{kind}" for kind in ("md", "png", "jsonl")))
    changed = ask("status", "--porcelain", "--untracked-files=no", *run)
    return ask("rev-parse", "HEAD") + ("+" if changed else "")


def versions() -> dict[str, str]:
    """The version of Python and of each package that results depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}
