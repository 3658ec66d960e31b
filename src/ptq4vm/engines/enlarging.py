"""A small matte brought to the full size of its frame by the fast guided filter, outside of any network.

In every 3x3 window of the small image, foreground residual and alpha are fitted as ``A * guide + b``; A and b are
enlarged and applied to the large image (He and Sun, "Fast Guided Filter", 2015), as RVM does it inside its network.
Here it is one pass over the rows of the frame: nothing of its size is made but the result.
"""

from __future__ import annotations

import importlib
import logging
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from types import ModuleType
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.media.yuv import Weights
from ptq4vm.system.cpu import usable_cpus

log = logging.getLogger(__name__)

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]
EPS = 1e-5
"""Regularisation of the fit, RVM's."""
_AHEAD = 8  # frames that are kept with what was made of them ahead, of which some may never be asked for
_GREY = 128  # U and V of what has no colour
_STRIPES = 4  # pieces of a frame for each thread, so that none waits long for another


def _at_once(loop: Callable[[int, int], None], rows: int) -> None:
    loop(0, rows)


def fit(small: Codes, matte: Matte, share: Callable[[Callable[[int, int], None], int], None] = _at_once) -> Floats:
    """A and b of a small image, ``(8, h, w)``: slopes of the three colours and of alpha, and their offsets.

    They are for colours in [0, 255], and so are the offsets of colours.

    Args:
        small: The small image, ``(h, w, 3)`` uint8 RGB.
        matte: What the network gave for it.
        share: Calls a loop for all of so many rows, from one to before another; :meth:`Enlarger.share` by threads.
    """
    kernels = _kernels()
    if kernels is not None:
        planes = np.empty((8, *small.shape[:2]), np.float32)
        values = (small, matte.alpha, matte.foreground, np.float32(EPS), planes)
        share(lambda start, stop: kernels.fit(*values, start, stop), small.shape[0])
        return planes
    image = small.astype(np.float32) / np.float32(255)
    guide = np.dstack([image, image.mean(2)])
    wanted = np.dstack([matte.foreground - image, matte.alpha])
    mean_guide, mean_wanted, mean_product, mean_square = (
        cv2.boxFilter(each, -1, (3, 3), borderType=cv2.BORDER_CONSTANT)  # zeros outside count, as in RVM
        for each in (guide, wanted, guide * wanted, guide * guide)
    )
    slope = (mean_product - mean_guide * mean_wanted) / (mean_square - mean_guide * mean_guide + np.float32(EPS))
    offset = (mean_wanted - slope * mean_guide) * np.array([255, 255, 255, 1], np.float32)
    return np.ascontiguousarray(np.concatenate([slope, offset], 2).transpose(2, 0, 1), np.float32)


