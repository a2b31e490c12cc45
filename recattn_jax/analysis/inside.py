"""Looking inside: what attention looks at and what recurrence remembers, of one row."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recattn_jax import layers
from recattn_jax.layers import SequenceLayer
from recattn_jax.models import AttentionPooled
from recattn_jax.shapes import Float, Int

Path = tuple[str, ...]
_LOOPS = (layers.Feedback, layers.FeedbackMemory, layers.BlockRecurrent)


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionMap:
    """What one layer of attention looked at.

    Attributes:
      path: of the layer; copies of `Repeat` and `Tied` are counted in brackets.
      kind: `self` (steps of its own sequence), `cross` and `location` (the memory), `slots` (those
        of a block-recurrent layer) or `pooling` (one look at all steps).
      weights: `[H, T, S]`; a row sums to 1, to 0 where nothing is seen, to less with sinks.

    >>> AttentionMap("body", "self", np.eye(3, dtype=np.float32)[None]).weights.shape
    (1, 3, 3)
    """

    path: str
    kind: str
    weights: Float[np.ndarray, "H T S"]


@dataclasses.dataclass(frozen=True, eq=False)
class RecurrenceTrace:
    """What one recurrent layer went through.

    Attributes:
      path: of the layer, as for `AttentionMap`.
      cell: the name of its class.
      carries: after each step, arrays `[T, ...]`, the hidden state first.
      gates: by name, arrays `[T, H]`; none of a cell without.
      norms: whether `carries` are norms, one a head, of states too large to be shown: of the
        matrix and of the normalizer of linear attention.

    >>> trace = RecurrenceTrace("body", "LSTM", (np.zeros((5, 4), np.float32),), gates={})
    """

    path: str
    cell: str
    carries: tuple[Float[np.ndarray, "T H"], ...]
    gates: Mapping[str, Float[np.ndarray, "T H"]]
    norms: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """What was seen in one pass.

    Attributes:
      output: what the model returned, its state left out.
      attention: a map for each layer of attention, in the order of their paths.
      recurrence: a trace for each recurrent layer.
      left_out: paths of layers whose maps have no place on the axes of the row, and of those that
        carry a state and show nothing, with the reason.
      dtype: the narrowest floating dtype of what the layers took.

    >>> seen = look_inside(layers.Identity(), {}, jnp.ones((1, 5, 3)))
    >>> seen.output.shape, seen.attention
    ((1, 5, 3), ())
    """

    output: Any
    attention: tuple[AttentionMap, ...]
    recurrence: tuple[RecurrenceTrace, ...]
    left_out: tuple[str, ...]
    dtype: Any


class _Met(NamedTuple):
    """A module that was called: what it is, and how many steps it was given first."""

    module: nn.Module
    length: int


class _Left(Exception):
    """A map has no place on the axes of the row; says why."""


def look_inside(model: nn.Module, variables: Any, *arguments: Any) -> Inside:
    """Runs a model once and keeps what its layers show of themselves.

    Reference kernels are run: in time and memory that grow with the square of T.

    Args:
      model: an unbound model or layer.
      variables: its variables.
      *arguments: of its call, with one row that is one document: B is 1, and no segments are
        given, those of a memory neither.

    Returns:
      What was seen, on the host. Time is turned back where a layer read it backwards, and put
      together where a layer went through it step by step.

    >>> from recattn_jax.layers import LSTM
    >>> x = jnp.ones((1, 5, 3))
    >>> seen = look_inside(LSTM(4), LSTM(4).init(jax.random.key(0), x), x)
    >>> seen.recurrence[0].gates["forget"].shape
    (5, 4)
    """
    met: dict[Path, _Met] = {}
    remember: dict[Path, str] = {}
    dtypes: set[Any] = set()

    def meet(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        # A loop over time asks for the structure of its carry first, of a copy with no place.
        if module.is_initializing():
            return call(*args, **kwargs)
        called = context.method_name in ("__call__", "attend")  # by AttendToInput
        if args and called and getattr(args[0], "ndim", 0) > 1:
            met.setdefault(module.path, _Met(module, args[0].shape[1]))
            if isinstance(module, SequenceLayer) and jnp.issubdtype(args[0].dtype, jnp.floating):
                dtypes.add(args[0].dtype)
        returned = call(*args, **kwargs)
        if isinstance(module, SequenceLayer) and context.method_name == "__call__":
            # A counter, one number a row, is nothing to show.
            memories = [leaf for leaf in jax.tree.leaves(returned[1]) if leaf.ndim > 1]
            if memories:
                remember[module.path] = type(module).__name__
        return returned

    def run(variables: Any) -> Any:
        with nn.intercept_methods(meet):
            return model.apply(variables, *arguments, mutable=["intermediates"])

    (output, _), notes = jax.device_get(jax.jit(run)(variables))
    maps: list[AttentionMap] = []
    traces: list[RecurrenceTrace] = []
    left: list[str] = []
    shown = dict(_sown(notes.get("intermediates", {}), ()))
    for path, sown in shown.items():
        try:
            if "weights" in sown:
                maps += _maps(path, _once(sown["weights"]), met)
            elif "gates" in sown:
                traces += _traces(path, sown, met)
        except _Left as reason:
            left.append(f"{'/'.join(path)}: {reason}")
    for path, kind in sorted(remember.items()):
        others = [*shown, *(other for other in remember if other != path)]
        if not any(other[: len(path)] == path for other in others):
            left.append(f"{'/'.join(path)}: {kind} carries a state and shows nothing of it")
    narrowest = min(dtypes, key=lambda dtype: dtype.itemsize, default=jnp.dtype(jnp.float32))
    return Inside(output, tuple(maps), tuple(traces), tuple(left), narrowest)


def _sown(node: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Modules that sowed, and what."""
    here = {name: value for name, value in node.items() if isinstance(value, tuple)}
    if here:
        yield path, here
    for name, below in node.items():
        if isinstance(below, Mapping):
            yield from _sown(below, (*path, name))


