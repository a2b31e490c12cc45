"""Windows of a long series: what was measured, and what came after it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import grain
import jax
import numpy as np
from jaxtyping import Float

from recattn_jax.data.pipelines import (
    Batch,
    Batches,
    Data,
    Pipeline,
    Spec,
    check_rows,
    digest_of,
    local_rows,
)
from recattn_jax.data.records import SPLITS, Source
from recattn_jax.data.steps import Measurements
from recattn_jax.data.vocabularies import Labels
from recattn_jax.errors import UserError

_ROWS = 4096  # windows that are looked at together


@dataclasses.dataclass(frozen=True, eq=False)
class Stretch:
    """A part of a series, and what came before it.

    Args:
        split: its name.
        values: float32 `[N, D]`, scaled.
        begin: from where on values are to be forecast; those before are only looked at.

    >>> stretch = Stretch("validation", np.zeros((9, 2), np.float32), begin=4)
    """

    split: str
    values: Float[np.ndarray, "N D"] = dataclasses.field(repr=False)
    begin: int

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the values and the place."""
        data = np.ascontiguousarray(self.values, "<f4")
        return hashlib.sha256(f"{self.begin} {data.shape}".encode() + data.tobytes()).hexdigest()


def forecast_batch(batch: int, length: int, horizon: int, features: int) -> Spec:
    """The shapes of a batch of windows.

    Args:
        batch: rows B.
        length: steps L that are looked at.
        horizon: steps H that come after them.
        features: D.

    Returns:
        "inputs" float32 `[B, L, D]`, "targets" float32 `[B, H, D]`, and "weight" float32 `[B]`.

    >>> forecast_batch(2, 96, 24, 7)["targets"].shape
    (2, 24, 7)
    """
    shapes = {"inputs": (length, features), "targets": (horizon, features), "weight": ()}
    return {name: jax.ShapeDtypeStruct((batch, *s), np.float32) for name, s in shapes.items()}


