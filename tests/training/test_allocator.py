"""Freed memory stays with the process: page faults counted in processes of their own, as the setting is for good."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from multimodal_zoo.training import allocator
from multimodal_zoo.training.allocator import keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"
CHOICES = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
FAULTS = """
import ctypes, resource, sys
from multimodal_zoo.training.allocator import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def use():
    place = libc.malloc(40 * 2**20)
    ctypes.memset(place, 1, 40 * 2**20)
    libc.free(place)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def unset() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(CHOICES)}


def faults(how: str, **environment: str) -> tuple[bool, int]:
    words = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(words, env=unset() | environment, check=True, capture_output=True, text=True)
    kept, count = done.stdout.split()
    return kept == "1", int(count)


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    kept, few = faults("keep")
    _, many = faults("leave")
    assert kept
    # 50000 pages of 4 KiB, or 100 huge ones
    assert few < 20 < many


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_a_choice_in_the_environment_is_kept() -> None:
    kept, many = faults("keep", MALLOC_MMAP_THRESHOLD_="1000000")
    assert not kept
    assert many > 20


@pytest.mark.parametrize(
    ("name", "value", "chosen"),
    [
        ("MALLOC_ARENA_MAX", "2", True),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0", True),
        ("GLIBC_TUNABLES", "glibc.pthread.rseq=0", False),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2", True),
        ("LD_PRELOAD", "libtcmalloc_minimal.so.4", True),
        ("LD_PRELOAD", "libgomp.so.1", False),
    ],
)
def test_who_chose(name: str, value: str, chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in set(os.environ) - set(unset()):
        monkeypatch.delenv(key)
    monkeypatch.setenv(name, value)
    assert allocator._chosen_by_user() is chosen


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in set(os.environ) - set(unset()):
        monkeypatch.delenv(key)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not keep_freed_memory()

    def refuse(name: object) -> None:
        raise TypeError("no library without a name here")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not keep_freed_memory()
