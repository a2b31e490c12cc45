"""The commands a person types; run from a checkout, as `python -m launch.train`."""

import ctypes
import os
import platform

# XLA reads this when jax is first imported; its start-up remarks mean nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# glibc gives threads heaps of their own, up to eight a core, and every save brings new threads:
# over a long run memory is spread over all heaps and hardly given back. It must be said before
# threads are there; a person may say otherwise.
_ARENA_MAX = -8  # of mallopt
if platform.libc_ver()[0] == "glibc" and "MALLOC_ARENA_MAX" not in os.environ:
    ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
