"""From what a record holds to the steps that a model reads: measurements, frames, sound.

Like vocabularies they are made of training data, and stored with the run.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from recattn_jax import untrusted
from recattn_jax.data.wav import wave_samples
from recattn_jax.errors import UserError
from recattn_jax.kernels.spectrogram import log_mel

_LARGEST = float(np.finfo(np.float32).max)
_FULL = 2.0**15  # the largest sample of 16 bits
_MOST = 1 << 20  # samples a second, a window of them, or bands: beyond are only mistakes


@runtime_checkable
class Steps(Protocol):
    """Turns a series, as a record has it, into features a step.

    >>> steps: Steps = Measurements((0.0,), (1.0,))
    """

    from_lines: ClassVar[bool]
    """Whether a person can give a series in a line."""

    @property
    def features(self) -> int:
        """D, how many numbers a step has."""

    def of_series(self, series: Shaped[np.ndarray, "_ ..."]) -> Float[np.ndarray, "T D"]:
        """Returns the features, float32, of at least one step."""

    def of_line(self, line: str) -> Float[np.ndarray, "T D"]:
        """Returns the features of what a person gives in a line; UserError where it cannot."""

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same from."""


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Measurements with mean 0 and variance 1 in training; `(x - mean) / deviation`.

    Args:
        mean: of each feature.
        deviation: of each feature, above 0.

    Raises:
        ValueError: if there are not as many of both, or a deviation is not above 0.

    >>> steps = Measurements.of([np.array([[1.0], [3.0]])])
    >>> steps.of_series(np.array([[5.0]])).tolist()
    [[3.0]]
    """

    from_lines: ClassVar[bool] = True
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        fits = len(self.mean) == len(self.deviation) and all(d > 0 for d in self.deviation)
        if not fits or not np.isfinite([*self.mean, *self.deviation]).all():
            raise ValueError("Measurements: expected a finite mean and deviation above 0 a feature")

    @classmethod
    def of(
        cls, series: Iterable[Shaped[np.ndarray, "_ ..."]], alike: bool = False
    ) -> "Measurements":
        """Returns the scale of these series; a feature that never changes is only moved to 0.

        Args:
            series: `[T, ...]`, at least one; all axes but the first make up the features.
            alike: whether all features are of one kind, such as pixels, and share a scale.
        """
        count, start = 0, None
        total = squares = np.zeros(())
        for steps in series:
            flat = _flat(steps).astype(np.float64)
            # Less the first step, so that a large mean does not swallow a small deviation.
            start = flat[0] if start is None else start
            if flat.shape[1] != len(start):
                raise UserError(f"series of {len(start)} and of {flat.shape[1]} values a step")
            moved = flat - start[None]
            count += len(flat)
            total, squares = total + moved.sum(axis=0), squares + np.square(moved).sum(axis=0)
        if start is None:
            raise UserError("measurements: there are none; give some to train on")
        mean, square = total / count, squares / count
        if alike:
            level = np.mean(mean + start)
            square = np.full_like(
                square, np.mean(square + (start - level) * (2 * mean + start - level))
            )
            mean, start = np.zeros_like(mean), np.full_like(start, level)
        deviation = np.sqrt(np.maximum(square - np.square(mean), 0.0))
        mean = mean + start
        # What float32 makes of a constant is no deviation.
        moves = deviation > 1e-7 * np.abs(mean)
        deviation = np.where(moves & (deviation > 0), deviation, 1.0)
        return cls(tuple(map(float, mean)), tuple(map(float, deviation)))

    @property
    def features(self) -> int:
        """D, how many numbers a step has."""
        return len(self.mean)

    def of_series(self, series: Shaped[np.ndarray, "_ ..."]) -> Float[np.ndarray, "T D"]:
        """Returns the measurements to scale, all axes but the first in one.

        Raises:
            UserError: for another number of features.
        """
        flat = _flat(series)
        if flat.shape[1] != self.features:
            raise UserError(f"{flat.shape[1]} values a step, expected {self.features}")
        scaled = (flat - np.array(self.mean)[None]) / np.array(self.deviation)[None]
        return scaled.astype(np.float32)

    def unscaled(self, features: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "T D"]:
        """Returns what `of_series` made these features of: `x * deviation + mean`."""
        return features * np.array(self.deviation)[None] + np.array(self.mean)[None]

    def of_line(self, line: str) -> Float[np.ndarray, "T D"]:
        """Reads a series as `.ts` files have it: features by colons, their values by commas.

        Raises:
            UserError: for a value that is no finite number, or features of unequal length.
        """
        try:
            values = [[float(value) for value in part.split(",")] for part in line.split(":")]
        except ValueError as error:
            raise UserError(f"{error}; expected values with commas, features with colons") from None
        if len(set(map(len, values))) != 1 or not (np.abs(values) <= _LARGEST).all():
            raise UserError("expected features of equal length, their values finite numbers")
        return self.of_series(np.array(values, np.float32).T)

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same from."""
        scale = {"mean": list(self.mean), "deviation": list(self.deviation)}
        return {"kind": "measurements", **scale}


