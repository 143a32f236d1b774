"""Memory of programs on CPU: kept for the next program, not given back to the system each time."""

from __future__ import annotations

import ctypes
import platform

import jax

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
"""Parameters of ``mallopt``, from ``malloc.h`` of the GNU C library."""

_MOST = 2**31 - 1
"""Bytes of free memory that are kept, the largest number that ``mallopt`` takes."""


def keep_freed() -> bool:
    """Keeps the memory that a program on CPU has freed for the programs after it.

    A program of JAX takes its working memory from the system anew whenever it runs, and the system
    clears it page by page, which is a quarter to a third of the time of a training step. After this
    call, up to 2 GiB of freed memory stay with the process. For that, programs run in the thread
    that calls them: JAX returns from a call when its work on CPU is done. The command line makes
    this call itself.

    It works on Linux with the GNU C library; elsewhere it does nothing. Call it before the first
    computation of the process. Other libraries of the process keep their memory too.

    Returns:
      Whether memory is kept.

    Example:
      >>> import likejax as lj
      >>> is_kept = lj.memory.keep_freed()
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _MOST)):
        return False
    # Another thread has its own memory in pieces of 64 MiB, and takes larger arrays from the
    # system.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True