def forecast_windows(
    stretch: Stretch,
    batch: int,
    length: int,
    horizon: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Pipeline:
    """Every window of a stretch: `length` steps and the `horizon` after them.

    Every epoch has each window once, in random order. Batches run on over the end of an epoch.
    `epoch()` keeps the order; rows that only fill the last batch have weight 0.

    Args:
        stretch: what is forecast.
        batch: rows of the global batch.
        length: steps L that are looked at.
        horizon: steps H that come after them.
        seed: of the order.
        process_index: which host this is.
        process_count: how many hosts share each batch; host p has the p-th block of its rows.

    Returns:
        Batches of `forecast_batch`.

    Raises:
        UserError: if there is no window, or the hosts do not divide the batch.

    >>> stretch = Stretch("train", np.zeros((9, 2), np.float32), begin=4)
    >>> windows = forecast_windows(stretch, batch=2, length=4, horizon=3, seed=0)
    >>> with windows.batches(start=0) as batches:
    ...     next(batches)["targets"].shape
    (2, 3, 2)
    """
    check_rows(batch, process_count)
    if length < 1 or horizon < 1:
        raise UserError(f"length {length} and horizon {horizon}: expected 1 or more")
    windows = _Windows(stretch, batch, length, horizon, seed, process_index, process_count)
    if windows.count < 1:
        raise UserError(
            f"{stretch.split} split: {len(stretch.values)} steps hold no window of {length} and"
            f" {horizon} more; give shorter ones, or a longer series"
        )
    return windows


def forecast_data(
    source: Source,
    length: int,
    horizon: int,
    pipeline: Callable[[Stretch, int, int], Pipeline],
) -> Data:
    """Scales a series by its training part, and makes a pipeline of each split.

    The first windows of validation and test look back into the split before.

    Args:
        source: one record a split, "series" `[N, D]`, in the order of time, and "columns", the
            names of its D; see `readers.table`.
        length: steps that are looked at.
        horizon: steps that come after them.
        pipeline: from a stretch, and this host's number among how many, to batches:
            `forecast_windows` with all else bound.

    Returns:
        The scale as vocabulary "series" and the names of its columns as "columns", the training
        pipeline and those of the other splits; the summary says what repeating the last step
        scores, and a linear map.

    Raises:
        UserError: if there is no "train", a split is too short, or has several series.

    >>> series = np.arange(20.0, dtype=np.float32)[:, None]
    >>> record = {"columns": ["load"], "times": [str(t) for t in range(20)], "series": series}
    >>> source = Source("line", "", {"train": [record], "validation": [record]})
    >>> rows = lambda stretch, host, hosts: forecast_windows(stretch, 2, 4, 3, 0, host, hosts)
    >>> forecast_data(source, 4, 3, rows).train.spec["targets"].shape
    (2, 3, 1)
    """
    if "train" not in source.splits:
        raise UserError(f"{source.name} has no split train, only {sorted(source.splits)}")
    series = {}
    for split in (split for split in SPLITS if split in source.splits):
        records = source.splits[split]
        if len(records) != 1:
            raise UserError(f"{source.name}: {len(records)} series in {split}, expected one")
        if not {"series", "columns"} <= set(records[0]):
            raise UserError(f"{source.name}: no table, for it has only {', '.join(records[0])}")
        series[split] = records[0]["series"]
    steps = Measurements.of([series["train"]])
    stretches: list[Stretch] = []
    before = np.zeros((0, steps.features), np.float32)
    for split, values in series.items():
        past = before[max(0, len(before) - length) :]
        scaled = np.concatenate([past, steps.of_series(values)])
        stretches.append(Stretch(split, scaled, length))
        before = scaled
    hosts = jax.process_index(), jax.process_count()
    pipelines = {stretch.split: pipeline(stretch, *hosts) for stretch in stretches}
    sizes = ", ".join(f"{split} {len(values)} steps" for split, values in series.items())
    about = f"{source.name}: {sizes} of {steps.features} features; content {source.digest[:16]}"
    summary = "\n".join([about, *_baselines(stretches, length, horizon)])
    columns = Labels(tuple(source.splits["train"][0]["columns"]))
    return Data({"series": steps, "columns": columns}, pipelines.pop("train"), pipelines, summary)


@dataclasses.dataclass(frozen=True, eq=False)
class _Windows(Pipeline):
    stretch: Stretch
    batch: int
    length: int
    horizon: int
    seed: int
    process_index: int
    process_count: int

    @property
    def count(self) -> int:
        """How many windows there are."""
        begin = max(self.stretch.begin, self.length)
        return len(self.stretch.values) - begin - self.horizon + 1

    @property
    def fingerprint(self) -> str:
        arguments = self.batch, self.length, self.horizon, self.seed
        return digest_of("forecast windows", self.stretch.digest, *arguments)

    @property
    def specs(self) -> tuple[Spec, ...]:
        features = self.stretch.values.shape[1]
        return (forecast_batch(self.batch, self.length, self.horizon, features),)

    @property
    def records(self) -> None:
        return None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch)

    def batches(self, start: int) -> Batches:
        order = grain.MapDataset.range(self.count).seed(self.seed).shuffle().repeat()
        local = local_rows(self.batch, self.process_index, self.process_count)

        def make(step: int) -> Batch:
            return self._make(np.array([order[step * self.batch + row] for row in local]))

        return Batches(make, start)

    def epoch(self) -> Iterator[Batch]:
        local = np.array(local_rows(self.batch, self.process_index, self.process_count))
        for first in range(0, self.count, self.batch):
            yield self._make(first + local)

    def _make(self, numbers_B: np.ndarray) -> Batch:
        real_B = numbers_B < self.count
        start = max(self.stretch.begin, self.length) - self.length
        at_B1 = start + np.where(real_B, numbers_B, 0)[:, None]
        values = self.stretch.values
        return {
            "inputs": values[at_B1 + np.arange(self.length)],
            "targets": values[at_B1 + self.length + np.arange(self.horizon)],
            "weight": real_B.astype(np.float32),
        }


def _baselines(stretches: list[Stretch], length: int, horizon: int) -> list[str]:
    """What no network is needed for: the last step again, and a linear map of the steps before it.

    The map is one for all features, of what came before less the last step (Zeng et al., "Are
    transformers effective for time series forecasting?", arXiv 2205.13504, 2022).
    """
    train, *others = stretches
    # Normal equations, so that the windows need never be in memory together.
    squares, products = np.zeros((length, length)), np.zeros((length, horizon))
    for past, future in _relative(train, length, horizon):
        squares += past.T @ past
        products += past.T @ future
    weights = np.linalg.lstsq(squares, products, rcond=None)[0]
    lines = []
    for stretch in others:
        sums, count = np.zeros(4), 0
        for past, future in _relative(stretch, length, horizon):
            errors = future, past @ weights - future
            sums += [f(error).sum() for error in errors for f in (np.square, np.abs)]
            count += future.size
        repeat, repeat_mae, linear, linear_mae = sums / max(count, 1)
        lines.append(
            f"{stretch.split}: repeat-last MSE {repeat:.4f} MAE {repeat_mae:.4f}, linear MSE"
            f" {linear:.4f} MAE {linear_mae:.4f}"
        )
    return lines


def _relative(
    stretch: Stretch, length: int, horizon: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All windows less the last step that is looked at, the windows of one feature at a time."""
    values = stretch.values[max(stretch.begin, length) - length :].astype(np.float64)
    for feature in values.T:
        rows = np.lib.stride_tricks.sliding_window_view(feature, length + horizon)
        for part in np.array_split(rows, -(-len(rows) // _ROWS)):
            last = part[:, length - 1 : length]
            yield part[:, :length] - last, part[:, length:] - last
