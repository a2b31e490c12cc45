"""The TPU twins go through the compiler of a TPU, where it is installed; no TPU is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Set for the child alone: on a machine with TPUs they would hide its pod.
QUIET = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: there is no compiler for a TPU",
)
def test_compiles_for_a_v5e() -> None:
    """One kernel forward and one backward for recurrences; one and two for attention."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.kernels.tpu_compiler"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    print(*lines, sep="\n")
    assert len(lines) == 6
    for line in lines:
        assert line["kernels"] == (2 if line["name"].startswith("recurrence") else 3)
        assert line["peak_bytes"] > 0
