"""Joins the processes of one run, where the environment says that there are several.

jax finds its own way on TPU VMs, under SLURM (`srun`) and under Open MPI (`mpirun`). Elsewhere
every process is told: `--coordinator=HOST:PORT --processes=N --process=n`, or by the variables
`RECATTN_COORDINATOR`, `RECATTN_PROCESSES` and `RECATTN_PROCESS`. A coordinator called `auto` says
that there are others, and that jax is to find them.

Under `srun` and `mpirun` jax gives each process one device, the one that its number on the host
says; told what to join, a process has all that it sees.
"""

import atexit
import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from absl import flags

from launch import app
from recattn_jax.errors import Interrupted, RunError, UserError, summary

# Variables that are there in every process, and the one among them that counts the processes.
_OPEN_MPI = "OMPI_COMM_WORLD_SIZE"
CLUSTERS = (
    ("SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")),
    (_OPEN_MPI, ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK")),
)
AUTO = "auto"
_PREFIX = "RECATTN_"
_NAMES = ("coordinator", "processes", "process")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags that tell a process of the others."""
    flags.DEFINE_string(
        "coordinator", None, "where several processes are one run: HOST:PORT of the first of them,"
        " or auto; under SLURM, Open MPI and on TPU VMs it is found", flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "processes", None, "how many processes there are", lower_bound=1, flag_values=flag_values
    )
    flags.DEFINE_integer(
        "process", None, "which of them this one is, from 0", lower_bound=0, flag_values=flag_values
    )


class NotJoined(RunError):
    """The others were not found in time, or a port is taken: it may go better another time."""

    exit_code = 1


class LostError(RunError):
    """A step failed as it does when another process is gone: it may go better another time."""

    exit_code = 1


@contextlib.contextmanager
def joined(flag_values: flags.FlagValues) -> Iterator[None]:
    """While entered, this process is one of its run's; alone, if nothing says otherwise.

    Must be entered before jax looks for devices.

    Raises:
      UserError: what the flags or the environment say is not whole, or wrong.
      NotJoined: the others are not found.
    """
    told = _told(flag_values, os.environ)
    if told is None and found(os.environ):
        told = ()
    if told is None:
        yield
        return
    try:
        if told:
            # Told all, jax would still look for a cluster, and under SLURM and Open MPI leave each
            # process one of its GPUs.
            jax.distributed.initialize(*told, cluster_detection_method="deactivate")
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        kind = UserError if isinstance(error, ValueError) else NotJoined
        raise kind(f"cannot join the other processes of this run: {error}") from error
    try:
        yield
    except Interrupted:  # which all are, at the same step
        jax.distributed.shutdown()
        raise
    except BaseException as error:
        # The others may still be in a step. At its end Python would run what jax has registered
        # there, which waits for them; what is registered later is run before that.
        atexit.register(_leave, app.exit_code(error))
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise LostError(
                f"a step failed, as it does when another process of this run is gone:"
                f" {summary(error)}; what the others say comes first"
            ) from error
        raise
    jax.distributed.shutdown()


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def found(environment: Mapping[str, str]) -> bool:
    """Whether jax will find other processes by itself.

    Args:
      environment: of this process.

    Raises:
      UserError: there are others that jax cannot find.

    Example:
      >>> found({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"})  # inside a job, but not under srun
      False
    """
    for count, others in CLUSTERS:
        if all(name in environment for name in (count, *others)) and environment[count] != "1":
            return True
    if environment.get(_OPEN_MPI, "1") != "1":
        raise UserError(
            f"{_OPEN_MPI} is {environment[_OPEN_MPI]}, but jax finds the others only under Open MPI"
            " 4; tell each process: --coordinator=HOST:PORT --processes=N --process=n"
        )
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    on_tpu = bool(chips) and importlib.util.find_spec("libtpu") is not None
    return on_tpu and environment.get("JAX_PLATFORMS", "tpu").startswith("tpu")


def _told(
    flag_values: flags.FlagValues, environment: Mapping[str, str]
) -> tuple[str, int, int] | tuple[()] | None:
    """Coordinator, number of processes, and which this one is; nothing if jax is to find it.

    None where the process is alone.
    """
    values = {}
    for name in _NAMES:
        given, variable = flag_values[name].value, _PREFIX + name.upper()
        values[name] = str(given) if given is not None else environment.get(variable)
    if values["coordinator"] == AUTO:
        return ()
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise UserError(
            f"--{missing[0]} is missing: where several processes are one run each needs"
            " --coordinator=HOST:PORT, --processes=N and --process=n, from 0 to N - 1"
        )
    address, *numbers = (str(value) for value in values.values())
    if not re.fullmatch(r"[^\s:]+:\d+|\[[^\s\]]+\]:\d+", address):
        raise UserError(f"--coordinator={address}: expected HOST:PORT, as in 10.0.0.1:1234")
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f"processes and process are {numbers}, expected whole numbers")
    processes, process = map(int, numbers)
    if not process < processes:
        raise UserError(
            f"--process={process}: with --processes={processes} it is 0 to {processes - 1}"
        )
    return None if processes == 1 else (address, processes, process)
