"""What is measured of a trained run: effective context, and gradient flow over lag."""

import heapq
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.analysis.attribution import Say
from recattn_jax.analysis.context import ContextCurve, context_curve
from recattn_jax.analysis.flow import gradient_flow
from recattn_jax.errors import UserError
from recattn_jax.models import SequenceModel
from recattn_jax.shapes import Float
from recattn_jax.tasks import LanguageModel
from recattn_jax.training.loading import Run

GONE = 0.01
"""A gradient is said to have faded at the lag where it is less than this share of that at lag 0."""
_ROWS, _PROBES = 8, 8
_MOST_STEPS = 512

Batches = Iterable[Mapping[str, np.ndarray]]


def run_context(run: Run, batches: Batches, say: Say | None = None) -> ContextCurve:
    """The loss of a run against the tokens that it is given; see `context_curve`.

    Args:
      run: of a language model.
      batches: of its data.
      say: is told of progress.

    Returns:
      The curve.

    Raises:
      UserError: it is of another kind, or the data are too few.
      NonFiniteError: a loss is not finite.

    >>> run = load_run("runs/a")  # doctest: +SKIP
    >>> batches = run.experiment.data().evaluation["validation"].epoch()  # doctest: +SKIP
    >>> run_context(run, batches).effective  # doctest: +SKIP
    64
    """
    if not isinstance(run.experiment.task, LanguageModel):
        kind = type(run.experiment.task).__name__
        raise UserError(f"effective context is one of language models; {run.path} is a {kind}")
    return context_curve(run.experiment.model, {"params": run.params}, batches, say)


def run_flow(run: Run, batches: Batches) -> Float[np.ndarray, " T"]:
    """How the gradient of the last output fades over lag, in the body of a run.

    `gradient_flow` of the body, on what the frontend makes of rows. The documents of a packed row
    are read as one. Of the longest rows those are chosen that are more than half as long as the
    first, and cut to the steps that all of them have.

    Args:
      run: of a model with a frontend and a body.
      batches: of its data, or of a text: `inputs` `[B, T]` or `[B, T, D]`, and `segments`.

    Returns:
      float64 `[T]`, as `gradient_flow` gives it.

    Raises:
      UserError: its model is of another kind.

    >>> run = load_run("runs/a")  # doctest: +SKIP
    >>> batches = run.experiment.data().evaluation["validation"].epoch()  # doctest: +SKIP
    >>> lag_below(run_flow(run, batches), GONE)  # doctest: +SKIP
    23
    """
    model = run.experiment.model
    if not isinstance(model, SequenceModel):
        raise UserError(
            f"gradient flow is that of the body of one sequence; {run.path} is of a"
            f" {type(model).__name__}"
        )
    every = (
        inputs[segments > 0][:_MOST_STEPS]
        for batch in batches
        for inputs, segments in zip(batch["inputs"], batch["segments"], strict=True)
    )
    longest = heapq.nlargest(_ROWS, every, key=len)
    rows = [row for row in longest if 2 * len(row) > len(longest[0])]
    if not rows:
        raise UserError("gradient flow needs rows to read, and there are none")
    inputs = jnp.asarray(np.stack([row[: len(rows[-1])] for row in rows]))

    def embed(model: SequenceModel, inputs: jax.Array) -> jax.Array:
        return model.frontend(inputs)[0]

    x = jax.jit(lambda v, i: model.apply(v, i, method=embed))({"params": run.params}, inputs)
    body = {"params": run.params.get("body", {})}
    return gradient_flow(model.body, body, x, jax.random.key(0), _PROBES)
