"""Spectra on the mel scale, against keras and by their formula."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.kernels.spectrogram import log_mel, mel_bands
from tests.oracles import oracle

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is first imported

WAVE = np.random.default_rng(0).normal(0, 0.1, (2, 1000)).astype(np.float32)


def test_equals_keras():
    keras = oracle("keras")
    window, hop, bands = 256, 64, 20
    layer = keras.layers.MelSpectrogram(
        fft_length=window,
        sequence_length=window,
        sequence_stride=hop,
        sampling_rate=8000,
        num_mel_bins=bands,
        min_freq=0.0,
        max_freq=4000.0,
        power_to_db=False,
    )
    theirs = np.swapaxes(np.asarray(layer(WAVE)), 1, 2)
    ours = np.exp(np.asarray(log_mel(jnp.array(WAVE), 8000, window, hop, bands))) - 1e-6
    assert ours.shape == (2, 1 + (1000 - window) // hop, bands)
    # Keras centres its frames: the first that lies inside the wave is later by half a window.
    first = window // 2 // hop
    np.testing.assert_allclose(ours, theirs[:, first : first + ours.shape[1]], rtol=2e-4, atol=1e-5)


def test_a_tone_is_loud_in_its_band():
    hertz = 1000
    tone = np.sin(2 * np.pi * hertz * np.arange(2000) / 8000)[None].astype(np.float32)
    spectra = np.asarray(log_mel(jnp.array(tone), 8000, window=400, hop=200, bands=16))
    edges = np.linspace(0, 1127 * np.log1p(4000 / 700), 18)
    centres = 700 * np.expm1(edges[1:-1] / 1127)
    assert (spectra.argmax(axis=2) == np.abs(centres - hertz).argmin()).all()


def test_bands_cover_all_but_the_ends():
    weights = mel_bands(8000, 801, 10)
    assert weights.shape == (801, 10) and weights.min() == 0 and weights.max() <= 1
    assert not weights[0].any()
    inner = (weights > 0).sum(axis=1)
    assert inner.max() == 2
    np.testing.assert_allclose(weights[300:500].sum(axis=1), 1, atol=1e-9)


def test_silence_is_the_floor_and_too_little_is_refused():
    np.testing.assert_allclose(log_mel(jnp.zeros((1, 300)), 8000, 200, 50, 4), np.log(1e-6))
    with pytest.raises(ValueError, match="199 samples are less than a window of 200"):
        log_mel(jnp.zeros((1, 199)), 8000, 200, 50, 4)
