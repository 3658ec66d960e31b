from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from networks import tiny_matting
from ptq4vm.engines.base import Matte
from ptq4vm.engines.pytorch import PyTorchEngine, automatic_ratio
from ptq4vm.errors import ConfigError
from ptq4vm.media.frames import Picture, cover
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
    picture = composer(output, Colour((0, 0, 255)))(FRAME, [MATTE])
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


@pytest.mark.parametrize(("text", "rgb"), [("green", (120, 255, 155)), ("#0a0B10", (10, 11, 16)), ("beach.jpg", None)])
def test_colours(text: str, rgb: tuple[int, int, int] | None) -> None:
    assert parse_colour(text) == rgb
    with pytest.raises(ConfigError, match="rrggbb"):
        parse_colour("#12")


def test_comparison_layout() -> None:
    size = (32, 48)
    frame = np.full((*size, 3), 90, np.uint8)
    mattes = [Matte(np.full(size, a, np.float32), frame.astype(np.float32)) for a in (0.8, 0.7)]
    picture = comparison("W4A4")(frame, mattes)
    assert picture.shape == (*comparison_size(size), 3) == (52, 192, 3)
    middles = [int(picture[16, x, 1]) for x in (24, 72, 120, 168)]
    assert middles == [90, 204, 178, 102]  # the difference is amplified four times
    assert all(picture[32:, x : x + 48].max() > 128 for x in range(0, 192, 48)), "a caption below each tile"


def test_background_pictures_cover_and_begin_again() -> None:
    begun = []

    def again() -> Iterator[Picture]:
        begun.append(0)
        yield from (np.full((4, 16, 3), value, np.uint8) for value in (51, 102))

    background = Pictures(again)
    seen = [background.next((8, 8)) for _ in range(5)]
    assert [round(float(picture.mean()), 1) for picture in seen] == [0.2, 0.4, 0.2, 0.4, 0.2]
    assert len(begun) == 3 and seen[0].shape == (8, 8, 3)
    still = Pictures(again, single=True)
    assert still.next((8, 8)) is still.next((8, 8))


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


def test_scene_cuts() -> None:
    rows, columns = np.mgrid[:48, :64]

    def scene(kind: int, shift: int) -> Picture:
        wave = 100 + 80 * np.sin((columns + shift) / 9 + rows / 13)
        channels = (wave, wave / 2, 40 + 0 * wave) if kind == 0 else (20 + 0 * wave, 255 - wave / 3, 255 - wave / 2)
        return np.stack(channels, -1).astype(np.uint8)

    cuts = SceneCuts()
    kinds = [0] * 6 + [1] * 5 + [0] * 3
    found = [cuts.is_cut(scene(kind, 3 * n)) for n, kind in enumerate(kinds)]
    assert [n for n, cut in enumerate(found) if cut] == [6, 11]
