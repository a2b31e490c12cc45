"""What a run is made of, as plain values: nothing here touches data or devices."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from recattn_jax.data import Data
from recattn_jax.errors import UserError
from recattn_jax.tasks.base import Task
from recattn_jax.training.privacy import Privacy

Rule = tuple[str, Callable[[tuple[int, ...], Mesh], PartitionSpec]]
"""(regex on the parameter path, (shape, mesh) -> spec); the first regex that is found wins."""


@dataclass(frozen=True)
class Optimization:
    """How parameters move.

    Args:
      optimizer: gradient transformation, clipping included; sees float32 gradients of the mean
        loss.
      learning_rate: step -> learning rate, for the log; hand the same schedule to `optimizer`.
      accumulate: micro-batches per step; exact, whatever the weights of each.
      ema_decay: decay of the moving average of the parameters, which is then what is evaluated and
        loaded; None for no average.
      carry_state: truncated backpropagation through time. The model's state goes from one batch to
        the next, in training and in evaluation alike, so every pipeline must continue row b of one
        batch in row b of the next (`data.lanes`).
      privacy: of each example, for private training; None for none.
      skip_nonfinite: how many steps in a row may be left out because their loss or gradient is not
        finite. Such a step leaves all as it was, but for its number, and is counted in the log; one
        more stops the run. 0 stops it at the first.

    Raises:
      UserError: private training with a carried state, or with steps that data may cause to be
        left out: no guarantee covers these; or `skip_nonfinite` is negative.

    >>> rate = optax.cosine_decay_schedule(1e-3, decay_steps=100)
    >>> Optimization(optax.adam(rate), rate, 1, ema_decay=None, carry_state=False).accumulate
    1
    """

    optimizer: optax.GradientTransformation
    learning_rate: Callable[[Any], Any]
    accumulate: int
    ema_decay: float | None
    carry_state: bool
    privacy: Privacy | None = None
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        if self.privacy is not None and self.carry_state:
            raise UserError("privacy: no guarantee covers a carried state; set carry_state=False")
        if self.privacy is not None and self.skip_nonfinite:
            raise UserError("privacy: no guarantee covers skipped steps; set skip_nonfinite=0")
        if self.skip_nonfinite < 0:
            raise UserError(f"skip_nonfinite is {self.skip_nonfinite}, must be at least 0")

    @property
    def transformation(self) -> optax.GradientTransformation:
        """The optimizer as it is used: with `skip_nonfinite`, deaf to what is not finite."""
        if not self.skip_nonfinite:
            return self.optimizer
        return optax.apply_if_finite(self.optimizer, self.skip_nonfinite)


@dataclass(frozen=True)
class Cadence:
    """When things happen, in steps of the optimizer.

    Args:
      steps: length of the run.
      log_every: a line of training metrics each so many steps.
      evaluate_every: an evaluation of the validation split each so many steps, and after the last.
      save_every: a checkpoint each so many steps, after the last, and at each better evaluation.
      keep: how many of the latest checkpoints stay; the best one stays besides.
      patience: stop after so many evaluations in a row without a better headline; None for never.
      score_every: where the task scores predictions, an evaluation does so each so many steps, a
        multiple of `evaluate_every`, and the last one always; None for the last one alone.

    >>> cadence = Cadence(100, 10, 50, 50, keep=2, patience=None, score_every=None)
    """

    steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    keep: int
    patience: int | None
    score_every: int | None

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "evaluate_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"cadence: {name} is {getattr(self, name)}, must be at least 1")


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh; -1 takes what the others leave.

    Args:
      data: copies of the parameters, each with its share of the batch.
      fsdp: the batch is split here too, and so is every large parameter.
      model: units of a layer.
      sequence: time.

    >>> MeshShape(data=2, fsdp=4).sequence
    1
    """

    data: int = -1
    fsdp: int = 1
    model: int = 1
    sequence: int = 1

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """Reads `data:2,fsdp:4`; axes that are not named have 1 device, -1 takes the rest.

        Args:
          text: axes and their numbers of devices.

        Returns:
          The shape.

        Raises:
          UserError: an axis is unknown or named twice, or its number is none.

        >>> MeshShape.parse("fsdp:-1,model:2")
        MeshShape(data=1, fsdp=-1, model=2, sequence=1)
        """
        axes = [field.name for field in dataclasses.fields(cls)]
        sizes: dict[str, int] = {}
        for part in text.replace(" ", "").split(","):
            axis, _, size = part.partition(":")
            if axis not in axes or axis in sizes or not re.fullmatch(r"-1|[1-9]\d*", size):
                raise UserError(
                    f"mesh={text!r}: {part!r} is no part of it; expected axes among"
                    f" {', '.join(axes)}, each once, with a number of devices, or -1 for the rest,"
                    " as in data:2,fsdp:4"
                )
            sizes[axis] = int(size)
        return cls(**dict.fromkeys(axes, 1) | sizes)


@dataclass(frozen=True)
class Layout:
    """Where and how arrays are stored.

    Args:
      mesh: devices along each axis.
      rules: (regex, (shape, mesh) -> PartitionSpec) on parameter paths such as
        `body/layers_0/recurrent_kernel`, first match wins; `sharding.DEFAULT_RULES` suits most.
      storage: (regex, dtype) on parameter paths, first match wins; no match leaves the dtype.

    >>> layout = Layout(MeshShape(fsdp=2), rules=(), storage=((r".*", "bfloat16"),))
    """

    mesh: MeshShape
    rules: tuple[Rule, ...]
    storage: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Experiment:
    """All that defines a run; building one opens no data and no device.

    Args:
      model: unbound module, `(inputs, state, context) -> (outputs, state)`, or another call,
        that of the task, as `SequenceToSequence` makes of an `EncoderDecoder`.
      task: turns the bound model and a batch into metrics, `metrics["loss"]` being minimised.
      data: opens vocabularies and pipelines; called once, by whoever starts the run.
      batch: shapes and dtypes of the global batch, as `data().train.spec` gives them; the widest,
        where there are several.
      optimization: how parameters move.
      cadence: when to log, evaluate, save and stop.
      layout: mesh, sharding rules, storage precision.
      seed: of initial parameters and of noise; the pipelines have their own.

    >>> from recattn_jax.data import token_batch
    >>> from recattn_jax.layers import LSTM, Embed
    >>> from recattn_jax.models import PerStep, SequenceModel
    >>> from recattn_jax.tasks import LanguageModel
    >>> experiment = Experiment(
    ...     model=SequenceModel(Embed(256, 8), LSTM(8), PerStep(256)),
    ...     task=LanguageModel(separator=0, symbol="byte"),
    ...     data=lambda: text_data(...),  # opened by whoever starts the run
    ...     batch=token_batch(32, 128),
    ...     optimization=Optimization(optax.sgd(0.1), lambda step: 0.1, 1, None, False),
    ...     cadence=Cadence(100, 10, 50, 50, keep=2, patience=None, score_every=None),
    ...     layout=Layout(MeshShape(), rules=(), storage=()),
    ...     seed=0,
    ... )
    """

    model: nn.Module
    task: Task
    data: Callable[[], Data]
    batch: Mapping[str, jax.ShapeDtypeStruct]
    optimization: Optimization
    cadence: Cadence
    layout: Layout
    seed: int
