"""Foreground colours that are free of the old background, estimated by blurring (Forte and Pitie, ICIP 2021)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte
from ptq4vm.video.refining import Refiner

Floats = NDArray[np.float32]
WIDE, NARROW = 0.1, 0.02
"""Sides of the two blurs, as shares of the frame's height."""


class Decontamination(Refiner):
    """Takes the foreground's colours at the rim from where it is opaque.

    Twice, from far and from near: colours of the foreground and of the background are averaged around every pixel, each
    weighted by its share, and the foreground then takes what they leave unexplained of the pixel.
    """

    def reset(self) -> None:
        """See :meth:`Refiner.reset`: frames do not depend on each other."""

    def refine(self, frame: NDArray[np.uint8], matte: Matte) -> Matte:
        """See :meth:`Refiner.refine`."""
        image = np.divide(frame, 255, dtype=np.float32)
        alpha = matte.alpha[..., None]
        foreground = background = image
        for share in (WIDE, NARROW):
            side = max(3, round(share * frame.shape[0]))
            foreground, background = _fused(image, foreground, background, alpha, side)
        return matte._replace(foreground=foreground)


def _fused(image: Floats, foreground: Floats, background: Floats, alpha: Floats, side: int) -> tuple[Floats, Floats]:
    """One pass: foreground and background ``(h, w, 3)`` from blurs over ``side`` pixels."""

    def blurred(colours: Floats, weight: Floats) -> Floats:
        total = cv2.blur(weight, (side, side))[..., None]
        return np.asarray(cv2.blur(colours * weight, (side, side)) / (total + 1e-5), np.float32)

    near, behind = blurred(foreground, alpha), blurred(background, 1 - alpha)
    left = image - alpha * near - (1 - alpha) * behind
    return np.asarray(np.clip(near + alpha * left, 0, 1), np.float32), behind
