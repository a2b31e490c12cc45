"""Readouts: from the outputs of a body to predictions in float32."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax.kernels.attention import safe_softmax
from recattn_jax.kernels.chunks import map_steps
from recattn_jax.kernels.precision import wide
from recattn_jax.kernels.products import dense_product
from recattn_jax.layers.base import Context, refuse_shared
from recattn_jax.layers.dense import dense
from recattn_jax.layers.pointwise import Embed
from recattn_jax.shapes import Activations, Array, Float, Mask, Segments

Predictions = Float[Array, "B ..."] | tuple[Any, ...]
"""Of every step `[B, T, V]`, of the whole row `[B, V]`, or a tuple of both from `Joint`."""

Comparison = Callable[[Any, Any], Any]
"""`(predictions [..., V], labels [...])` to a pytree of `[...]`, each entry by itself: what is to
be known of them, such as `functools.partial(tasks.losses.compare, loss)`."""


class Readout(nn.Module):
    """What predicts from the outputs of a body (abstract): `readout(x, context)`.

    Predictions are float32 (float64 where x is) whatever the dtype of x.

    >>> class Total(Readout):
    ...     streams = False
    ...
    ...     def __call__(self, x, context=Context()):
    ...         return jnp.sum(x, axis=(1, 2))[:, None]
    >>> Total().apply({}, jnp.ones((2, 5, 3))).tolist()
    [[15.0], [15.0]]
    """

    @property
    def streams(self) -> bool:
        """Whether the prediction at a step needs no later step."""
        raise NotImplementedError

    def __call__(self, x: Activations, context: Context = Context()) -> Predictions:
        """Predicts.

        Args:
          x: `[B, T, D]`.
          context: side inputs; `segments` say which steps are real.

        Returns:
          `[B, T, V]`, or `[B, V]` where the steps are pooled; `Joint` gives a tuple.
        """
        raise NotImplementedError

    def compare(
        self, comparison: Comparison, labels: Any, x: Activations, context: Context = Context()
    ) -> Any:
        """Compares the predictions with labels: `comparison(readout(x, context), labels)`.

        A readout that predicts much of every step may do so for a few steps at a time.

        Args:
          comparison: what is to be known.
          labels: as the comparison takes them beside the predictions.
          x: `[B, T, D]`.
          context: side inputs.

        Returns:
          What the comparison returns.
        """
        return comparison(self(x, context), labels)


class PerStep(Readout):
    """Reads outputs off every step, `y_t = x_t W + b`.

    Attributes:
      outputs: V, for a language model the size of the vocabulary.
      chunk: how many steps, of all rows that a device has, are predicted at a time where they are
        compared with labels (chunked cross-entropy): logits and their gradient take `8 chunk V`
        bytes in training instead of `8 B T V`, for a third more products; None for all at once.
        It changes no result.

    Call: `[B, T, D] -> [B, T, V]`.

    >>> PerStep(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 5, 4)
    """

    outputs: int
    chunk: int | None = None

    streams: ClassVar[bool] = True

    def __call__(self, x: Activations, context: Context = Context()) -> Float[Array, "B T V"]:
        del context
        return _affine(self.weights(x), x)

    def compare(
        self, comparison: Comparison, labels: Any, x: Activations, context: Context = Context()
    ) -> Any:
        del context
        return _compare(_affine, self.weights(x), comparison, labels, x, self.chunk)

    @nn.compact
    def weights(self, x: Activations) -> "_Weights":
        """The kernel `[D, V]` and the bias `[V]`."""
        return _weights(self, x.shape[-1], self.outputs)


class TiedPerStep(Readout):
    """Reads the logits of tokens off the table that embeds them, `y_t = x_t E^T / sqrt(D) + b`.

    The table starts at unit variance, so the root keeps the logits at the scale of x: the same as
    a table of variance 1 / D whose rows are multiplied by sqrt(D) where they are looked up.

    Attributes:
      embed: the very instance that stands in the frontend (or anywhere else in the model): one
        instance in two places is one table, and its gradient comes from both.
      chunk: as for `PerStep`; None predicts all steps at once.

    Call: `[B, T, D] -> [B, T, V]`, D the width of the table.

    Raises:
      ValueError: if x is not as wide as the table.

    >>> from recattn_jax.layers import LSTM
    >>> from recattn_jax.models import SequenceModel
    >>> embed = Embed(10, 8)
    >>> model = SequenceModel(embed, LSTM(8), TiedPerStep(embed))

    Press and Wolf, Using the output embedding to improve language models, 2016, arXiv:1608.05859;
    the scale: Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    embed: Embed
    chunk: int | None = None

    streams: ClassVar[bool] = True

    def __call__(self, x: Activations, context: Context = Context()) -> Float[Array, "B T V"]:
        del context
        return _tied(self.weights(x), x)

    def compare(
        self, comparison: Comparison, labels: Any, x: Activations, context: Context = Context()
    ) -> Any:
        del context
        return _compare(_tied, self.weights(x), comparison, labels, x, self.chunk)

    @nn.compact
    def weights(self, x: Activations) -> "_Weights":
        """The table `[V, D]` and the bias `[V]`."""
        width = self.embed.features
        if x.shape[-1] != width:
            raise ValueError(
                f"TiedPerStep: x is {x.shape[-1]} wide, the table {width}; end the body with "
                f"Dense({width}), or use PerStep"
            )
        bias = self.param("bias", nn.initializers.zeros, (self.embed.vocabulary,), jnp.float32)
        return self.embed.table(), bias


