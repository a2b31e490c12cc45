"""Attention to a memory: what a decoder looks at of what an encoder made."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax import partition
from recattn_jax.kernels import attention
from recattn_jax.kernels.attention import Scoring
from recattn_jax.kernels.precision import wide
from recattn_jax.kernels.segments import Steps, follow_documents
from recattn_jax.layers.attention import Keys, MultiHead, Values
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.layers.dense import dense
from recattn_jax.shapes import Activations, Array, Bool, Float, Int, State

Made = TypeVar("Made")


class CrossAttention(MultiHead):
    """Multi-head attention from every step to `context.memory`.

    `y_t = concat_h(sum_s softmax_s(score(q_t, k_s)) v_s) W_o`; `q = x W_q`, `k = m W_k`,
    `v = m W_v` of the memory m. All of a row's memory is seen; with `context.memory_segments` a
    step of document n (1 without `context.segments`) sees the memory numbered n.

    Attributes:
      heads: H; the width of x must divide by it.
      kv_heads: G, heads of keys and values, of which each serves H / G heads of queries; None is H.
      score: how queries and keys are compared.
      use_bias: whether the projections have biases.
      project: whether there are projections at all, W_q to W_o; without them x and the memory are
        only split, and y is as wide as the memory.

    Call: `[B, T, D] -> [B, T, D]`; it streams and keeps nothing. `prepare` makes keys and values of
    the memory, once for all later calls. With `mutable=["intermediates"]` the weights
    `[B, H, T, S]` come out too.

    Raises:
      ValueError: if there is no memory, or widths and heads do not divide.

    >>> context = Context(memory=jnp.ones((2, 7, 6)))
    >>> layer, x = CrossAttention(heads=2), jnp.ones((2, 5, 8))
    >>> y, state = layer.init_with_output(jax.random.key(0), x, None, context)[0]

    Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2014,
    arXiv:1409.0473; Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762.
    """

    @property
    def streams(self) -> bool:
        return True

    def prepare(self, context: Context) -> Context:
        """Makes keys and values of the memory; see `SequenceLayer.prepare`."""
        # While parameters start there is no x yet, whose width says how large a head is.
        if _prepared(self, context) is not None or self.is_initializing():
            return context
        size = self.get_variable("params", "key")["kernel"].shape[-1] if self.project else 0
        return _keep(self, context, self.split_sources(_memory(self, context), size))

    def forward(self, x: Activations, state: State | None, context: Context) -> tuple[Array, State]:
        del state
        width = x.shape[-1]
        keys, values = (source.astype(x.dtype) for source in self._sources(context, width))
        mask = _visible(self, x, keys, context)
        mixed, weights = attention.attend(
            self.transform_queries(self.split_queries(x), keys),
            keys,
            values,
            mask,
            Scoring(self.score.comparison(self.parameter, self.heads)),
        )
        self.note(weights)
        return self.join(mixed, width), ()

    def _sources(self, context: Context, width: int) -> tuple[Keys, Values]:
        prepared = _prepared(self, context)
        if prepared is not None:
            return prepared
        return self.split_sources(_memory(self, context), self.head_size(width))


@struct.dataclass
class LocationState:
    """What location-sensitive attention carries on.

    Attributes:
      weights: `[B, S]`, what the last step looked at; float32.
      cumulative: `[B, S]`, the sum of the weights of all steps of the document so far.
      segment: `[B]`, the document of the last real step; 0 is nothing yet.

    >>> layer = LocationAttention(features=8, filters=4, width=5)
    >>> example = jnp.ones((2, 3, 8)), None, Context(memory=jnp.ones((2, 7, 6)))
    >>> state = jax.eval_shape(layer.init_with_output, jax.random.key(0), *example)[0][1]
    >>> state.weights.shape
    (2, 7)
    """

    __no_type_check__ = True

    weights: Float[Array, "B S"]
    cumulative: Float[Array, "B S"]
    segment: Int[Array, " B"]


class LocationAttention(SequenceLayer):
    """Attention to `context.memory` that knows where it has looked, to move on along the memory.

    `e_ts = v . tanh(W x_t + U m_s + L f_ts + b)`, `a_t = softmax_s(e_t)`, `y_t = sum_s a_ts m_s`,
    where f is a convolution over s of the weights `a_{t-1}` and of their sum over all steps before.

    Parameters: W `step/kernel [D, N]` with its bias b, U `memory/kernel [M, N]`, the convolution
    `filter_kernel [width, 2, F]`, L `location_kernel [F, N]` and v `score_vector [N, 1]`.

    Attributes:
      features: units N.
      filters: channels F of the convolution.
      width: steps of the memory that the convolution sees, centred.

    Call: `[B, T, D] -> [B, T, M]`; state: `LocationState`. The weights of a step need those of the
    step before, so steps are scanned. `prepare` maps the memory once for all later calls. With
    `mutable=["intermediates"]` the weights `[B, T, S]` come out too.

    Raises:
      ValueError: if there is no memory, or the state is for another one.

    >>> context = Context(memory=jnp.ones((2, 7, 6)))
    >>> layer, x = LocationAttention(features=8, filters=4, width=5), jnp.ones((2, 3, 8))
    >>> y, state = layer.init_with_output(jax.random.key(0), x, None, context)[0]

    Chorowski et al., Attention-based models for speech recognition, 2015, arXiv:1506.07503;
    cumulative weights: Shen et al., Natural TTS synthesis (Tacotron 2), 2017, arXiv:1712.05884.
    """

    features: int
    filters: int
    width: int

    @property
    def streams(self) -> bool:
        return True

    @nn.compact
    def build(self, make: Callable[[], Made]) -> Made:
        """Calls what declares parameters: from any method, and again for the same names."""
        return make()

    def prepare(self, context: Context) -> Context:
        """Maps the memory to the units; see `SequenceLayer.prepare`."""
        if _prepared(self, context) is not None:
            return context
        return _keep(self, context, self._units(_memory(self, context)))

    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Array, LocationState]:
        memory = _memory(self, context)
        prepared = _prepared(self, context)
        units = self._units(memory) if prepared is None else prepared
        query_BTN = self.build(lambda: dense(self.features, dtype=x.dtype, name="step")(x)).astype(
            wide(x.dtype)
        )
        compare = self._comparison(units.astype(wide(x.dtype)))
        # What is large for every step, [B, S, N], is made again in the backward pass.
        look = jax.checkpoint(lambda mask, *at: attention.safe_softmax(compare(*at), mask))

        def step(carry: tuple[Array, Array], at: tuple[Array, ...]) -> Any:
            query_BN, mask_BS, start_B, keep_B = at
            last, total = (jnp.where(start_B[:, None], 0, leaf) for leaf in carry)
            weights_BS = look(mask_BS, query_BN, last, total)
            after = (weights_BS, total + weights_BS)
            keep_B1 = keep_B[:, None]
            kept = tuple(jnp.where(keep_B1, a, b) for a, b in zip(after, carry, strict=True))
            return kept, weights_BS

        carry, steps = self._follow(x, state, memory, context)
        mask_BTS = _visible(self, x, memory, context)
        over_time = (query_BTN, mask_BTS, steps.starts, steps.keep)
        carry, weights_TBS = jax.lax.scan(
            step, carry, jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), over_time)
        )
        weights_BTS = jnp.swapaxes(weights_TBS, 0, 1)
        self.sow("intermediates", "weights", weights_BTS)
        y_BTM = jnp.einsum(
            "bts,bsm->btm",
            weights_BTS.astype(x.dtype),
            memory.astype(x.dtype),
            preferred_element_type=wide(x.dtype),
        )
        return y_BTM.astype(x.dtype), LocationState(*carry, steps.segment)

    def _units(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S N"]:
        return self.build(
            lambda: dense(self.features, use_bias=False, dtype=memory.dtype, name="memory")(memory)
        )

    def _comparison(self, units_BSN: Array) -> Callable[[Array, Array, Array], Array]:
        """From a query `[B, N]` and the weights before it, last and summed, to scores `[B, S]`."""

        def kernel(name: str, shape: tuple[int, ...]) -> Array:
            start = nn.initializers.lecun_normal()
            made = self.build(lambda: self.param(name, start, shape, jnp.float32))
            return partition.gather(made).astype(units_BSN.dtype)

        filters_WCF = kernel("filter_kernel", (self.width, 2, self.filters))
        location_FN = kernel("location_kernel", (self.filters, self.features))
        vector_N1 = kernel("score_vector", (self.features, 1))

        def compare(query_BN: Array, last_BS: Array, total_BS: Array) -> Array:
            features_BSF = jax.lax.conv_general_dilated(
                jnp.stack([last_BS, total_BS], axis=-1).astype(filters_WCF.dtype),
                filters_WCF,
                window_strides=(1,),
                padding="SAME",
                dimension_numbers=("NWC", "WIO", "NWC"),
            )
            units = jnp.tanh(query_BN[:, None] + units_BSN + features_BSF @ location_FN)
            return (units @ vector_N1)[..., 0]

        return compare

    def _follow(
        self, x: Activations, state: State | None, memory: Array, context: Context
    ) -> tuple[tuple[Array, Array], Steps]:
        """The weights to start from, and where they are reset and kept."""
        shape = (x.shape[0], memory.shape[1])
        if state is None:
            zeros_BS = jnp.zeros(shape, wide(x.dtype))
            state = LocationState(zeros_BS, zeros_BS, jnp.zeros(shape[:1], jnp.int32))
        if not isinstance(state, LocationState) or state.weights.shape != shape:
            found = (
                f"one of {list(state.weights.shape)}"
                if isinstance(state, LocationState)
                else type(state).__name__
            )
            raise ValueError(
                f"LocationAttention: state must be a LocationState for x and context.memory of "
                f"[B, S] = {list(shape)}, as an earlier call returned it; got {found}"
            )
        numbers = context.segments
        if numbers is None:
            numbers = jnp.ones(x.shape[:2], jnp.int32)
        return follow_documents((state.weights, state.cumulative), state.segment, numbers)


def _memory(layer: SequenceLayer, context: Context) -> Float[Array, "B S M"]:
    """The memory, with zeros where it is padding: nothing that is written there gets through."""
    memory, numbers = context.memory, context.memory_segments
    if memory is None:
        raise ValueError(
            f"{type(layer).__name__}: context.memory is missing; pass what is to be looked at, "
            "Context(memory=...) of [B, S, M]"
        )
    if numbers is None:
        return memory
    if numbers.shape != memory.shape[:2]:
        raise ValueError(
            f"{type(layer).__name__}: context.memory_segments must be [B, S] = "
            f"{list(memory.shape[:2])}, got {list(numbers.shape)}"
        )
    return jnp.where(numbers[..., None] > 0, memory, jnp.zeros((), memory.dtype))


def _visible(
    layer: SequenceLayer, x: Activations, memory: Array, context: Context
) -> Bool[Array, "B T S"]:
    """Which steps `[B, S, ...]` of the memory each step of x sees; padding sees none."""
    batch, length = x.shape[:2]
    if memory.shape[0] != batch:
        raise ValueError(
            f"{type(layer).__name__}: context.memory is for a batch of {memory.shape[0]}, x has "
            f"{batch}"
        )
    own = jnp.ones((batch, length), jnp.int32) if context.segments is None else context.segments
    real_BT1 = own[:, :, None] > 0
    if context.memory_segments is None:
        return jnp.broadcast_to(real_BT1, (batch, length, memory.shape[1]))
    looks_at = own if context.looks_at is None else context.looks_at
    return real_BT1 & (looks_at[:, :, None] == context.memory_segments[:, None, :])


def _prepared(layer: SequenceLayer, context: Context) -> Any:
    """What `prepare` made for this layer; None where it was not called."""
    return context.prepared.get("/".join(layer.path))


def _keep(layer: SequenceLayer, context: Context, prepared: Any) -> Context:
    everything = {**context.prepared, "/".join(layer.path): prepared}
    return dataclasses.replace(context, prepared=everything)
