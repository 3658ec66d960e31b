"""Y, U and V of colours: the standards' numbers, those that FFmpeg makes, and what writers do with them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ptq4vm.media.codecs import choose_codec
from ptq4vm.media.frames import CONVERSION, FULL_RANGE, Frame, Look, StreamInfo
from ptq4vm.media.writers import open_video
from ptq4vm.media.yuv import weights_of

COLOURS = np.array([[r, g, b] for r in (0, 90, 255) for g in (0, 130, 255) for b in (0, 60, 255)], np.uint8)


@pytest.mark.parametrize(
    ("look", "rows"),
    [
        # BT.601-7, 3.5.1 and 3.5.2, and JFIF 1.02
        (Look(5, 1), [[65.481, 128.553, 24.966, 16], [-37.797, -74.203, 112, 128], [112, -93.786, -18.214, 128]]),
        (Look(6, 2), [[0.299, 0.587, 0.114, 0], [-0.1687, -0.3313, 0.5, 128], [0.5, -0.4187, -0.0813, 128]]),
        # BT.709-6, 3.3
        (Look(1, 2), [[0.2126, 0.7152, 0.0722, 0], [-0.1146, -0.3854, 0.5, 128], [0.5, -0.4542, -0.0458, 128]]),
    ],
)
def test_weights_are_the_standards(look: Look, rows: list[list[float]]) -> None:
    expected = np.array(rows)
    if look.range != FULL_RANGE:
        expected[:, :3] /= 255
    found = weights_of(look)
    assert found is not None and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
def test_weights_are_ffmpegs(matrix: int, spread: int) -> None:
    weights = weights_of(Look(matrix, spread))
    assert weights is not None
    for colour in COLOURS:
        flat = av.VideoFrame.from_ndarray(np.broadcast_to(colour, (16, 16, 3)).copy(), format="rgb24")
        made = flat.reformat(
            format="yuv444p", src_color_range=2, dst_colorspace=matrix, dst_color_range=spread, **CONVERSION
        )
        expected = made.to_ndarray()[:, 8, 8]
        assert np.abs(weights @ [*colour, 1] - expected).max() < 1.5, colour


@pytest.mark.parametrize("matrix", [0, 2, 8, 10])
def test_other_matrices_are_left_to_ffmpeg(matrix: int) -> None:
    assert weights_of(Look(matrix)) is None


def lossless(path: Path, pictures: list[np.ndarray], look: Look, depth: int = 8) -> list[np.ndarray]:
    """Pictures as they come out of a file that loses nothing, ``(3 * H / 2, W)``."""
    codec = choose_codec(path.suffix, "h264", False)
    codec = replace(codec, options={**codec.options, "crf": "0"})
    info = StreamInfo((16, 32), Fraction(25), look=look, depth=depth)
    with open_video(path, info, info.size, codec) as writer:
        for index, picture in enumerate(pictures):
            writer.write(Frame(index, np.zeros((16, 32, 3), np.uint8), Fraction(index, 25)), picture)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert {(int(f.colorspace), int(f.color_range)) for f in frames} == {(look.matrix, look.range)}
        return [frame.to_ndarray() for frame in frames]


@pytest.mark.parametrize("look", [Look(1, 1), Look(5, 2)])
def test_writers_take_yuv_as_it_is_and_colours_beside_it(tmp_path: Path, look: Look) -> None:
    generator = np.random.default_rng(0)
    own = generator.integers(16, 236, (24, 32), np.uint8)
    colour = np.broadcast_to(COLOURS[14], (16, 32, 3)).copy()
    first, second = lossless(tmp_path / "out.mkv", [own, colour], look)
    assert np.array_equal(first, own)
    weights = weights_of(look)
    assert weights is not None
    expected = np.repeat(weights @ [*COLOURS[14], 1], [512, 128, 128]).reshape(24, 32)
    assert np.abs(second - expected).max() < 1.5


@pytest.mark.parametrize(
    ("size", "name", "matrix", "taken"),
    [
        ((16, 32), "h264", 1, True),
        ((16, 32), "vp9", 5, True),
        ((15, 32), "h264", 1, False),  # a row is doubled
        ((16, 32), "prores", 1, False),  # 4:4:4
        ((16, 32), "h264", 8, False),  # an unknown matrix
    ],
)
def test_only_some_files_take_yuv(tmp_path: Path, size: tuple[int, int], name: str, matrix: int, taken: bool) -> None:
    suffix = ".mov" if name == "prores" else ".mkv"
    info = StreamInfo(size, Fraction(25), look=Look(matrix))
    with open_video(tmp_path / f"out{suffix}", info, size, choose_codec(suffix, name, False)) as writer:
        assert (writer.yuv is not None) == taken
        writer.write(Frame(0, np.zeros((*size, 3), np.uint8), Fraction(0)), np.zeros((*size, 3), np.uint8))