@dataclasses.dataclass(frozen=True)
class Motion:
    """What moves in video: `sqrt |x_t - x_(t-1)|`, pixel by pixel, 0 at first; moved and scaled.

    Who is filmed, and where, says less there than what they do. The root keeps an edge between near
    and far from drowning all the rest.

    Args:
        scale: of the differences, in training.

    >>> videos = np.random.default_rng(0).integers(0, 255, (2, 5, 3, 3), np.uint8)
    >>> Motion.of(videos).of_series(np.zeros((20, 3, 3), np.uint8)).shape
    (20, 9)

    Motion energy: Bobick and Davis, "The recognition of human movement using temporal templates",
    2001.
    """

    from_lines: ClassVar[bool] = False
    scale: Measurements

    @classmethod
    def of(cls, series: Iterable[Shaped[np.ndarray, "_ ..."]]) -> "Motion":
        """Returns the motion whose pixels have one scale, with mean 0 and variance 1 there."""
        return cls(Measurements.of(map(_moved, series), alike=True))

    @property
    def features(self) -> int:
        """D, how many pixels a frame has."""
        return self.scale.features

    def of_series(self, series: Shaped[np.ndarray, "_ ..."]) -> Float[np.ndarray, "T D"]:
        """Returns the motion of frames; UserError for another number of pixels."""
        return self.scale.of_series(_moved(series))

    def of_line(self, line: str) -> Float[np.ndarray, "T D"]:
        """Raises UserError: no line holds a video."""
        del line
        raise UserError("video does not fit into a line; evaluate it with launch.evaluate")

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same from."""
        return {"kind": "motion", "scale": self.scale.to_json()}


@dataclasses.dataclass(frozen=True)
class Spectra:
    """Sound as logarithms of its power in mel bands, see `log_mel`, moved and scaled.

    Always computed by the CPU, in float64, and then rounded, since a run that is evaluated
    elsewhere is refused other numbers than it was trained on.

    Args:
        rate: samples a second.
        window: samples of a frame.
        hop: samples from frame to frame.
        scale: of the bands, in training.

    Raises:
        UserError: if a size is below 1.

    >>> waves = np.random.default_rng(0).integers(-99, 99, (2, 800), np.int16)
    >>> steps = Spectra.of(waves, rate=8000, window=200, hop=80, bands=40)
    >>> steps.of_series(np.zeros(800, np.int16)).shape
    (8, 40)
    """

    from_lines: ClassVar[bool] = True
    rate: int
    window: int
    hop: int
    scale: Measurements

    def __post_init__(self) -> None:
        for name in ("rate", "window", "hop", "features"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise UserError(
                    f"{name} of spectra is {getattr(self, name)}, must be 1 or more, up to {_MOST}"
                )

    @classmethod
    def of(
        cls, waves: Iterable[Shaped[np.ndarray, "_"]], rate: int, window: int, hop: int, bands: int
    ) -> "Spectra":
        """Returns the spectra whose bands have mean 0 and variance 1 in these waves."""
        bare = cls(rate, window, hop, Measurements((0.0,) * bands, (1.0,) * bands))
        return dataclasses.replace(bare, scale=Measurements.of(map(bare.of_series, waves)))

    @property
    def features(self) -> int:
        """How many bands there are."""
        return self.scale.features

    def of_series(self, series: Shaped[np.ndarray, "_"]) -> Float[np.ndarray, "T D"]:
        """Returns the spectra of samples of 16 bits; silence is added up to one frame."""
        needed = max(len(series), self.window)
        # A few shapes only, for each is compiled.
        size = 2 ** math.ceil(math.log2(needed))
        wave = np.zeros((1, size), np.float64)
        wave[0, : len(series)] = series / _FULL
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            wide = _log_mel(jnp.asarray(wave), self.rate, self.window, self.hop, self.features)
            spectra = np.asarray(wide[0], np.float32)
        return self.scale.of_series(spectra[: 1 + (needed - self.window) // self.hop])

    def of_line(self, line: str) -> Float[np.ndarray, "T D"]:
        """Reads the wav file that a line names; UserError where it is none, or of another rate."""
        path = untrusted.place(line.strip())
        try:
            return self.of_series(wave_samples(untrusted.read_bytes(path), self.rate))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` makes the same from."""
        sizes = {"rate": self.rate, "window": self.window, "hop": self.hop}
        return {"kind": "spectra", **sizes, "scale": self.scale.to_json()}


def from_json(data: Any) -> Steps | None:
    """Returns the steps whose `to_json()` is `data`; None where it describes something else."""
    match data:
        case {"kind": "measurements", "mean": [*mean], "deviation": [*deviation]}:
            return Measurements(_numbers(mean), _numbers(deviation))
        case {
            "kind": "spectra",
            "rate": int(rate),
            "window": int(window),
            "hop": int(hop),
            "scale": {"kind": "measurements"} as scale,
        }:
            return Spectra(rate, window, hop, _measurements(scale))
        case {"kind": "motion", "scale": {"kind": "measurements"} as scale}:
            return Motion(_measurements(scale))
    return None


def _measurements(data: Any) -> Measurements:
    found = from_json(data)
    if not isinstance(found, Measurements):
        raise ValueError(f"describes no measurements: {data!r:.80}")
    return found


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except (TypeError, OverflowError) as error:
        raise ValueError(f"expected numbers ({error})") from None


_log_mel = functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))(log_mel)


def _flat(series: Shaped[np.ndarray, "_ ..."]) -> Shaped[np.ndarray, "T D"]:
    return series.reshape(len(series), -1)


def _moved(series: Shaped[np.ndarray, "_ ..."]) -> Shaped[np.ndarray, "T ..."]:
    frames = series.astype(np.float32)
    return np.sqrt(np.abs(np.diff(frames, axis=0, prepend=frames[:1])))