def _once(sown: tuple[Any, ...]) -> Any:
    if len(sown) != 1:
        raise _Left("it is called more than once")
    return sown[0]


class _Above(NamedTuple):
    """A module that a layer stands in.

    Attributes:
      module: it.
      below: the name, in it, of what leads to the layer.
      depth: where that name stands in the path.
    """

    module: nn.Module
    below: str
    depth: int


class _Row(NamedTuple):
    """The steps that an array is to be put on.

    Attributes:
      length: how many.
      start: the step that the array begins with.
      stepped: whether the layer was given a state, as in a loop over time.
    """

    length: int
    start: int = 0
    stepped: bool = False


class _Show(NamedTuple):
    """How what one call of a layer sowed becomes an array with the steps of the row on axis -2.

    Attributes:
      place: does it.
      own: whether steps of the row stand on axis -1 too.
    """

    place: Callable[[np.ndarray, _Row, list[_Above]], np.ndarray]
    own: bool


def _above(path: Path, met: Mapping[Path, _Met]) -> list[_Above]:
    return [
        _Above(met[path[:end]].module, path[end], end)
        for end in range(len(path))
        if path[:end] in met
    ]


def _row(path: Path, met: Mapping[Path, _Met]) -> _Row:
    """The steps of the outermost layer that the path leads through."""
    for end in range(len(path) + 1):
        found = met.get(path[:end])
        if found is not None and isinstance(found.module, SequenceLayer):
            return _Row(found.length)
    raise _Left("it is not inside of a layer")


def _copies(
    path: Path, sown: Any, above: list[_Above], passed: list[_Above]
) -> Iterator[tuple[str, Any, list[_Above]]]:
    """What each copy of a layer sowed, where `Repeat` or `Tied` stacked them, and what is above."""
    for index, each in enumerate(above):
        if not isinstance(each.module, layers.Repeat | layers.Tied):
            continue
        outer = [*passed, *above[:index]]
        # Loops over time that stand outside of the stack put their axes before it.
        axis = sum(isinstance(a.module, (*_LOOPS, layers.Local)) for a in outer)
        for copy in range(jax.tree.leaves(sown)[0].shape[axis]):
            one = jax.tree.map(lambda a, at=(copy, axis): np.take(a, *at), sown)
            named = (*path[: each.depth], f"{each.below}[{copy}]", *path[each.depth + 1 :])
            yield from _copies(named, one, above[index + 1 :], outer)
        return
    yield "/".join(path), sown, [*passed, *above]


def _maps(path: Path, sown: Any, met: Mapping[Path, _Met]) -> list[AttentionMap]:
    module = met[path].module if path in met else None
    if isinstance(module, AttentionPooled):
        pooled = np.asarray(sown, np.float32)[:, None]
        return [AttentionMap("/".join(path), "pooling", pooled)]
    row, above = _row(path, met), _above(path, met)
    kind = _kind(module, above)
    show = _Show(_weights(module, kind), own=kind == "self")
    return [
        AttentionMap(name, kind, _placed(np.asarray(weights, np.float32), row, rest, show))
        for name, weights, rest in _copies(path, sown, above, [])
    ]


