"""Where jobs run: the drivers, and the flags that choose one and say what a job asks for."""

from pathlib import Path

from absl import flags

from launch.drivers.local import Local
from launch.jobs import Driver, Job
from recattn_jax.errors import UserError

__all__ = ["Local", "define_flags", "from_flags", "job"]


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of every command that starts jobs."""
    flags.DEFINE_enum(
        "driver", "local", ["local", "slurm", "tpu_vm", "gke"], "where the job runs",
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


def from_flags(flag_values: flags.FlagValues) -> Driver:
    """The driver that the flags choose.

    Raises:
      UserError: a flag of it is missing, or one of another driver is given.
    """
    if flag_values.driver != "local":
        raise UserError(f"--driver={flag_values.driver}: there is none yet")
    return Local()


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
