"""Finding cuts between scenes, after which what a network remembers is of no use."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 32
_BINS = 16
_ENOUGH = 8 * _SIDE  # rows and columns of a frame that are looked at: all of 1920x1080 take 6.6 ms


class SceneCuts:
    """Tells whether a frame begins another scene than the frame before it.

    Both must hold: small copies of the two frames differ on average by more than ``change``, and so do their colour
    histograms by more than ``colours``. Motion, even of the camera, keeps the colours; a flash or a fade keeps the
    histogram's order but seldom both.

    Args:
        change: Mean absolute difference of 32x32 copies, in [0, 1].
        colours: Half the L1 distance of the histograms (16 bins a channel), in [0, 1].
    """

    def __init__(self, change: float = 0.1, colours: float = 0.35) -> None:
        self._change = change
        self._colours = colours
        self._before: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def is_cut(self, frame: NDArray[np.uint8]) -> bool:
        """Look at the next frame, ``(H, W, 3)`` uint8; False for the first."""
        apart = max(1, min(frame.shape[:2]) // _ENOUGH)
        small = cv2.resize(frame[::apart, ::apart], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        counts = [np.bincount(small[..., c].ravel() // (256 // _BINS), minlength=_BINS) for c in range(3)]
        after = np.divide(small, 255, dtype=np.float32), np.divide(counts, _SIDE**2, dtype=np.float32)
        before, self._before = self._before, after
        if before is None:
            return False
        change = float(np.abs(after[0] - before[0]).mean())
        colours = float(np.abs(after[1] - before[1]).sum(1).mean()) / 2
        return change > self._change and colours > self._colours