def _kind(module: nn.Module | None, above: list[_Above]) -> str:
    if isinstance(module, layers.SelfAttention):
        return "self"
    if not isinstance(module, layers.CrossAttention | layers.LocationAttention):
        raise _Left("it is of no kind that is known")
    own = (layers.FeedbackMemory, layers.BlockRecurrent)
    memories = [a.module for a in above if isinstance(a.module, own)]
    if not memories:
        return "cross" if isinstance(module, layers.CrossAttention) else "location"
    return "self" if isinstance(memories[-1], layers.FeedbackMemory) else "slots"


def _traces(path: Path, sown: Mapping[str, Any], met: Mapping[Path, _Met]) -> list[RecurrenceTrace]:
    norms = "norms" in sown
    carries, gates = _once(sown["norms" if norms else "carries"]), _once(sown["gates"])
    row, above = _row(path, met), _above(path, met)
    show = _Show(lambda a, *_: a[0], own=False)

    def place(a: Any, rest: list[_Above]) -> np.ndarray:
        return _placed(np.asarray(a, np.float32), row, rest, show)

    return [
        RecurrenceTrace(
            name,
            type(met[path].module).__name__,
            tuple(place(leaf, rest) for leaf in own_carries),
            {gate: place(a, rest) for gate, a in own_gates.items()},
            norms,
        )
        for name, (own_carries, own_gates), rest in _copies(path, (carries, gates), above, [])
    ]


def _weights(
    module: nn.Module | None, kind: str
) -> Callable[[np.ndarray, _Row, list[_Above]], np.ndarray]:
    """How the weights of one call of this layer are placed, `[H, T, S]`."""

    def place(weights: np.ndarray, row: _Row, above: list[_Above]) -> np.ndarray:
        if isinstance(module, layers.LocationAttention):
            weights = weights[:, None]
        looks = weights[0]
        if kind != "self":
            return looks
        if isinstance(module, layers.CrossAttention):  # to the ring of a feedback memory
            return _spread(looks, _ring(row.start, looks.shape[-1]), row)
        if not row.stepped:
            return looks
        if any(isinstance(a.module, layers.Chunked) for a in above):
            raise _Left("it is cut into chunks inside of a loop over time")
        parts = []
        for block, part in enumerate(looks):
            size = part.shape[1]
            first = row.start + block * size
            ring = _ring(first, part.shape[2] - size)
            places = np.concatenate([ring, np.arange(first, first + size)])
            parts.append(_spread(part, places, row))
        return np.concatenate(parts, axis=1)

    return place


def _ring(position: int, window: int) -> Int[np.ndarray, " W"]:
    """The step in each slot of a ring buffer before a step is written; negative in empty ones."""
    last = position - 1
    return last - (last - np.arange(window)) % window


def _spread(looks: np.ndarray, places: np.ndarray, row: _Row) -> np.ndarray:
    """`[H, L, S]` to the steps of the row, `[H, L, T]`."""
    inside = (places >= 0) & (places < row.length)
    spread = np.zeros((*looks.shape[:2], row.length), looks.dtype)
    spread[..., places[inside]] = looks[..., inside]
    return spread


def _placed(sown: np.ndarray, row: _Row, above: list[_Above], show: _Show) -> np.ndarray:
    """Undoes what the modules above did to time, from the outermost inwards."""
    for index, (module, below, _) in enumerate(above):
        rest = above[index + 1 :]
        if isinstance(module, layers.Bidirectional) and below == "backward_layer":
            turned = _placed(sown, row, rest, show)
            return np.flip(turned, axis=(-2, -1) if show.own else -2)
        if isinstance(module, layers.Local):
            return _windows(sown, row, module.window, rest, show)
        if isinstance(module, _LOOPS):
            size = 1
            if isinstance(module, layers.BlockRecurrent):
                if below != "reader":
                    raise _Left("it writes the slots of a block-recurrent layer, block by block")
                size = min(row.length, module.block)
            parts = [
                _placed(part, _Row(row.length, row.start + step * size, True), rest, show)
                for step, part in enumerate(sown)
            ]
            # What fills the last block up is no step.
            return np.concatenate(parts, axis=-2)[..., : row.length, :]
    return show.place(sown, row, above)


def _windows(
    sown: np.ndarray, row: _Row, window: int, above: list[_Above], show: _Show
) -> np.ndarray:
    """The last step of each window of `Local`: the others are made only for its sake."""
    lasts = []
    for step, part in enumerate(sown):
        last = _placed(part, _Row(window), above, show)[..., -1:, :]
        if show.own:
            end = row.start + step + 1
            last = _spread(last, np.arange(end - window, end), row)
        lasts.append(last)
    return np.concatenate(lasts, axis=-2)
