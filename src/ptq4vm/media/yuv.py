"""Y, U and V of colours by themselves: what pictures are encoded as, where nothing else need be made of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptq4vm.media.frames import FULL_RANGE, Look

Weights = NDArray[np.float32]
"""``(3, 4)``: rows make Y, U and V, in [0, 255], of red, green and blue in [0, 255], and 1."""

_SHARES = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),
    5: (0.299, 0.114),  # BT.601
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),  # BT.2020
}
"""Shares of red and blue in Y, by the matrix's number in ITU-T H.273, table 4."""


def weights_of(look: Look) -> Weights | None:
    """What makes Y, U and V of colours by ITU-T H.273, equations 20 to 38; ``None`` for a matrix that is not known.

    Args:
        look: How the pixels are to be understood; of it the matrix and the range count.
    """
    if look.matrix not in _SHARES:
        return None
    red, blue = _SHARES[look.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    chroma = [(np.array(own) - luma) / (2 * (1 - share)) for own, share in (([0, 0, 1], blue), ([1, 0, 0], red))]
    full = look.range == FULL_RANGE
    rows = np.stack([luma, *chroma]) * np.array([[255], [255], [255]] if full else [[219], [224], [224]]) / 255
    return np.hstack([rows, [[0 if full else 16], [128], [128]]]).astype(np.float32)
