"""Where jobs run: the drivers, and the flags that choose one and say what a job asks for."""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from launch import app
from launch.drivers.gke import Gke
from launch.drivers.local import Local
from launch.drivers.slurm import Slurm
from launch.drivers.tpu_vm import TpuVm
from launch.jobs import Driver, Job

__all__ = ["Gke", "Local", "Slurm", "TpuVm", "define_flags", "from_flags", "job", "python"]

# The flags that only some drivers read.
OWN_FLAGS = {
    "local": (),
    "slurm": ("partition", "account", "minutes"),
    "tpu_vm": ("zone", "runtime", "project", "spot", "directory", "setup"),
    "gke": ("image", "namespace", "claim", "queue"),
}
_TEXTS = {
    "partition": (None, "slurm: the partition; default: the cluster's"),
    "account": (None, "slurm: the account; default: the cluster's"),
    "zone": (None, "tpu_vm: the zone, such as us-east5-b"),
    "runtime": (None, "tpu_vm: version of the software, such as v2-alpha-tpuv6e"),
    "project": (None, "tpu_vm: the project; default: as gcloud is set"),
    "directory": (".", "tpu_vm: where on the workers the command starts, from the home folder"),
    "setup": (None, "tpu_vm: a bash script that each worker runs there before the command"),
    "image": (None, "gke: the container's image, which holds the code"),
    "namespace": ("default", "gke: the namespace"),
    "claim": (None, "gke: claim of the volume that is mounted at --folder"),
    "queue": (None, "gke: the local queue of Kueue, where there is one"),
}


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of every command that starts jobs."""
    flags.DEFINE_enum(
        "driver", "local", list(OWN_FLAGS), "where the job runs",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_string(
        "accelerator", "any", "what each host has: any (local, slurm: what there is), cpu, cpu:8,"
        " gpu:8; or the type of a TPU slice, v5litepod-16", flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "hosts", 1, "how many machines, or with the local driver processes", lower_bound=1,
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "retries", 3, "how many further attempts there are after the first", lower_bound=0,
        flag_values=flag_values,
    )  # fmt: skip
    for name, (default, text) in _TEXTS.items():
        flags.DEFINE_string(name, default, text, flag_values=flag_values)
    flags.DEFINE_integer(
        "minutes", 24 * 60, "slurm: how long an attempt may take", lower_bound=1,
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "spot", False, "tpu_vm: machines that are cheap and may be taken away",
        flag_values=flag_values,
    )  # fmt: skip


def from_flags(flag_values: flags.FlagValues) -> Driver:
    """The driver that the flags choose.

    Raises:
      UserError: a flag of it is missing, or one of another driver is given.
    """
    chosen = flag_values.driver
    others = {name for names in OWN_FLAGS.values() for name in names} - set(OWN_FLAGS[chosen])
    app.refuse(flag_values, sorted(others), f"the {chosen} driver has no use for it")
    own: dict[str, Any] = {name: flag_values[name].value for name in OWN_FLAGS[chosen]}
    if chosen == "local":
        return Local()
    if chosen == "slurm":
        return Slurm(**own)
    if chosen == "tpu_vm":
        setup = Path(own["setup"]) if own["setup"] else None
        needed = {name: app.required(flag_values, name) for name in ("zone", "runtime")}
        return TpuVm(**{**own, **needed, "setup": setup})
    return Gke(**{**own, "image": app.required(flag_values, "image")})


def python(flag_values: flags.FlagValues) -> str:
    """The interpreter where the jobs run: this one, or that of another machine's own."""
    return "python" if flag_values.driver in ("tpu_vm", "gke") else sys.executable


def job(flag_values: flags.FlagValues, name: str, argv: tuple[str, ...], folder: Path) -> Job:
    """A job that asks for what the flags say.

    Args:
      flag_values: parsed.
      name: of the job.
      argv: of every process.
      folder: for logs and what the driver keeps.

    Raises:
      UserError: see `Job`.
    """
    return Job(
        name,
        argv,
        folder,
        flag_values.accelerator,
        hosts=flag_values.hosts,
        retries=flag_values.retries,
    )