class Pooled(Readout):
    """The template of readouts of whole rows (abstract): `y = pool(x_1, ..., x_T) W + b`.

    Only the real steps count, so that padding changes nothing; a row without any pools to zeros.
    The steps of a row are pooled together: give it one document a row.

    Attributes:
      outputs: V, for a classifier the number of classes.

    Call: `[B, T, D] -> [B, V]`.

    >>> class First(Pooled):
    ...     def pool(self, x, real):
    ...         return x[:, 0]
    >>> First(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 4)
    """

    outputs: int

    streams: ClassVar[bool] = False

    def pool(self, x: Activations, real: Mask) -> Float[Array, "B D"]:
        """One vector a row.

        Args:
          x: `[B, T, D]`, zero where it is not real.
          real: `[B, T]`, the steps that count.

        Returns:
          `[B, D]`, zeros for a row without real steps.
        """
        raise NotImplementedError

    @final
    @nn.compact
    def __call__(self, x: Activations, context: Context = Context()) -> Float[Array, "B V"]:
        """Pools the steps of each row and predicts; see `Readout`."""
        if context.segments is None:
            real_BT = jnp.ones(x.shape[:2], bool)
        else:
            _refuse_packed(self, context.segments)
            real_BT = context.segments > 0
            x = jnp.where(real_BT[..., None], x, jnp.zeros((), x.dtype))
        pooled_BD = self.pool(x, real_BT)
        return _affine(_weights(self, pooled_BD.shape[-1], self.outputs), pooled_BD)


def _refuse_packed(readout: Pooled, segments: Segments) -> None:
    """Outside of jit, where the numbers can be seen, packed rows are refused."""
    if isinstance(segments, jax.core.Tracer):
        return
    numbers = np.asarray(segments)  # a constant inside of jit stays one only for numpy
    lowest_B1 = np.min(np.where(numbers > 0, numbers, numbers.max()), axis=1, keepdims=True)
    if np.any((numbers > 0) & (numbers != lowest_B1)):
        raise ValueError(
            f"{type(readout).__name__}: context.segments has several documents in a row, and a row "
            "is pooled to one prediction; give one document a row"
        )


class Last(Pooled):
    """Reads the last real step, `y = x_last W + b`.

    Attributes:
      outputs: V.

    Call: `[B, T, D] -> [B, V]`.

    >>> Last(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 4)
    """

    def pool(self, x: Activations, real: Mask) -> Float[Array, "B D"]:
        after_B = x.shape[1] - jnp.argmax(real[:, ::-1], axis=1)  # a row of nothing: the last, 0
        return jnp.take_along_axis(x, after_B[:, None, None] - 1, axis=1)[:, 0]


class Mean(Pooled):
    """Reads the mean of the real steps, `y = mean_t(x_t) W + b`.

    Attributes:
      outputs: V.

    Call: `[B, T, D] -> [B, V]`.

    >>> Mean(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 4)
    """

    def pool(self, x: Activations, real: Mask) -> Float[Array, "B D"]:
        count_B = jnp.sum(real, axis=1)
        return jnp.sum(x, axis=1, dtype=wide(x.dtype)) / jnp.maximum(count_B, 1)[:, None]


class Max(Pooled):
    """Reads the largest entry of each channel over the real steps, `y = max_t(x_t) W + b`.

    Attributes:
      outputs: V.

    Call: `[B, T, D] -> [B, V]`.

    >>> Max(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 4)
    """

    def pool(self, x: Activations, real: Mask) -> Float[Array, "B D"]:
        lowest = jnp.asarray(jnp.finfo(x.dtype).min, x.dtype)
        top_BD = jnp.max(jnp.where(real[..., None], x, lowest), axis=1)
        return jnp.where(jnp.any(real, axis=1)[:, None], top_BD, jnp.zeros((), x.dtype))


