"""When things happen, where, and how parameters move: numbers of all experiments on records."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recattn_jax.data import Labels, Source
from recattn_jax.errors import UserError
from recattn_jax.training import (
    DEFAULT_RULES,
    Cadence,
    Layout,
    MeshShape,
    Optimization,
    Privacy,
    optimizers,
)


def numbers(**changed: Any) -> ConfigDict:
    """The numbers that the functions below read.

    Args:
      changed: an experiment's own numbers, and other values for those of here.

    Returns:
      A flat config, locked.

    >>> numbers(steps=100, width=64).width
    64
    """
    config: dict[str, Any] = dict(
        seed=0,
        data_dir="~/.cache/recattn_jax",
        steps=1000,
        log_every=50,
        evaluate_every=100,
        save_every=1000,
        score_every=0,  # steps between scores of predictions; 0 scores at the end alone
        keep=1,
        patience=0,  # evaluations without a better one before the run stops; 0 never stops
        peak_lr=3e-3,
        warmup=50,
        weight_decay=0.1,
        clip=1.0,
        skip_nonfinite=0,  # steps in a row that may be left out for a gradient that is not finite
        ema_decay=0.0,  # 0 keeps no average of the parameters
        privacy_noise=0.0,  # of DP-SGD, in units of its clip; 0 is no privacy
        privacy_clip=1.0,  # the largest norm of one example's gradient
        privacy_delta=1e-5,
        mesh="data:-1",  # devices along data, fsdp, model and sequence, as in data:2,fsdp:4
    )
    return ConfigDict(config | changed).lock()


def cadence(c: ConfigDict) -> Cadence:
    """When things happen."""
    return Cadence(
        steps=c.steps,
        log_every=c.log_every,
        evaluate_every=c.evaluate_every,
        save_every=c.save_every,
        score_every=c.score_every or None,
        keep=c.keep,
        patience=c.patience or None,
    )


def layout(c: ConfigDict) -> Layout:
    """Where arrays are, and how they are stored."""
    return Layout(mesh=MeshShape.parse(c.mesh), rules=DEFAULT_RULES, storage=())


def privacy(c: ConfigDict) -> Privacy | None:
    """How private training is; None where the noise is 0."""
    if not c.privacy_noise:
        return None
    return Privacy(c.privacy_clip, c.privacy_noise, c.privacy_delta)


def adamw(c: ConfigDict, carry_state: bool = False) -> Optimization:
    """AdamW with a rise and half a cosine down to zero; see `Optimization` for `carry_state`."""
    rate = optimizers.cosine(c.peak_lr, c.warmup, c.steps, end=0.0)
    return Optimization(
        optimizer=optimizers.adamw(
            rate, b1=0.9, b2=0.99, eps=1e-8, weight_decay=c.weight_decay, clip=c.clip
        ),
        learning_rate=rate,
        accumulate=1,
        ema_decay=c.ema_decay or None,
        carry_state=carry_state,
        privacy=privacy(c),
        skip_nonfinite=c.skip_nonfinite,
    )


def adam(c: ConfigDict) -> Optimization:
    """Adam at one learning rate, and nothing else: reads no rise, no decay, no clipping.

    Raises:
      UserError: one of them is set.
    """
    for key in ("warmup", "weight_decay", "clip"):
        if c[key]:
            raise UserError(f"{key} is {c[key]}, but this experiment is plain Adam; leave it at 0")
    rate = optimizers.constant(c.peak_lr, warmup=0)
    return Optimization(
        optimizer=optimizers.adam(rate, b1=0.9, b2=0.999, eps=1e-8, clip=None),
        learning_rate=rate,
        accumulate=1,
        ema_decay=c.ema_decay or None,
        carry_state=False,
        privacy=privacy(c),
        skip_nonfinite=c.skip_nonfinite,
    )


def labels(c: ConfigDict, key: str, found: Source, field: str) -> Labels:
    """The names of classes: those of the format, and all that any split has.

    One that training lacks has a place too, so that others can be evaluated; the log names it.

    Args:
      c: the config.
      key: the key that says how many there are.
      found: the records.
      field: where they have their class, or several.

    Raises:
      UserError: there are more or fewer.
    """
    names = set(found.classes if field == "label" else ())
    for records in found.splits.values():
        for record in records:
            names.update([record[field]] if isinstance(record[field], str) else record[field])
    if len(names) != c[key]:
        raise UserError(
            f"{key} is {c[key]}, but the data have {len(names)}: {', '.join(sorted(names))};"
            f" set --config.{key}={len(names)}"
        )
    return Labels.of(names)


def check_features(c: ConfigDict, found: int) -> None:
    """Sees to it that the model is built for as many numbers a step as the data have.

    Args:
      c: the config; reads `features`.
      found: of the data.

    Raises:
      UserError: there are more or fewer.
    """
    if found != c.features:
        raise UserError(
            f"features is {c.features}, but a step of the data has {found};"
            f" set --config.features={found}"
        )


def path(c: ConfigDict, key: str, holds: str) -> Path:
    """A path that the config must name.

    Args:
      c: the config.
      key: its key.
      holds: what is to be found there, for the message.

    Raises:
      UserError: it is empty.
    """
    if not c[key]:
        raise UserError(f"where is the data? set --config.{key}=PATH: {holds}")
    return Path(c[key]).expanduser()


def tiny(c: ConfigDict, **changed: Any) -> ConfigDict:
    """The same experiment in seconds: two steps, and what else makes it small."""
    c.update(
        changed, steps=2, evaluate_every=2, save_every=2, score_every=2 if c.score_every else 0
    )
    return c


def data_dir(c: ConfigDict) -> Path:
    """Where prepared data are kept."""
    return Path(c.data_dir).expanduser()


def splits(c: ConfigDict, **keys: str) -> dict[str, Path]:
    """The files of those splits whose key is set; "train" must be.

    Args:
      c: the config.
      keys: the config's key by split.
    """
    found = {split: Path(c[key]).expanduser() for split, key in keys.items() if c[key]}
    return found | {"train": path(c, keys["train"], "the file to train on")}
