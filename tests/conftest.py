"""Settings for every test: CPU only, eight virtual devices, no silent broadcasting of ranks."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Also for the processes that tests start. The tests compile many small programs and run each once:
# with fewer compiler passes the whole suite takes a third of the time.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
COMPILER = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",  # other cores have tests of their own
]
if importlib.metadata.version("jaxlib") < "0.11":  # later ones do not know it, and end the process
    COMPILER.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(COMPILER))
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Many tests, and the processes that they start, compile what another has compiled: they share it
# for as long as the run takes.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    SHARED = tempfile.mkdtemp(prefix="recattn_compiled_")
    atexit.register(shutil.rmtree, SHARED, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = SHARED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
gc.set_threshold(1_000_000, 20, 100)  # tracing makes many objects and few cycles

import absl.logging  # noqa: E402
import jax  # noqa: E402  (platform and flags must be chosen before the import)
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

VERBOSITY = absl.logging.get_verbosity()
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def short_blocks() -> None:
    """Several blocks of time in few steps, and fewer steps to compile."""
    from recattn_jax.kernels import recurrence  # noqa: PLC0415  (after the checks of types are set up)

    recurrence.BLOCK = 2


@pytest.fixture(autouse=True)
def heard() -> None:
    """Lets libraries be heard as at first: commands, which some tests call here, hush them."""
    absl.logging.set_verbosity(VERBOSITY)


@pytest.fixture(autouse=True)
def asked_to_stop() -> Iterator[None]:
    """Leaves SIGTERM as it was: a command that it interrupted ignores it from then on."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def any_shape() -> Iterator[None]:
    """Lets sizes be symbols, as jax.export has them, where annotations that are checked say int."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


LONGEST = ("faults_test.py", "documents_test.py", "imports_test.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts with the longest tests, so that no process waits for another at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_sessionfinish() -> None:
    """Lets go of the objects of all tests without looking for cycles among them once more."""
    gc.freeze()


MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def room_for_programs() -> Iterator[None]:
    """Drops compiled programs when there are many.

    Each takes mappings of memory, of which Linux gives a process 65,530; the compiler crashes when
    they are used up.
    """
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
