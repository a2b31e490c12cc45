"""Which kind of device a program is made for, and which implementations there are for it."""

from collections.abc import Mapping, Sequence

import jax


def backend() -> str:
    """The kind of device that programs are made for.

    It is that of the mesh in use, so that a program may be compiled for devices that are not here,
    or else that of jax.

    Returns:
      "cpu", "gpu" or "tpu".

    >>> backend() in ("cpu", "gpu", "tpu")
    True
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def one_cpu() -> bool:
    """Whether one CPU runs the programs, on arrays that are whole.

    Returns:
      True where programs are made for a CPU and no mesh cuts the arrays.

    >>> one_cpu()
    True
    """
    return backend() == "cpu" and jax.sharding.get_abstract_mesh().size <= 1


def check_implementation(
    name: str,
    implementation: str | None,
    known: Sequence[str],
    needs: Mapping[str, Sequence[str]],
) -> None:
    """Raises if there is no such implementation, or it is made for other devices.

    Args:
      name: of the function or layer, for the message.
      implementation: what is asked for; None is always right.
      known: all there are.
      needs: the backends that some of them are made for; the others run anywhere.

    Raises:
      ValueError: naming what there is, or what it needs.

    >>> check_implementation("LSTM", "xla", ("xla", "cudnn"), {"cudnn": ("gpu",)})
    """
    if implementation is None:
        return
    if implementation not in known:
        raise ValueError(
            f"{name}: implementation={implementation!r} must be None or one of "
            f"{', '.join(map(repr, known))}"
        )
    own = backend()
    if own not in needs.get(implementation, (own,)):
        raise ValueError(
            f"{name}: implementation={implementation!r} needs a "
            f"{' or '.join(b.upper() for b in needs[implementation])}, and the programs here are "
            f"made for a {own.upper()}; use None"
        )
