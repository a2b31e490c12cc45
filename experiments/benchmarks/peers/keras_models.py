"""Layers of Keras 3 on its jax backend, as pure functions."""

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is first imported

import jax  # noqa: E402
import keras  # type: ignore[import-untyped]  # noqa: E402

from experiments.benchmarks.peers import Shape  # noqa: E402

LAYERS = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "RNN": keras.layers.SimpleRNN}


def layer(kind: str, shape: Shape, dtype: str) -> tuple[Any, Any]:
    """A recurrent layer as a function of parameters and inputs, and its parameters.

    Args:
      kind: one of `LAYERS`.
      shape: sizes.
      dtype: of activations and parameters: with mixed ones Keras' scan refuses its own carry.

    Returns:
      `(params, x) -> y`, and the parameters.

    Raises:
      ValueError: keras runs on another backend already.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(f"KERAS_BACKEND is {keras.backend.backend()}; set it to jax")
    # Its own start of the recurrent kernel is orthogonal, and there is no QR in bfloat16.
    start = {"recurrent_initializer": "glorot_uniform"}
    made = LAYERS[kind](shape.units, return_sequences=True, dtype=dtype, **start)
    with jax.numpy_rank_promotion("allow"):  # which Keras relies on
        made.build((None, shape.steps, shape.width))
    params = [variable.value for variable in made.trainable_variables]
    others = [variable.value for variable in made.non_trainable_variables]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):
            return made.stateless_call(params, others, x)[0]

    return apply, params
