"""Keep freed memory in the process instead of handing it back to the kernel after every tensor."""

from __future__ import annotations

import ctypes
import logging
import sys

log = logging.getLogger(__name__)

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse large blocks.

    By default each tensor above 32 MiB is mapped afresh and its pages are faulted in and zeroed one by one; on a
    virtual machine that made training steps on the CPU 4 to 8 times slower (``benchmarks/allocator.py``). Memory of
    the process then stays at its peak. One arena serves all threads, because suspended forwards free what others
    allocate.

    Returns:
        True where it was applied; False on other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20), (_ARENA_MAX, 1))
    applied = all([mallopt(parameter, value) == 1 for parameter, value in settings])
    log.debug("malloc keeps freed memory: %s", applied)
    return applied
