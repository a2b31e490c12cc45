"""The commands a person types; run from a checkout, as `python -m launch.train`."""

import os

# XLA reads this when jax is first imported; its start-up remarks mean nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
