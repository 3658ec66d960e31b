"""A small matte brought to the full size of its frame by the fast guided filter, outside of any network.

In every 3x3 window of the small image, foreground residual and alpha are fitted as ``A * guide + b``; A and b are
enlarged and applied to the large image (He and Sun, "Fast Guided Filter", 2015), as RVM does it inside its network.
Here it is one pass over the rows of the frame: nothing of its size is made but the result.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
EPS = 1e-5
"""Regularisation of the fit, RVM's."""
_STRIPES = 4  # pieces of a frame for each thread, so that none waits long for another


def fit(image: Floats, matte: Matte) -> tuple[Floats, Floats]:
    """A and b of a small image, ``(h, w, 4)`` each: of the foreground residual and of alpha.

    Args:
        image: ``(h, w, 3)`` RGB in [0, 1].
        matte: What the network gave for it.
    """
    guide = np.dstack([image, image.mean(2)])
    wanted = np.dstack([matte.foreground - image, matte.alpha])
    mean_guide, mean_wanted, mean_product, mean_square = (
        cv2.boxFilter(each, -1, (3, 3), borderType=cv2.BORDER_CONSTANT)  # zeros outside count, as in RVM
        for each in (guide, wanted, guide * wanted, guide * guide)
    )
    slope = (mean_product - mean_guide * mean_wanted) / (mean_square - mean_guide * mean_guide + np.float32(EPS))
    return slope.astype(np.float32), (mean_wanted - slope * mean_guide).astype(np.float32)


class Enlarger:
    """Applies A and b to frames of any size.

    Args:
        threads: How many threads share the rows of a frame; as many as there are cores for this process if not given.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)

    def apply(self, frame: NDArray[np.uint8], slope: Floats, offset: Floats) -> Matte:
        """Alpha ``(H, W)`` and foreground ``(H, W, 3)`` in [0, 1] of a frame ``(H, W, 3)`` uint8.

        Args:
            frame: The frame at its full size.
            slope: A of the small image, ``(h, w, 4)``.
            offset: The small image's b, in the same shape.
        """
        height, width = frame.shape[:2]
        alpha, foreground = np.empty((height, width), np.float32), np.empty((height, width, 3), np.float32)
        rows, columns = _places(height, slope.shape[0]), _places(width, slope.shape[1])
        both = np.concatenate([slope, offset], 2)
        kernel = _kernel()
        ends = np.linspace(0, height, min(height, self._threads * _STRIPES) + 1).astype(int)
        parts = itertools.pairwise(ends)
        list(self._pool.map(lambda part: kernel(frame, both, *rows, *columns, alpha, foreground, *part), parts))
        return Matte(alpha, foreground)


def _places(large: int, small: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For every row or column of the large image, its two neighbours in the small one and the weight of the second."""
    place = np.maximum((np.arange(large) + 0.5) * (small / large) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), small - 1)
    return first, np.minimum(first + 1, small - 1), (place - first).astype(np.float32)


@cache
def _kernel() -> Callable[..., None]:
    """The loop over rows: compiled where Numba is installed, in NumPy otherwise."""
    try:
        from numba import njit
    except ImportError:
        log.info("Numba is not installed: full-size mattes are made by NumPy, which takes several times as long")
        return _apply_rows
    compiled: Callable[..., None] = njit(nogil=True, cache=True, fastmath=True)(_apply_loop)
    return compiled


def _apply_loop(
    frame: Any, both: Any, top: Any, below: Any, down: Any, left: Any, right: Any, along: Any, alpha: Any,
    foreground: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Rows ``start:stop`` of alpha and foreground, number by number: for a compiler."""
    width = frame.shape[1]
    row = np.empty((both.shape[1], 8), np.float32)
    scale, one = np.float32(1 / 255), np.float32(1)
    for y in range(start, stop):
        part = down[y]
        for x in range(both.shape[1]):
            for k in range(8):
                row[x, k] = both[top[y], x, k] * (one - part) + both[below[y], x, k] * part
        for x in range(width):
            before, after, share = left[x], right[x], along[x]
            mean = np.float32(0)
            for k in range(3):
                colour = np.float32(frame[y, x, k]) * scale
                mean += colour
                slope = row[before, k] * (one - share) + row[after, k] * share
                offset = row[before, k + 4] * (one - share) + row[after, k + 4] * share
                foreground[y, x, k] = min(max(colour + slope * colour + offset, np.float32(0)), one)
            slope = row[before, 3] * (one - share) + row[after, 3] * share
            offset = row[before, 7] * (one - share) + row[after, 7] * share
            alpha[y, x] = min(max(slope * mean / np.float32(3) + offset, np.float32(0)), one)


def _apply_rows(
    frame: Any, both: Any, top: Any, below: Any, down: Any, left: Any, right: Any, along: Any, alpha: Any,
    foreground: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """The same in NumPy, row by row."""
    share = along[:, None]
    for y in range(start, stop):
        row = both[top[y]] * (1 - down[y]) + both[below[y]] * down[y]
        here = row[left] * (1 - share) + row[right] * share
        colour = frame[y].astype(np.float32) / 255
        np.clip(colour + here[:, :3] * colour + here[:, 4:7], 0, 1, out=foreground[y])
        np.clip(here[:, 3] * colour.mean(1) + here[:, 7], 0, 1, out=alpha[y])
