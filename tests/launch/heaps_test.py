"""Memory of a command lies in one heap, however many threads come and go."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THREADS = """
import ctypes, sys, threading
{first}
barrier = threading.Barrier(5)

def take():
    kept = bytes(50_000)  # a thread's first, which finds it a heap
    barrier.wait()
    return kept

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
barrier.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(first, **env):
    """How many heaps a process has that has run a line before its threads start."""
    kept = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", THREADS.format(first=first)]
    done = subprocess.run(
        command, cwd=ROOT, env=kept | env, capture_output=True, text=True, check=True
    )
    return len(re.findall("<heap ", done.stdout))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are of glibc")
def test_threads_of_a_command_share_a_heap():
    assert heaps("import launch") == 1
    assert heaps("pass") > 2  # what it would be
    assert heaps("import launch", MALLOC_ARENA_MAX="3") > 1  # a person may say otherwise