class Enlarger:
    """Applies A and b to frames of any size; where Numba is installed, straight to the picture that is wanted.

    Args:
        threads: How many threads share the rows of a frame; as many as there are cores for this process if not given.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or usable_cpus()
        self._pool = ThreadPoolExecutor(self._threads)
        self._ahead: deque[tuple[Codes, Codes]] = deque(maxlen=_AHEAD)
        self._lock = threading.Lock()

    def matte(self, frame: Codes, planes: Floats) -> Matte:
        """Alpha ``(H, W)`` and foreground ``(H, W, 3)`` in [0, 1] of a frame.

        Args:
            frame: The frame at its full size, ``(H, W, 3)`` uint8.
            planes: From :func:`fit` for the small image, ``(8, h, w)``.
        """
        size = frame.shape[:2]
        alpha, foreground = np.empty(size, np.float32), np.empty((*size, 3), np.float32)
        kernels = _kernels()
        loop = _values if kernels is None else kernels.values
        self._each(loop, frame, planes, alpha, foreground)
        return Matte(alpha, foreground)

    def picture(
        self, frame: Codes, planes: Floats, output: str, behind: Codes, yuv: Weights | None = None
    ) -> Codes | None:
        """What is made of a frame, uint8, in one pass; ``None`` where only :meth:`matte` can.

        Args:
            frame: The frame at its full size, ``(H, W, 3)`` uint8.
            planes: From :func:`fit` for the small image, ``(8, h, w)``.
            output: ``composite`` ``(H, W, 3)``, ``alpha`` as grey ``(H, W, 3)``, or ``rgba`` ``(H, W, 4)``.
            behind: The background of a composite, ``(H, W, 3)``, or ``(1, 1, 3)`` for one colour.
            yuv: Where composites and alpha of frames with even sides are wanted as YUV 4:2:0, ``(3 * H / 2, W)`` with
                all of Y, U and V one after the other: what makes them of colours.
        """
        kernels = _kernels()
        if kernels is None or output not in ("composite", "alpha", "rgba"):
            return None
        if yuv is not None and output != "rgba" and not any(length % 2 for length in frame.shape[:2]):
            return self._picture_420(kernels, frame, planes, output, behind, yuv)
        result = np.empty((*frame.shape[:2], 4 if output == "rgba" else 3), np.uint8)
        if output == "composite":
            self._each(kernels.composite, frame, planes, behind, result)
        elif output == "rgba":
            self._each(kernels.layers, frame, planes, result)
        else:
            self._each(kernels.alpha, frame, np.ascontiguousarray(planes[3::4]), result)
        return result

    def _picture_420(
        self, kernels: ModuleType, frame: Codes, planes: Floats, output: str, behind: Codes, yuv: Weights
    ) -> Codes:
        """A composite, or alpha, as YUV 4:2:0."""
        rows = frame.shape[0]
        result = np.empty((3 * rows // 2, frame.shape[1]), np.uint8)
        if output == "composite":
            self._each(kernels.composite_420, frame, planes, behind, yuv, result, together=2)
        else:
            result[rows:] = _GREY
            self._each(kernels.alpha_420, frame, np.ascontiguousarray(planes[3::4]), yuv, result)
        return result

    def shrink_ahead(self, frame: Codes, size: tuple[int, int]) -> None:
        """Do the work of :meth:`shrunk` before it is asked for, in any thread."""
        small = self._shrink(frame, size)
        with self._lock:
            self._ahead.append((frame, small))

    def shrunk(self, frame: Codes, size: tuple[int, int]) -> Codes:
        """A frame brought to a smaller size, ``(h, w, 3)`` uint8: means of what lies in each pixel.

        Args:
            frame: ``(H, W, 3)`` uint8.
            size: ``(h, w)``. Where a side is longer than the frame's, OpenCV says what the means are.
        """
        small = None
        with self._lock:
            if any(known is frame for known, _ in self._ahead):
                known = None
                while known is not frame:  # those before it were left out
                    known, small = self._ahead.popleft()
        return small if small is not None and small.shape[:2] == size else self._shrink(frame, size)

    def _shrink(self, frame: Codes, size: tuple[int, int]) -> Codes:
        kernels = _kernels()
        if kernels is None or size[0] > frame.shape[0] or size[1] > frame.shape[1]:
            return np.asarray(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        result, frame = np.empty((*size, 3), np.uint8), np.ascontiguousarray(frame)
        self.share(lambda start, stop: kernels.shrink(frame, result, start, stop), size[0])
        return result

    def _each(
        self, loop: Callable[..., None], frame: Codes, planes: Floats, *rest: NDArray[Any], together: int = 1
    ) -> None:  # fmt: skip
        """Run a loop over the rows of a frame, or over so many together, in stripes."""
        height, width = frame.shape[:2]
        down, across = _places(height, planes.shape[1]), _places(width, planes.shape[2])
        frame = np.ascontiguousarray(frame)
        self.share(lambda start, stop: loop(frame, planes, down, across, *rest, start, stop), height // together)

    def share(self, loop: Callable[[int, int], None], rows: int) -> None:
        """Call a loop for all rows, from one to before another, in threads."""
        ends = np.linspace(0, rows, min(rows, self._threads * _STRIPES) + 1).astype(int)
        list(self._pool.map(loop, ends[:-1], ends[1:]))


class GuidedMatte:
    """A small matte and its frame: the matte at full size, or a picture made of it, when it is asked for.

    Args:
        enlarger: What makes both of A and b.
        frame: The frame at its full size, ``(H, W, 3)`` uint8.
        small: The frame at the matte's size, ``(h, w, 3)`` uint8.
        matte: What the network gave for it.

    Attributes:
        small: The frame at the small matte's size, ``(h, w, 3)`` uint8.
        matte: The small matte.
    """

    def __init__(self, enlarger: Enlarger, frame: Codes, small: Codes, matte: Matte) -> None:
        self._enlarger, self._frame, self.small, self.matte = enlarger, frame, small, matte

    def altered(self, matte: Matte) -> GuidedMatte:
        """The same frame with another small matte."""
        return self.of(self._frame, self.small, matte)

    def of(self, frame: Codes, small: Codes, matte: Matte) -> GuidedMatte:
        """Another frame and its small matte, to be enlarged by the same."""
        return GuidedMatte(self._enlarger, frame, small, matte)

    def shrunk(self, frame: Codes) -> Codes:
        """Another frame at the small matte's size."""
        return self._enlarger.shrunk(frame, (self.small.shape[0], self.small.shape[1]))

    @cached_property
    def _planes(self) -> Floats:
        return fit(self.small, self.matte, self._enlarger.share)

    @cached_property
    def whole(self) -> Matte:
        """The matte at full size."""
        return self._enlarger.matte(self._frame, self._planes)

    @property
    def alpha(self) -> Floats:
        """Alpha at full size, ``(H, W)`` in [0, 1]."""
        return self.whole.alpha

    @property
    def foreground(self) -> Floats:
        """Foreground at full size, ``(H, W, 3)`` in [0, 1]."""
        return self.whole.foreground

    def picture(self, output: str, behind: Codes, yuv: Weights | None = None) -> Codes | None:
        """See :meth:`Enlarger.picture`."""
        return self._enlarger.picture(self._frame, self._planes, output, behind, yuv)


