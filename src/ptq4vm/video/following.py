"""Where the pixels of a picture were in the one before: optical flow (DIS) at few rows, and how alike they look."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

ROWS = 288
"""Pictures with more rows are followed at this size."""
ALIKE = 12.0
"""Difference of grey, of 255, beyond which a pixel is not the one it is said to come from."""

Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]


class Places(NamedTuple):
    """Where each pixel of a picture was in the one before.

    Attributes:
        columns: ``(h, w)`` float32, pixels.
        rows: ``(h, w)`` float32, pixels.
        alike: ``(h, w)`` in [0, 1]: whether the two pixels look the same; 0 where their greys differ by more than
            :data:`ALIKE`.
    """

    columns: Floats
    rows: Floats
    alike: Floats

    def moved(self, planes: Floats) -> Floats:
        """Values ``(h, w)`` or ``(h, w, C)`` of the picture before, brought to where they are now."""
        return _moved(planes, self.columns, self.rows)


class Follower:
    """Follows pixels from one picture to the next."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def places(self, now: Grey, before: Grey) -> Places:
        """Where the pixels of a picture were in the one before.

        Args:
            now: ``(h, w)`` uint8, see :func:`grey_of`.
            before: The same of the picture before, of the same size.
        """
        height, width = now.shape
        scale = min(1.0, ROWS / height)
        size = round(width * scale), round(height * scale)
        small_now, small_before = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (now, before))
        start = np.zeros((*small_now.shape[:2], 2), np.float32)
        found = self._flow.calc(np.asarray(small_now), np.asarray(small_before), start)
        flow = cv2.resize(found, (width, height)) * np.array([width / size[0], height / size[1]], np.float32)
        columns = flow[..., 0] + np.arange(width, dtype=np.float32)
        rows = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        looked = _moved(before.astype(np.float32), columns, rows)
        alike = np.clip(2 - np.abs(now - looked) / (ALIKE / 2), 0, 1)
        return Places(*(np.asarray(each, np.float32) for each in (columns, rows, alike)))


def grey_of(picture: NDArray[np.uint8]) -> Grey:
    """The grey of a picture ``(h, w, 3)`` uint8 RGB, ``(h, w)`` uint8."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def _moved(planes: Floats, columns: Any, rows: Any) -> Floats:
    """Values of planes at the places that are asked for."""
    return np.asarray(cv2.remap(planes, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
