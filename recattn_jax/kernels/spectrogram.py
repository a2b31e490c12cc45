"""Sound as a series of spectra on the mel scale."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from recattn_jax.shapes import Array

_FLOOR = 1e-6  # power below which there is silence, of samples between -1 and 1


def log_mel(
    waves: Float[Array, "B N"], rate: int, window: int, hop: int, bands: int
) -> Float[Array, "B T F"]:
    """The logarithm of the power of sound in bands of the mel scale, frame by frame.

    `y_tf = log(sum_k M_kf |FFT(hann * x_[t hop : t hop + window])_k|^2 + 1e-6)`, where the bands
    `M_f` are triangles, evenly spaced in `mel = 1127 ln(1 + hertz / 700)` from 0 to half the rate.

    Args:
        waves: `[B, N]`, samples, -1 to 1, no fewer than a window of them.
        rate: of samples, in hertz.
        window: samples of a frame.
        hop: samples from the start of a frame to the start of the next one.
        bands: F; with too many, the lowest have no frequency of their own, and stay silent.

    Returns:
        `[B, T, F]`, T = 1 + (N - window) // hop frames; what is left at the end is not in any.

    Raises:
        ValueError: if there are fewer samples than a window.

    >>> log_mel(jnp.zeros((1, 800)), rate=8000, window=200, hop=80, bands=40).shape
    (1, 8, 40)

    Davis and Mermelstein, Comparison of parametric representations for monosyllabic word
    recognition, 1980.
    """
    if waves.shape[1] < window:
        raise ValueError(f"log_mel: {waves.shape[1]} samples are less than a window of {window}")
    count = 1 + (waves.shape[1] - window) // hop
    at_TN = hop * np.arange(count)[:, None] + np.arange(window)[None]
    hann_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectra_BTK = jnp.fft.rfft(waves[:, at_TN] * hann_N[None, None].astype(waves.dtype))
    power_BTK = jnp.square(spectra_BTK.real) + jnp.square(spectra_BTK.imag)
    bands_KF = jnp.asarray(mel_bands(rate, power_BTK.shape[2], bands), waves.dtype)
    power_BTF = jnp.einsum("btk,kf->btf", power_BTK, bands_KF, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(power_BTF + _FLOOR)


def mel_bands(rate: int, bins: int, bands: int) -> Float[np.ndarray, "K F"]:
    """How much each frequency of a spectrum counts in each band of the mel scale.

    Args:
        rate: of samples, in hertz.
        bins: K, frequencies from 0 to half the rate.
        bands: F.

    Returns:
        `[K, F]`, weights, 0 to 1; a frequency lies in two bands at most, and 0 hertz in none.

    >>> mel_bands(rate=8000, bins=101, bands=40).shape
    (101, 40)
    """
    top = rate / 2
    mel_K = 1127 * np.log1p(np.linspace(0, top, bins) / 700)
    edges = np.linspace(0, 1127 * math.log1p(top / 700), bands + 2)
    low_F, middle_F, high_F = edges[:-2], edges[1:-1], edges[2:]
    rising_KF = (mel_K[:, None] - low_F[None]) / (middle_F - low_F)[None]
    falling_KF = (high_F[None] - mel_K[:, None]) / (high_F - middle_F)[None]
    weights_KF = np.maximum(0.0, np.minimum(rising_KF, falling_KF))
    weights_KF[0] = 0.0
    return weights_KF
