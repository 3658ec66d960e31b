"""Frames of any size for an engine that takes one: it gets their aspect, a frame goes to its size, the matte back."""

from __future__ import annotations

import itertools
import logging
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte
from ptq4vm.engines.enlarging import Enlarger, GuidedMatte, WrappedEngine
from ptq4vm.engines.step import StepEngine
from ptq4vm.errors import ConfigError, ExportError, one_line

log = logging.getLogger(__name__)

Size = tuple[int, int]

AUTO, FILE = "auto", "file"
"""Sizes at which a file runs by name: one of the frame's aspect, or the file's own."""
_NEAR = 0.02  # of two aspects, as a difference of logarithms: not worth another graph


class AnySizeEngine(WrappedEngine[StepEngine]):
    """An exported file that mattes frames of every size.

    The file's graph is re-shaped to the frames' aspect, at about the area that it was exported for, where the file
    permits it. A frame is then scaled to fit, its aspect kept; what is left over beside it is filled by the picture
    again, above and below by its edge. The matte comes back by the fast guided filter on the frame itself where that is
    larger, and by averaging where it is smaller. A frame of the graph's own size goes through as it is.

    Args:
        engine: The opened file.
        threads: Threads of the filter; as many as there are cores for this process if not given.
        size: ``(H, W)`` at which the file runs whatever the frames' aspect is, :data:`AUTO`, or :data:`FILE`.

    Raises:
        ConfigError: The file cannot run at ``size``, or it is none.
        ExportError: The file has one size or takes any as it is.
    """

    def __init__(self, engine: StepEngine, threads: int | None = None, size: Size | str = AUTO) -> None:
        super().__init__(engine)
        self._enlarger = Enlarger(threads)
        self._size: Size | None = None
        self._follows = size == AUTO and engine.size_step > 0
        if not isinstance(size, str):
            engine.reshape(size)
        elif size not in (AUTO, FILE):
            raise ConfigError(f"size={size}: write {AUTO}, {FILE} or WIDTHxHEIGHT, such as 512x288")

    def deferred(self, frame: NDArray[np.uint8]) -> Matte | GuidedMatte:
        """See :meth:`MattingEngine.deferred`: it is deferred where the frame is larger than the file."""
        if self.engine.file_size is None or frame.ndim != 3:
            return self.engine.matte(frame)
        size = _size(frame)
        if size != self._size:
            self._begin(size)
        own = self.engine.frame_size or size
        if size == own:
            return self.engine.matte(frame)
        inner = fitting(size, own)
        smaller = _smaller(inner, size)
        if smaller:
            small = self._enlarger.shrunk(frame, inner)
        else:
            small = np.asarray(cv2.resize(frame, inner[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
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
        return GuidedMatte(self._enlarger, frame, small, matte)

    def prepare(self, frame: NDArray[np.uint8]) -> None:
        """See :meth:`MattingEngine.prepare`: frames after the first are brought to the size of the file."""
        own = self.engine.frame_size
        if own is not None and frame.ndim == 3 and _size(frame) == self._size:
            inner = fitting(self._size, own)
            if _smaller(inner, self._size):
                self._enlarger.shrink_ahead(frame, inner)

    def _begin(self, size: Size) -> None:
        """Choose what the file runs at for frames of ``size``, which are another video."""
        self.reset()  # to the engine all frames have one size
        own = self.engine.file_size or size
        if self._follows and min(size) > 0:
            wanted = size_for(size, own, self.engine.size_step)
            try:
                self.engine.reshape(wanted)
            except (ConfigError, ExportError) as error:  # what it had is still there
                log.warning("%s", one_line(error))
                self._follows = False
        now = self.engine.frame_size or size
        tell = log.info if now == own else log.warning
        tell("frames of %dx%d run through %s at %dx%d", *size[::-1], self.engine.file, *now[::-1])
        self._size = size


def _size(frame: NDArray[np.uint8]) -> Size:
    """``(H, W)`` of a frame."""
    return frame.shape[0], frame.shape[1]


def _smaller(inner: Size, size: Size) -> bool:
    """Whether one of the sides is."""
    return inner[0] < size[0] or inner[1] < size[1]


def size_for(size: Size, own: Size, step: int) -> Size:
    """``(h, w)`` at which frames of ``size`` = ``(H, W)`` run through a file that was exported for ``own``.

    Both are multiples of ``step``; aspect is near the frames', area near the file's. For frames of about the file's
    aspect it is ``own``.
    """
    least = 2 * step
    longest = max(own[0] * own[1] // least, least)
    aspect = min(max(size[0] / size[1], least / longest), longest / least)
    area = own[0] * own[1]

    def unlike(found: Size) -> float:
        return abs(math.log(found[0] / found[1] / aspect)) + abs(math.log(found[0] * found[1] / area)) / 2

    if unlike(own) < _NEAR:
        return own
    sides = [max(2, math.floor(side / step)) for side in (math.sqrt(area * aspect), math.sqrt(area / aspect))]
    choices = itertools.product(*([side * step, (side + 1) * step] for side in sides))
    return min(((rows, columns) for rows, columns in choices), key=unlike)


def fitting(size: Size, own: Size) -> Size:
    """``(h, w)`` of a frame of ``size`` = ``(H, W)`` that is scaled to fit into ``own``, its aspect kept."""
    scale = min(own[0] / size[0], own[1] / size[1])
    height, width = (max(1, min(most, round(length * scale))) for length, most in zip(size, own, strict=True))
    return height, width
