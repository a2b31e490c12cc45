"""What every sequence layer is, and the laws that every one of them obeys."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, final

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from recattn_jax.shapes import Array, Float, Int, Segments, State


class Context(struct.PyTreeNode):
    """Side inputs of a layer; combinators hand them on unchanged.

    Attributes:
      segments: `[B, T]`; 0 is padding, a new positive number is a new document; None is one
        document a row, numbered 1, with no padding.
      memory: `[B, S, M]`, what cross-attention looks at; replaced by `with_memory`, never alone.
      memory_segments: `[B, S]`; 0 is padding, and a step looks at the memory of its own number;
        None is memory that every step may look at.
      prepared: what `SequenceLayer.prepare` made of the memory, by the path of the layer.
      looks_at: `[B, T]`, the number in `memory_segments` that each step looks at; None is the
        number of its own segment. Set by combinators that number segments anew.
      asked: `[B, Q]`, the steps that the readout `Asked` predicts at.

    >>> Context.from_lengths(jnp.array([1, 3]), 3).segments.tolist()
    [[1, 0, 0], [1, 1, 1]]
    """

    __no_type_check__ = True  # tree functions rebuild it with leaves of any kind

    segments: Segments | None = None
    memory: Float[Array, "B S M"] | None = None
    memory_segments: Int[Array, "B S"] | None = None
    prepared: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    looks_at: Int[Array, "B T"] | None = None
    asked: Int[Array, "B Q"] | None = None

    @classmethod
    def from_lengths(cls, lengths: Int[Array, " B"], length: int) -> "Context":
        """A context of one document a row, padded at its end.

        Args:
          lengths: `[B]`, the real steps of each row.
          length: T, the steps of a row with its padding.

        Returns:
          A context with `segments` `[B, T]`.
        """
        return cls(segments=(jnp.arange(length)[None, :] < lengths[:, None]).astype(jnp.int32))

    def over_time(self, f: Callable[[Array], Array]) -> "Context":
        """Maps what has a time axis, `[B, T]`, as the combinator that calls this maps x.

        Args:
          f: a function of an array `[B, T]`.

        Returns:
          The context with its `segments` and `looks_at` mapped, where it has them.
        """
        segments, looks_at = jax.tree.map(f, (self.segments, self.looks_at))
        return dataclasses.replace(self, segments=segments, looks_at=looks_at)

    def with_memory(
        self, memory: Float[Array, "B S M"], memory_segments: Int[Array, "B S"] | None = None
    ) -> "Context":
        """Puts another memory in place; what was prepared of the last one is forgotten.

        Args:
          memory: `[B, S, M]`.
          memory_segments: `[B, S]`; 0 is padding; None is visible to every step.

        Returns:
          The context with this memory.
        """
        return self.replace(memory=memory, memory_segments=memory_segments, prepared={})

    def renumber(self, segments: Segments) -> "Context":
        """Numbers the segments anew; each step still looks at the same part of the memory.

        Args:
          segments: `[B, T]`, 0 where the segments are 0.

        Returns:
          The context with these segments.
        """
        looks_at = self.segments if self.looks_at is None else self.looks_at
        if looks_at is None:
            looks_at = jnp.ones_like(segments)
        return dataclasses.replace(self, segments=segments, looks_at=looks_at)


@struct.dataclass
class Stacked:
    """The state of a repeated layer: the depth comes before the batch in every leaf.

    Attributes:
      layers: a state whose leaves are `[N, B, ...]`, of N layers.

    >>> map_batch(lambda leaf: leaf[:1], Stacked(jnp.ones((4, 2, 3)))).layers.shape
    (4, 1, 3)
    """

    __no_type_check__ = True

    layers: State


class SequenceLayer(nn.Module):
    """A transducer of sequences, `(x, state) -> (y, state)`, for any number of steps.

    Subclasses write `forward` and say whether they stream; `__call__` is final. The laws, for
    outputs and for gradients (of x and of the parameters):

    - *Zero*: `layer(x, None)` equals `layer(x, zeros)`: a fresh state is zeros. Its structure comes
      from `jax.eval_shape`, or `zero_state`, and is the same for every T. What must know where a
      document starts keeps `segment`, the last real number, and `position`; 0 is nothing yet.
    - *Split*: running `x[:, :k]` and then `x[:, k:]` with the carried state equals running x, at
      every k, down to single steps. Segments are cut with x, memory is not.
    - *Segment*: numbers are positive, contiguous and never reused within a row or a carried stream.
      A packed document equals itself alone; altering one leaves the others bit-identical.
    - *Padding*: a padded step is no step: zero output, no gradient, no change of state; NaN written
      there reaches nothing. It stands before or after a document.
    - *Causality*, where the layer streams: `y[t]` does not depend on `x[s]` for s > t.
    - *Dtype*: y has the dtype of x; jit equals eager; a row that sees nothing gives zeros.

    A layer that does not stream accepts no state and returns `()`.

    Randomness is the presence of an rng stream: `dropout` is drawn for each call and `variational`
    is the same over time; without them nothing is random, and no layer has a `train` flag.

    >>> class Shift(SequenceLayer):
    ...     streams = True
    ...
    ...     def forward(self, x, state, context):
    ...         last = jnp.zeros_like(x[:, :1]) if state is None else state
    ...         return jnp.concatenate([last, x[:, :-1]], axis=1), x[:, -1:]
    >>> y, state = Shift().apply({}, jnp.array([[[1.0], [2.0]]]))
    >>> y.tolist(), state.tolist()
    ([[[0.0], [1.0]]], [[[2.0]]])
    """

    accepts: ClassVar[tuple[Any, ...]] = (jnp.floating,)
    """Kinds of x: features `[B, T, D]` are floating, token ids are integers."""

    token_ranks: ClassVar[tuple[int, ...]] = (2,)
    """Ranks of token ids: 2 is one a step, `[B, T]`; 3 is several a step, `[B, T, K]`."""

    @property
    def streams(self) -> bool:
        """Whether outputs never depend on later inputs, so that a state can carry on."""
        raise NotImplementedError

    def forward(self, x: Array, state: State | None, context: Context) -> tuple[Array, State]:
        """The layer itself: x is zero at padding, and outputs there do not matter.

        Args:
          x: `[B, T, D]`, or token ids for an embedding.
          state: the state after the steps before x; None for a fresh one.
          context: side inputs.

        Returns:
          `[B, T, E]` and the state after x.
        """
        raise NotImplementedError

    def prepare(self, context: Context) -> Context:
        """Does the work on `context.memory` that is the same at every step, before stepping.

        `layer.apply(variables, context, method="prepare")`; optional, and changes no result.

        Args:
          context: side inputs with the memory.

        Returns:
          The context, with `prepared` filled by the layers that look at the memory.
        """
        return context

    @final
    def __call__(
        self,
        x: Array,
        state: State | None = None,
        context: Context = Context(),  # noqa: B008
    ) -> tuple[Array, State]:
        """Runs the layer over T >= 1 steps.

        Args:
          x: `[B, T, D]`, or token ids for an embedding.
          state: the state that an earlier call returned; None for a fresh one.
          context: side inputs.

        Returns:
          `[B, T, E]`, zero at padding, and the state after x.

        Raises:
          ValueError: if x has the wrong kind or rank, segments do not have the shape `[B, T]`, or a
            state is given to a layer that does not stream.
        """
        name = type(self).__name__
        x = jnp.asarray(x)
        if not any(jnp.issubdtype(x.dtype, kind) for kind in self.accepts):
            embed = " (token ids? put an Embed before it)" if x.ndim == 2 else ""
            raise ValueError(
                f"{name}: x must be {_kinds(self)}, got {x.dtype}{list(x.shape)}{embed}"
            )
        if x.ndim not in ((3,) if jnp.issubdtype(x.dtype, jnp.floating) else self.token_ranks):
            raise ValueError(f"{name}: x must be {_kinds(self)}, got {x.dtype}{list(x.shape)}")
        segments = context.segments
        if segments is not None and segments.shape != x.shape[:2]:
            raise ValueError(
                f"{name}: context.segments must be [B, T] = {list(x.shape[:2])}, "
                f"got {list(segments.shape)}"
            )
        if state is not None and not self.streams and jax.tree.leaves(state):
            raise ValueError(
                f"{name}: a state was given, but the layer needs later steps to compute earlier "
                "ones, so it cannot carry on; pass state=None"
            )
        y, state = self.forward(_mask(x, segments), state if self.streams else None, context)
        return _mask(y, segments), state if self.streams else ()


class Combinator(SequenceLayer):
    """The template of layers made of layers (abstract); subclasses write `forward`.

    It streams where its parts do, prepares them all, and refuses one instance in two places.

    >>> from recattn_jax.layers import Identity
    >>> class Twice(Combinator):
    ...     layer: SequenceLayer
    ...
    ...     def forward(self, x, state, context):
    ...         y, state = self.layer(x, state, context)
    ...         return 2 * y, state
    >>> Twice(Identity()).streams
    True
    """

    # Its parts have the last word.
    accepts: ClassVar[tuple[Any, ...]] = (jnp.floating, jnp.integer)
    token_ranks: ClassVar[tuple[int, ...]] = (2, 3)

    def __post_init__(self) -> None:
        refuse_shared(self, self._modules)
        super().__post_init__()

    @property
    def parts(self) -> tuple[SequenceLayer, ...]:
        """The layers among the fields, in order."""
        return tuple(module for module in self._modules if isinstance(module, SequenceLayer))

    @property
    def _modules(self) -> tuple[nn.Module, ...]:
        """The modules among the fields: the layers, and what combines them where it learns."""
        values = [
            getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("parent", "name")
        ]
        leaves = jax.tree.leaves(values, is_leaf=lambda node: isinstance(node, nn.Module))
        return tuple(leaf for leaf in leaves if isinstance(leaf, nn.Module))

    @property
    def streams(self) -> bool:
        return all(part.streams for part in self.parts)

    def prepare(self, context: Context) -> Context:
        """Prepares every part."""
        for part in self.parts:
            context = part.prepare(context)
        return context


def zero_state(module: nn.Module, variables: Any, *inputs: Any) -> State:
    """The fresh state of a layer or model: zeros, with the structure of the state it returns.

    Args:
      module: what maps `(x, state, context)` to `(y, state)`.
      variables: its variables, or their shapes.
      *inputs: example inputs of one or more steps, or their shapes; only B matters.

    Returns:
      A pytree of zeros.

    >>> from recattn_jax.layers import Identity
    >>> zero_state(Identity(), {}, jnp.ones((2, 1, 3)))
    ()
    """
    shapes = jax.eval_shape(module.apply, variables, *inputs)[1]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def check_state(layer: SequenceLayer, state: Any, kind: type, batch: int) -> None:
    """Raises if a state is not one that the layer returned for a batch of this size.

    Args:
      layer: the layer, for the message.
      state: the state that was given.
      kind: what it must be.
      batch: B of x.

    Raises:
      ValueError: naming what was found.

    >>> from recattn_jax.layers import Identity
    >>> check_state(Identity(), (jnp.zeros((2, 3)),), tuple, batch=2)
    """
    name = type(layer).__name__
    if not isinstance(state, kind):
        raise ValueError(
            f"{name}: state must be a {kind.__name__}, as an earlier call returned it; "
            f"got {type(state).__name__}"
        )
    for leaf in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Stacked)):
        if not isinstance(leaf, Stacked) and leaf.shape[0] != batch:
            raise ValueError(f"{name}: state is for a batch of {leaf.shape[0]}, x has {batch}")


def map_batch(f: Callable[[Array], Array], state: State) -> State:
    """Maps a function that treats axis 0 as the batch over every leaf of a state.

    Args:
      f: a function of an array `[B, ...]`.
      state: a state; under `Stacked` the function is mapped over the depth as well.

    Returns:
      The state of the results.

    >>> map_batch(lambda leaf: leaf[:1], (jnp.ones((2, 3)), Stacked(jnp.ones((4, 2))))) [0].shape
    (1, 3)
    """

    def apply(node: Any) -> Any:
        if isinstance(node, Stacked):
            return Stacked(map_batch(jax.vmap(f), node.layers))
        return f(node)

    return jax.tree.map(apply, state, is_leaf=lambda node: isinstance(node, Stacked))


def refuse_shared(module: nn.Module, children: tuple[nn.Module, ...]) -> None:
    """Raises if one instance stands twice among the children: it would share its parameters.

    Args:
      module: the combinator, for the message.
      children: its children.

    Raises:
      ValueError: naming the instance, `Repeat` and `Tied`.

    >>> refuse_shared(SequenceLayer(), (SequenceLayer(), SequenceLayer()))
    """
    seen: set[int] = set()
    for part in (part for child in children for part in _walk(child)):
        if id(part) in seen:
            raise ValueError(
                f"{type(module).__name__}: the same {type(part).__name__} instance stands twice in "
                "its fields and would share its parameters; make two, use Repeat for a stack, or "
                "Tied to share on purpose"
            )
        seen.add(id(part))


def _walk(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    own = [value for name, value in vars(module).items() if name != "parent"]
    for leaf in jax.tree.leaves(own, is_leaf=lambda node: isinstance(node, nn.Module)):
        if isinstance(leaf, nn.Module):
            yield from _walk(leaf)


def _kinds(layer: SequenceLayer) -> str:
    ids = " or ".join({2: "[B, T]", 3: "[B, T, K]"}[rank] for rank in layer.token_ranks)
    kinds = {jnp.floating: "float [B, T, D]", jnp.integer: f"token ids {ids}"}
    return " or ".join(kinds[kind] for kind in layer.accepts)


def _mask(x: Array, segments: Segments | None) -> Array:
    if segments is None:
        return x
    real = segments > 0
    return jnp.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, jnp.zeros((), x.dtype))
