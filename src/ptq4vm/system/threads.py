"""Guard PyTorch's number of threads against libraries that change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_thread_count() -> Iterator[None]:
    """Put PyTorch's number of threads back at the end.

    Importing Numba asks OpenMP for one thread per logical processor, and PyTorch, which shares the OpenMP runtime,
    follows. Sums are then split differently: a run that made the demo clips and a run that found them in the cache
    would differ in the last bits.
    """
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
