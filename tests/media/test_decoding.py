"""What decoded pixels become: RGB by way of planes is what swscale itself makes of them."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from ptq4vm.media.decoding import upright_rgb
from ptq4vm.media.frames import BT601, BT709, CONVERSION, FULL_RANGE, QUICK_CONVERSION, Look

FORMS = ("yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "rgb24", "gbrp", "gray")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("size", "off"), [((48, 64), 0), ((47, 63), 1)])
@pytest.mark.parametrize("spread", [1, FULL_RANGE])
def test_planes_give_the_same_values(form: str, size: tuple[int, int], off: int, spread: int) -> None:
    height, width = size
    coarse = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form, **QUICK_CONVERSION)
    for matrix in (BT601, BT709):
        wanted = frame.reformat(
            format="rgb24", src_colorspace=matrix, src_color_range=spread, dst_color_range=FULL_RANGE, **CONVERSION
        ).to_ndarray()
        found = upright_rgb(frame, Look(matrix, spread, 2, 2))
        assert found.shape == (height, width, 3) and found.flags.c_contiguous
        assert int(np.abs(found.astype(int) - wanted).max()) <= off, "an odd size may differ by one level"
