from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch

from networks import tiny_matting
from ptq4vm.engines.base import Matte
from ptq4vm.engines.pytorch import PyTorchEngine, automatic_ratio
from ptq4vm.errors import ConfigError
from ptq4vm.media.frames import Frame, Picture, cover
from ptq4vm.video.composing import (
    OUTPUTS,
    Colour,
    Pictures,
    comparison,
    comparison_size,
    composer,
    composite,
    parse_colour,
    rgba_picture,
)
from ptq4vm.video.scenes import SceneCuts

ALPHA = np.array([[0, 0.5, 1]], np.float32)
MATTE = Matte(ALPHA, np.full((1, 3, 3), 0.8, np.float32))
FRAME = np.full((1, 3, 3), 7, np.uint8)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("composite", [[0, 0, 255], [102, 102, 230], [204, 204, 204]]),
        ("alpha", [[0] * 3, [128] * 3, [255] * 3]),
        ("foreground", [[0] * 3, [204] * 3, [204] * 3]),
        ("rgba", [[0, 0, 0, 0], [204, 204, 204, 128], [204, 204, 204, 255]]),
    ],
)
def test_outputs(output: str, expected: list[list[int]]) -> None:
    picture = composer(output, Colour((0, 0, 255)))(Frame(0, FRAME, Fraction(0)), [MATTE])
    assert picture.dtype == np.uint8 and np.array_equal(picture[0], expected)


@pytest.mark.parametrize("picture", [False, True], ids=("colour", "picture"))
def test_a_composite_is_alpha_times_foreground_and_the_rest_of_what_is_behind(picture: bool) -> None:
    random = np.random.default_rng(0)
    matte = Matte(*(random.random(shape, np.float32) for shape in ((17, 23), (17, 23, 3))))
    behind = random.random((17, 23, 3) if picture else 3, np.float32)
    alpha = matte.alpha[..., None].astype(np.float64)
    expected = (alpha * matte.foreground + (1 - alpha) * behind) * 255
    found = composite(matte, behind)
    assert found.dtype == np.uint8 and found.shape == (17, 23, 3)
    assert np.abs(found - expected).max() < 0.501
    np.testing.assert_allclose(rgba_picture(matte)[..., 3], matte.alpha * 255, atol=0.501)


def test_every_output_is_known() -> None:
    for output in OUTPUTS:
        composer(output, Colour((0, 0, 0)))
    with pytest.raises(ConfigError, match="output=matte is unknown"):
        composer("matte", Colour((0, 0, 0)))


COLOUR_TEXTS = {
    "green": (120, 255, 155),
    "Green": (120, 255, 155),
    "#0a0B10": (10, 11, 16),
    "#fff": (255, 255, 255),
    "red": (255, 0, 0),
    "DarkBlue": (0, 0, 139),
    "rgb(1, 2, 3)": (1, 2, 3),
    "beach.jpg": None,
}


@pytest.mark.parametrize(("text", "rgb"), COLOUR_TEXTS.items())
def test_colours(text: str, rgb: tuple[int, int, int] | None) -> None:
    assert parse_colour(text) == rgb