EngineT = TypeVar("EngineT", bound=MattingEngine)


class WrappedEngine(MattingEngine, Generic[EngineT]):
    """An engine around another one, whose mattes are deferred where the other's are.

    Subclasses write :meth:`deferred`, and :meth:`reset` where they have seen something themselves.

    Args:
        engine: The engine inside.
    """

    def __init__(self, engine: EngineT) -> None:
        self.engine = engine

    def reset(self) -> None:
        """See :meth:`MattingEngine.reset`."""
        self.engine.reset()

    def prepare(self, frame: Codes) -> None:
        """See :meth:`MattingEngine.prepare`."""
        self.engine.prepare(frame)

    def executed_types(self) -> Mapping[tuple[str, str], int] | None:
        """See :meth:`MattingEngine.executed_types`."""
        return self.engine.executed_types()

    def matte(self, frame: Codes) -> Matte:
        """See :meth:`MattingEngine.matte`."""
        found = self.deferred(frame)
        return found.whole if isinstance(found, GuidedMatte) else found

    @abstractmethod
    def deferred(self, frame: Codes) -> Matte | GuidedMatte:
        """See :meth:`MattingEngine.deferred`."""


def _places(large: int, small: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32], Floats]:
    """For every row or column of the large image, its two neighbours in the small one and the weight of the second."""
    place = np.maximum((np.arange(large) + 0.5) * (small / large) - 0.5, 0)
    first = np.minimum(place.astype(np.uint32), np.uint32(small - 1))
    return first, np.minimum(first + np.uint32(1), np.uint32(small - 1)), (place - first).astype(np.float32)


@cache
def _kernels() -> ModuleType | None:
    """The compiled loops, where Numba is installed."""
    try:
        return importlib.import_module("ptq4vm.engines.kernels")
    except ImportError:
        log.info("Numba is not installed: full-size mattes are made by NumPy, which takes several times as long")
        return None


def _values(
    frame: Any, planes: Any, down: Any, across: Any, alpha: Any, foreground: Any, start: int, stop: int
) -> None:  # fmt: skip
    """:func:`ptq4vm.engines.kernels.values` in NumPy, row by row."""
    (top, below, weight), (left, right, share) = down, across
    for y in range(start, stop):
        row = planes[:, top[y]] * (1 - weight[y]) + planes[:, below[y]] * weight[y]
        here = row[:, left] * (1 - share) + row[:, right] * share
        colour = frame[y].astype(np.float32).T
        np.clip((colour + here[:3] * colour + here[4:7]).T / 255, 0, 1, out=foreground[y])
        np.clip(here[3] * colour.mean(0) / 255 + here[7], 0, 1, out=alpha[y])
