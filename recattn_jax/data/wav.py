"""What a wav file holds."""

import io
import wave

import numpy as np
from jaxtyping import Int


def wave_samples(data: bytes, rate: int) -> Int[np.ndarray, "N"]:
    """The samples of a wav file of 16 bits and one channel.

    Args:
        data: the file.
        rate: samples a second that it must have.

    Returns:
        int16[N], at least one.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        with wave.open(io.BytesIO(data)) as opened:
            channels, width, found, declared = opened.getparams()[:4]
            raw = opened.readframes(declared)
    # A header that lies is met with whatever the parser stumbles over.
    except Exception as error:
        said = str(error) or "too short"
        raise ValueError(f"no wav file, or its header is cut off ({said})") from None
    if (channels, 8 * width) != (1, 16):
        raise ValueError(
            f"{channels} channels of {8 * width} bits, expected 1 of 16; convert the file"
        )
    if found != rate:
        raise ValueError(f"{found} samples a second, expected {rate}; resample the file")
    if not 0 < len(raw) == 2 * declared:
        raise ValueError(f"cut off: {len(raw) // 2} samples, its header says {declared}")
    return np.frombuffer(raw, "<i2").astype(np.int16)
