"""One subject of several: the connected part of a matte that holds a point or a mask, followed from frame to frame."""

from __future__ import annotations

import logging

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte
from ptq4vm.video.refining import Refiner

log = logging.getLogger(__name__)

SEEN = 0.05
"""Alpha from which on a pixel belongs to a part."""
REACH = 0.02
"""How far a part moves from one frame to the next at most, or is from its point, as a share of the height."""
CRUMB = 0.05
"""Largest part beside the subject that goes with it (hair, fingers), as a share of the subject."""


class Subject(Refiner):
    """Keeps the parts of alpha that touch the subject of the frame before, and makes the rest transparent.

    Subjects that touch each other are one part while they do; when they part again, the one is kept that covers more of
    where the subject was. A subject that is gone is waited for where it was last seen.

    Args:
        where: The subject in the first frame: its point ``(x, y)`` as shares of width and height in [0, 1], or a mask
            ``(h, w)`` of any size whose values above 0.5 are the subject.
    """

    def __init__(self, where: tuple[float, float] | NDArray[np.float32]) -> None:
        self._where = where
        self._region: NDArray[np.uint8] | None = None

    def reset(self) -> None:
        """See :meth:`Refiner.reset`. In a new scene the subject is looked for where it was in the first frame."""
        self._region = None

    def refine(self, frame: NDArray[np.uint8], matte: Matte) -> Matte:
        """See :meth:`Refiner.refine`."""
        before = self._first(matte.alpha.shape) if self._region is None else self._region
        count, labels = cv2.connectedComponents((matte.alpha > SEEN).astype(np.uint8))
        near = cv2.dilate(before, _disc(matte.alpha.shape[0]))
        shared = np.bincount(labels[(near > 0) & (labels > 0)], minlength=count)
        if not shared.any():
            if self._region is None:
                log.warning("no foreground is seen where the subject shall be in the first frame: it is waited for")
            self._region = before
            return matte._replace(alpha=np.zeros_like(matte.alpha))
        sizes, best = np.bincount(labels.ravel(), minlength=count), int(shared.argmax())
        kept = (shared > 0) & (sizes <= CRUMB * sizes[best])
        kept[best] = True
        region = kept[labels].astype(np.uint8)
        self._region = region
        around = (cv2.dilate(region, np.ones((5, 5), np.uint8)) > 0) & (labels == 0)  # the faintest of its rim
        return matte._replace(alpha=np.where(around | (region > 0), matte.alpha, np.float32(0)))

    def _first(self, size: tuple[int, ...]) -> NDArray[np.uint8]:
        """The subject of the first frame, ``(h, w)`` of 0 and 1."""
        height, width = size
        if isinstance(self._where, np.ndarray):
            scaled = cv2.resize(self._where, (width, height), interpolation=cv2.INTER_AREA)
            return (np.asarray(scaled) > 0.5).astype(np.uint8)
        x, y = self._where
        region = np.zeros((height, width), np.uint8)
        region[min(int(y * height), height - 1), min(int(x * width), width - 1)] = 1
        return region


def _disc(height: int) -> NDArray[np.uint8]:
    side = 2 * max(1, round(REACH * height)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
