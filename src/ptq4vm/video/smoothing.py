"""Less flicker without lag: alpha's rim takes a share of the rim before, moved along with the picture."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte
from ptq4vm.video.refining import Refiner

ROWS = 288
"""Frames with more rows are followed at this size."""
ALIKE = 12.0
"""Difference of grey, of 255, beyond which a pixel is not the one it is said to come from."""


class Previous(NamedTuple):
    """The frame before: its pixels as grey ``(h, w)`` uint8, and its alpha ``(h, w)``."""

    grey: NDArray[np.uint8]
    alpha: NDArray[np.float32]


class Smoothing(Refiner):
    """Brings alpha, where it is neither 0 nor 1, nearer to the alpha before along the optical flow (DIS).

    Where the picture has changed, or the flow is wrong, the two pixels do not look alike, and alpha stays as it is:
    what moves is not smeared, and what appears does not come late.

    Args:
        strength: The share of the alpha before, in (0, 1).
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: Previous | None = None

    def reset(self) -> None:
        """See :meth:`Refiner.reset`."""
        self._before = None

    def refine(self, frame: NDArray[np.uint8], matte: Matte) -> Matte:
        """See :meth:`Refiner.refine`."""
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        alpha = matte.alpha
        if self._before is not None and self._before.grey.shape == grey.shape:
            places = self._places(grey, self._before.grey)
            was, looked = _moved(self._before.alpha, places), _moved(self._before.grey.astype(np.float32), places)
            alike = np.clip(2 - np.abs(grey - looked) / (ALIKE / 2), 0, 1)
            rim = np.clip(10 * np.minimum(alpha, 1 - alpha), 0, 1)
            alpha = np.asarray(alpha + self._strength * alike * rim * (was - alpha), np.float32)
        self._before = Previous(grey, alpha)
        return matte._replace(alpha=alpha)

    def _places(self, grey: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where each pixel was, ``(h, w, 2)``, pixels."""
        height, width = grey.shape
        scale = min(1.0, ROWS / height)
        size = round(width * scale), round(height * scale)
        now, then = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (grey, before))
        found = self._flow.calc(np.asarray(now), np.asarray(then), np.zeros((*now.shape[:2], 2), np.float32))
        flow = cv2.resize(found, (width, height)) * np.array([width / size[0], height / size[1]], np.float32)
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        return np.asarray(np.dstack([columns, rows]) + flow, np.float32)


def _moved(plane: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of a plane ``(h, w)`` at the places that are asked for."""
    columns, rows = (np.ascontiguousarray(places[..., axis]) for axis in (0, 1))
    return np.asarray(cv2.remap(plane, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
