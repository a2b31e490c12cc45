"""Settings for every test: CPU only, eight virtual devices, no silent broadcasting of ranks."""

import os

# Also for the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402  (the platform must be chosen before the import)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