@pytest.mark.parametrize(("text", "line"), [("#12", "rrggbb"), ("#12345678", "not opaque"), ("#1234", "not opaque")])
def test_what_is_no_colour(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        parse_colour(text)


def test_comparison_layout() -> None:
    size = (32, 48)
    frame = np.full((*size, 3), 90, np.uint8)
    mattes = [Matte(np.full(size, a, np.float32), frame.astype(np.float32)) for a in (0.8, 0.7)]
    picture = comparison("W4A4")(Frame(0, frame, Fraction(0)), mattes)
    assert picture.shape == (*comparison_size(size), 3) == (52, 192, 3)
    middles = [int(picture[16, x, 1]) for x in (24, 72, 120, 168)]
    assert middles == [90, 204, 178, 102]  # the difference is amplified four times
    assert all(picture[32:, x : x + 48].max() > 128 for x in range(0, 192, 48)), "a caption below each tile"


def _shown(background: Pictures, times: list[Fraction]) -> list[float]:
    return [round(float(background.at(time, (8, 8)).mean()) / 51, 2) for time in times]


@pytest.mark.parametrize(
    ("own", "source", "shown"),
    [
        (15, Fraction(30), [1, 1, 2, 2, 3, 3, 1, 1, 2]),  # half as fast, and again from the first after the last
        (60, Fraction(30), [1, 3, 2, 1]),
        (30, Fraction(30000, 1001), [1, 2, 3, 1, 2, 3]),
        (25, Fraction(25), [1, 2, 3, 1]),
    ],
)
def test_background_pictures_play_at_their_own_speed(own: int, source: Fraction, shown: list[int]) -> None:
    begun = []

    def again() -> Iterator[Frame]:
        begun.append(0)
        for index in range(3):
            yield Frame(index, np.full((4, 16, 3), 51 * (index + 1), np.uint8), Fraction(index, own))

    times = [index / source for index in range(len(shown))]
    assert _shown(Pictures(again, Fraction(own)), times) == shown and len(begun) > 1
    rounded = [Fraction(round(time * 1000), 1000) for time in times]
    assert _shown(Pictures(again, Fraction(own)), rounded) == shown, "as a file has them that counts milliseconds"


def test_a_single_background_picture_is_read_once() -> None:
    begun = []

    def again() -> Iterator[Frame]:
        begun.append(0)
        yield Frame(0, np.full((4, 16, 3), 51, np.uint8), Fraction(0))

    still = Pictures(again, Fraction(30))
    first = still.at(Fraction(0), (8, 8))
    assert still.at(Fraction(100), (8, 8)) is first and first.shape == (8, 8, 3) and len(begun) == 1


def test_cover_crops_around_the_middle() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    assert np.array_equal(cover(wide, (4, 4)), np.full((4, 4, 3), 255))


@pytest.mark.parametrize(
    ("size", "ratio"), [((144, 176), 1), ((512, 288), 1), ((720, 1280), 0.4), ((3840, 2160), 2 / 15)]
)
def test_automatic_ratio(size: tuple[int, int], ratio: float) -> None:
    assert automatic_ratio(size) == pytest.approx(ratio)


def test_pytorch_engine_carries_states_and_resets_on_another_size() -> None:
    network = tiny_matting()
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255
    with torch.no_grad():
        foreground, alpha, _ = network.matte(clip)
    engine = PyTorchEngine(network)
    for turn in range(2):
        for index, frame in enumerate(frames):
            matte = engine.matte(frame)
            np.testing.assert_allclose(matte.alpha, alpha[0, index, 0].numpy(), atol=1e-5)
            np.testing.assert_allclose(matte.foreground, foreground[0, index].permute(1, 2, 0).numpy(), atol=1e-5)
        if turn == 0:
            engine.matte(frames[0, :8, :8])  # of another video
    assert matte.alpha.dtype == matte.foreground.dtype == np.float32
    again = engine.matte(frames[0]).alpha
    engine.reset()
    assert np.abs(again - alpha[0, 0, 0].numpy()).max() > 1e-4
    np.testing.assert_allclose(engine.matte(frames[0]).alpha, alpha[0, 0, 0].numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="downsample_ratio=2"):
        PyTorchEngine(network, 2)


@pytest.mark.parametrize("scale", [1, 20])
def test_scene_cuts(scale: int) -> None:
    rows, columns = np.mgrid[: 48 * scale, : 64 * scale] / scale

    def scene(kind: int, shift: int) -> Picture:
        wave = 100 + 80 * np.sin((columns + shift) / 9 + rows / 13)
        channels = (wave, wave / 2, 40 + 0 * wave) if kind == 0 else (20 + 0 * wave, 255 - wave / 3, 255 - wave / 2)
        return np.stack(channels, -1).astype(np.uint8)

    cuts = SceneCuts()
    kinds = [0] * 6 + [1] * 5 + [0] * 3
    found = [cuts.is_cut(scene(kind, 3 * n)) for n, kind in enumerate(kinds)]
    assert [n for n, cut in enumerate(found) if cut] == [6, 11]
