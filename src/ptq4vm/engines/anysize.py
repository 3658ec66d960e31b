"""Frames of any size for an engine that takes one size: the frame is brought to it, and the matte back."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.enlarging import Enlarger, GuidedMatte
from ptq4vm.engines.step import StepEngine


class AnySizeEngine(MattingEngine):
    """An exported file that mattes frames of every size.

    A frame is scaled to fit into the file's own size, its aspect kept; what is left over beside it is filled by the
    picture again, above and below by its edge. The matte comes back by the fast guided filter on the frame itself where
    that is larger, and by averaging where it is smaller. A frame of the file's own size goes through as it is.

    Args:
        engine: The opened file.
        threads: Threads of the filter; as many as there are cores for this process if not given.
    """

    def __init__(self, engine: StepEngine, threads: int | None = None) -> None:
        self.engine = engine
        self._enlarger = Enlarger(threads)
        self._size: tuple[int, int] | None = None

    def reset(self) -> None:
        """See :meth:`MattingEngine.reset`."""
        self.engine.reset()

    def executed_types(self) -> Mapping[tuple[str, str], int] | None:
        """See :meth:`MattingEngine.executed_types`."""
        return self.engine.executed_types()

    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        """See :meth:`MattingEngine.matte`."""
        found = self.deferred(frame)
        return found.whole if isinstance(found, GuidedMatte) else found

    def deferred(self, frame: NDArray[np.uint8]) -> Matte | GuidedMatte:
        """See :meth:`MattingEngine.deferred`: it is deferred where the frame is larger than the file."""
        own = self.engine.frame_size
        size = (frame.shape[0], frame.shape[1])
        if own is None or size == own or frame.ndim != 3:
            return self.engine.matte(frame)
        if size != self._size:
            self.reset()  # to the engine all frames have one size
            self._size = size
        inner = fitting(size, own)
        smaller = inner[0] < size[0] or inner[1] < size[1]
        small = cv2.resize(frame, inner[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        rest = own[0] - inner[0], own[1] - inner[1]
        top, left = rest[0] // 2, rest[1] // 2
        # copies of the picture beside it keep portraits what they are: streaks of its edge took their MAD from 13 to 42
        wide = cv2.copyMakeBorder(small, 0, 0, left, rest[1] - left, cv2.BORDER_WRAP)
        padded = cv2.copyMakeBorder(wide, top, rest[0] - top, 0, 0, cv2.BORDER_REPLICATE)
        found = self.engine.matte(np.asarray(padded, np.uint8))
        part = np.s_[top : top + inner[0], left : left + inner[1]]
        matte = Matte(np.ascontiguousarray(found.alpha[part]), np.ascontiguousarray(found.foreground[part]))
        if not smaller:
            shrunk = (cv2.resize(each, size[::-1], interpolation=cv2.INTER_AREA) for each in matte)
            return Matte(*(np.asarray(each, np.float32) for each in shrunk))
        return GuidedMatte(self._enlarger, frame, np.asarray(small, np.uint8), matte)


def fitting(size: tuple[int, int], own: tuple[int, int]) -> tuple[int, int]:
    """``(h, w)`` of a frame of ``size`` = ``(H, W)`` that is scaled to fit into ``own``, its aspect kept."""
    scale = min(own[0] / size[0], own[1] / size[1])
    height, width = (max(1, min(most, round(length * scale))) for length, most in zip(size, own, strict=True))
    return height, width
