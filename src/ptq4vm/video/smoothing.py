"""Less flicker without lag: alpha's rim takes a share of the rim before, moved along with the picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte
from ptq4vm.video.following import Follower, grey_of
from ptq4vm.video.refining import Refiner


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
        self._follower = Follower()
        self._before: Previous | None = None

    def reset(self) -> None:
        """See :meth:`Refiner.reset`."""
        self._before = None

    def refine(self, frame: NDArray[np.uint8], matte: Matte) -> Matte:
        """See :meth:`Refiner.refine`."""
        grey = grey_of(frame)
        alpha = matte.alpha
        if self._before is not None and self._before.grey.shape == grey.shape:
            places = self._follower.places(grey, self._before.grey)
            rim = np.clip(10 * np.minimum(alpha, 1 - alpha), 0, 1)
            change = places.moved(self._before.alpha) - alpha
            alpha = np.asarray(alpha + self._strength * places.alike * rim * change, np.float32)
        self._before = Previous(grey, alpha)
        return matte._replace(alpha=alpha)
