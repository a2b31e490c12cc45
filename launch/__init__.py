"""The commands a person types; run from a checkout, as `python -m launch.train`."""

import ctypes
import os
import platform

# XLA reads this when jax is first imported; its start-up remarks mean nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# glibc gives threads heaps of their own, up to eight a core, and every save brings new threads:
# over a long run memory is spread over all heaps and hardly given back. And it asks the system for
# each array of more than 32 MB, and gives it back: what a step takes would be new pages every time,
# a sixth of the time of a step. So there is one heap, which keeps what it has. It must be said
# before threads are there; a person may say otherwise.
_HEAP = {  # as mallopt numbers them, and as a person says them
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_MAX_": (-4, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, 1 << 30),
}
if platform.libc_ver()[0] == "glibc":
    for _name, (_number, _value) in _HEAP.items():
        if _name not in os.environ:
            ctypes.CDLL(None).mallopt(_number, _value)