class AttentionPooled(Pooled):
    """Reads a weighted mean of the real steps, with learned weights.

    `y = (sum_t w_t x_t) W + b`, `w_t = softmax_t(v . tanh(x_t W_a + b_a))`.

    Attributes:
      outputs: V.
      features: width of the tanh layer.

    The weights `[B, T]`, float32, are sown as `weights` in `intermediates`.

    Call: `[B, T, D] -> [B, V]`.

    >>> AttentionPooled(4, 6).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape
    (2, 4)

    Yang et al., Hierarchical attention networks for document classification, 2016.
    """

    features: int

    def pool(self, x: Activations, real: Mask) -> Float[Array, "B D"]:
        hidden_BTE = jnp.tanh(dense(self.features, dtype=x.dtype, name="hidden")(x))
        score = self.param("score", nn.initializers.normal(self.features**-0.5), (self.features,))
        scores_BT = jnp.einsum(
            "bte,e->bt", hidden_BTE, score.astype(x.dtype), preferred_element_type=wide(x.dtype)
        )
        weights_BT = safe_softmax(scores_BT, real)
        self.sow("intermediates", "weights", weights_BT)
        return jnp.einsum("bt,btd->bd", weights_BT, x, preferred_element_type=wide(x.dtype))


class Asked(Readout):
    """Predicts at the steps `context.asked` alone, so that there are no predictions of the others.

    Attributes:
      readout: predicts at every step it is given.

    Call: `[B, T, D] -> [B, Q, V]`.

    Raises:
      ValueError: if the context asks for no steps.

    >>> context = Context(asked=jnp.array([[4], [0]]))
    >>> x = jnp.ones((2, 5, 3))
    >>> Asked(PerStep(4)).init_with_output(jax.random.key(0), x, context)[0].shape
    (2, 1, 4)
    """

    readout: Readout

    @property
    def streams(self) -> bool:
        return False

    def __call__(self, x: Activations, context: Context = Context()) -> Predictions:
        if context.asked is None:
            raise ValueError("Asked: context.asked is None; say at which steps to predict")
        asked = jnp.take_along_axis(x, context.asked[..., None], axis=1)
        return self.readout(asked, dataclasses.replace(context, segments=None, asked=None))


class Joint(Readout):
    """Several readouts of the same outputs, such as a tag for every step and an intent for the row.

    Attributes:
      readouts: each predicts by itself.

    Call: `[B, T, D] ->` the tuple of their predictions.

    Raises:
      ValueError: if one instance stands in two places.

    >>> joint = Joint((PerStep(4), Mean(3)))
    >>> [y.shape for y in joint.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]]
    [(2, 5, 4), (2, 3)]

    Liu and Lane, Attention-based recurrent neural network models for joint intent detection and
    slot filling, 2016, arXiv:1609.01454.
    """

    readouts: tuple[Readout, ...]

    def __post_init__(self) -> None:
        refuse_shared(self, self.readouts)
        super().__post_init__()

    @property
    def streams(self) -> bool:
        return all(readout.streams for readout in self.readouts)

    def __call__(self, x: Activations, context: Context = Context()) -> tuple[Any, ...]:
        return tuple(readout(x, context) for readout in self.readouts)


_Weights = tuple[Float[Array, "_ _"], Float[Array, " V"]]


def _weights(module: nn.Module, width: int, outputs: int) -> _Weights:
    """Parameters `kernel` `[D, V]` and `bias` `[V]` of the module."""
    kernel = module.param("kernel", nn.initializers.lecun_normal(), (width, outputs), jnp.float32)
    return kernel, module.param("bias", nn.initializers.zeros, (outputs,), jnp.float32)


def _affine(weights: _Weights, x: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
    """`x W + b`, summed in float32."""
    kernel, bias = weights
    y = _product(x, kernel)
    return _add_bias(y, bias)


def _tied(weights: _Weights, x: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
    """`x E^T / sqrt(D) + b`, summed in float32."""
    table, bias = weights
    y = _product(x, table.T)
    return _add_bias(y / x.shape[-1] ** 0.5, bias)


def _product(x: Float[Array, "*batch D"], kernel: Float[Array, "D V"]) -> Float[Array, "*batch V"]:
    return dense_product(
        x,
        kernel.astype(x.dtype),
        (((x.ndim - 1,), (0,)), ((), ())),
        preferred_element_type=wide(x.dtype),
    )


def _add_bias(y: Float[Array, "*batch V"], bias: Float[Array, " V"]) -> Float[Array, "*batch V"]:
    return y + bias.reshape((1,) * (y.ndim - 1) + (-1,)).astype(y.dtype)


def _compare(
    predict: Callable[[_Weights, Array], Array],
    weights: _Weights,
    comparison: Comparison,
    labels: Array,
    x: Activations,
    chunk: int | None,
) -> Any:
    """Compares each step's predictions with its labels, at most `chunk` steps at a time."""
    if chunk is None:
        return comparison(predict(weights, x), labels)

    def compare(weights: _Weights, x_CD: Array, labels_C: Array) -> Any:
        return comparison(predict(weights, x_CD), labels_C)

    return map_steps(compare, weights, (x, labels), chunk)
