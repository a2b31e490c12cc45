"""Settings for every test: CPU only, eight virtual devices, no silent broadcasting of ranks."""

import os

# Also for the processes that tests start. The tests compile many small programs and run each once:
# with fewer compiler passes the whole suite takes a third of the time.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import jax  # noqa: E402  (platform and flags must be chosen before the import)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
