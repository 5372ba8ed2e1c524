"""Freed memory that the C library keeps for the next layer, for programs that train on a CPU."""

from __future__ import annotations

import ctypes
import os

#: Parameters of glibc's `mallopt` (malloc.h), in the order in which they are set.
_SETTINGS = (
    (-4, 0),  # M_MMAP_MAX: large tensors come from the heap too, where freed memory can be used again
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: nothing at the end of the heap is handed back
    (-2, 64 * 2**20),  # M_TOP_PAD: the heap grows by 64 MB more than is asked for
)


def keep_freed_memory() -> bool:
    """Let glibc use freed memory again instead of handing it back to the system.

    Otherwise activations are handed back when they are freed, and the next layer pays for fresh, zeroed pages. The
    process then holds what it held at most, until it ends. For applications, before large tensors exist: the setting
    is the whole process's, so no part of the library calls it. Calling it again changes nothing.

    Returns:
        whether it was done: not without glibc, nor where the environment already chooses, by `MALLOC_*`, by malloc's
        `GLIBC_TUNABLES`, or by another allocator in `LD_PRELOAD`.
    """
    if _chosen_by_user():
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return False
    if not hasattr(library, "gnu_get_libc_version"):  # the numbers mean something else elsewhere
        return False
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in _SETTINGS)


def _chosen_by_user() -> bool:
    """Whether the environment sets up malloc, or replaces it (jemalloc, tcmalloc, mimalloc)."""
    return (
        any(name.startswith("MALLOC_") for name in os.environ)
        or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
        or "malloc" in os.environ.get("LD_PRELOAD", "")
    )
