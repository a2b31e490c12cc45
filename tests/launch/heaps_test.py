"""Memory of a command lies in one heap, which keeps it, however many threads come and go."""

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

# What a step needs, again and again.
STEPS = """
import ctypes, resource
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def step(size=64 << 20):
    buffer = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    ctypes.memset(buffer, 1, size)
    libc.free(buffer)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step(), step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are of glibc")


def printed(program, first, **env):
    """What a process prints that has run a line before all else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", program.format(first=first)]
    done = subprocess.run(
        command, cwd=ROOT, env=kept | env, capture_output=True, text=True, check=True
    )
    return done.stdout


def heaps(first, **env):
    """How many heaps there are."""
    return len(re.findall("<heap ", printed(THREADS, first, **env)))


def new_pages(first, **env):
    """How many pages the system was asked for by two more steps."""
    return int(printed(STEPS, first, **env))


def test_threads_of_a_command_share_a_heap():
    assert heaps("import launch") == 1
    assert heaps("pass") > 2  # what it would be
    assert heaps("import launch", MALLOC_ARENA_MAX="3") > 1  # a person may say otherwise


def test_a_step_of_a_command_takes_the_memory_of_the_last():
    assert new_pages("import launch") < 1000
    assert new_pages("pass") > 10_000  # what it would be
    assert new_pages("import launch", MALLOC_MMAP_MAX_="65536") > 10_000
