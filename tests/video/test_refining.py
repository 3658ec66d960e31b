"""One subject kept, flicker taken out, colours freed: with mattes made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from commands import Workplace
from deploy_media import BrightEngine, decode, encode
from ptq4vm.api.wishes import Wishes
from ptq4vm.engines.base import Matte
from ptq4vm.engines.enlarging import Enlarger, GuidedMatte
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.video.colours import Decontamination
from ptq4vm.video.refining import RefinedEngine, Refiner
from ptq4vm.video.smoothing import Smoothing
from ptq4vm.video.subject import Subject

SIZE = (60, 100)


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A disc of alpha 1 with a soft rim."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.clip(radius - np.hypot(rows - y, columns - x) + 0.5, 0, 1).astype(np.float32)


def refined(refiner: Refiner, alpha: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
    image = np.zeros((*alpha.shape, 3), np.uint8) if frame is None else frame
    return refiner.refine(image, Matte(alpha, np.zeros((*alpha.shape, 3), np.float32))).alpha


@pytest.mark.parametrize("where", [(0.25, 0.5), disc(25, 30, 5)], ids=["point", "mask"])
def test_a_subject_is_followed_past_another(where: Any) -> None:
    refiner = Subject(where)
    for step in range(12):  # it walks; the other stays, and its hair is apart from it
        own = np.maximum(disc(25 + step, 30, 9), disc(25 + step, 19, 1))
        other = disc(80, 30, 9)
        np.testing.assert_array_equal(refined(refiner, np.maximum(own, other)), own)
    np.testing.assert_array_equal(refined(refiner, disc(80, 30, 9)), 0)
    np.testing.assert_array_equal(refined(refiner, own), own), "it is waited for"


def test_who_comes_close_is_not_taken_for_the_subject() -> None:
    refiner = Subject((0.25, 0.5))
    own = disc(25, 30, 9)
    for x in range(70, 45, -1):
        other = disc(x, 30, 9)
        np.testing.assert_array_equal(refined(refiner, np.maximum(own, other)), own)


def test_a_subject_begins_anew_with_a_scene_and_says_what_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    refiner = Subject((0.25, 0.5))
    moved = disc(60, 30, 9)
    assert not refined(refiner, moved).any() and "no foreground is seen where the subject shall be" in caplog.text
    caplog.clear()
    assert not refined(refiner, moved).any() and not caplog.text, "said once"
    refiner.reset()
    np.testing.assert_array_equal(refined(refiner, disc(25, 30, 9)), disc(25, 30, 9))


def textured(shift: float) -> np.ndarray:
    """A smooth pattern that moves right."""
    rows, columns = np.mgrid[:72, :128]
    grey = 128 + 60 * np.sin((columns - shift) / 5) + 40 * np.cos(rows / 4 + (columns - shift) / 9)
    return np.repeat(grey[..., None], 3, 2).clip(0, 255).astype(np.uint8)


def test_smoothing_takes_flicker_out_of_what_moves() -> None:
    generator, refiner = np.random.default_rng(0), Smoothing(0.5)
    before, after = [], []
    for step in range(10):
        true = disc(40 + 2 * step, 36, 20, (72, 128)) * 0.8 + 0.1
        noisy = np.clip(true + generator.normal(0, 0.05, true.shape), 0, 1).astype(np.float32)
        found = refined(refiner, noisy, textured(2 * step))
        if step > 3:
            before.append(np.abs(noisy - true).mean())
            after.append(np.abs(found - true).mean())
    assert np.mean(after) < 0.8 * np.mean(before)


def test_smoothing_leaves_what_is_certain_and_what_is_new() -> None:
    refiner = Smoothing(0.9)
    refined(refiner, np.full((72, 128), 0.5, np.float32), textured(0))
    certain = disc(40, 36, 20, (72, 128)).round()
    np.testing.assert_array_equal(refined(refiner, certain, textured(0)), certain)
    refined(refiner, np.full((72, 128), 0.2, np.float32), np.full((72, 128, 3), 250, np.uint8))
    new = np.full((72, 128), 0.6, np.float32)
    np.testing.assert_array_equal(refined(refiner, new, np.zeros((72, 128, 3), np.uint8)), new)
    refiner.reset()
    np.testing.assert_array_equal(refined(refiner, new, np.zeros((72, 128, 3), np.uint8)), new)


def test_colours_at_the_rim_are_freed_of_a_green_screen() -> None:
    alpha = cv2.GaussianBlur(disc(160, 120, 70, (240, 320)), (0, 0), 4)
    skin, green = np.array([200, 150, 120], np.float32), np.array([0, 177, 64], np.float32)
    frame = np.rint(alpha[..., None] * skin + (1 - alpha[..., None]) * green).astype(np.uint8)
    found = Decontamination().refine(frame, Matte(alpha, np.divide(frame, 255, dtype=np.float32)))
    rim = (alpha > 0.1) & (alpha < 0.95)
    assert np.abs(found.foreground[rim] * 255 - skin).mean() < np.abs(frame[rim] - skin).mean() / 2.5
    opaque = alpha > 0.999
    np.testing.assert_allclose(found.foreground[opaque] * 255, frame[opaque], atol=1)
    assert found.alpha is alpha and found.foreground.dtype == np.float32


class Small(BrightEngine):
    """Gives half-size mattes that are enlarged later."""

    def deferred(self, frame: Any) -> Any:
        small = np.ascontiguousarray(frame[::2, ::2])
        return GuidedMatte(Enlarger(1), frame, small, super().matte(small))


def test_refiners_work_on_the_small_matte() -> None:
    sizes: list[tuple[int, ...]] = []

    class Half(Refiner):
        def refine(self, frame: Any, matte: Matte) -> Matte:
            sizes.append(frame.shape[:2])
            return matte._replace(alpha=matte.alpha * np.float32(0.5))

        def reset(self) -> None:
            sizes.append(())

    frame = np.zeros((64, 96, 3), np.uint8)
    frame[10:50, 20:70] = 240
    engine, plain = RefinedEngine(Small(), [Half()]), Small()
    engine.reset()
    whole = engine.matte(frame)
    assert sizes == [(), (32, 48)] and whole.alpha.shape == (64, 96)
    np.testing.assert_allclose(whole.alpha, plain.deferred(frame).alpha / 2, atol=2e-2)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: Wishes(smooth=1.0), "smooth=1 is out of range"),
        (lambda path: Wishes(subject="0.5,0.5", mask=path), "give one"),
        (lambda path: Wishes(subject="0.5").refiners(SIZE), "subject=0.5 is no place in a frame of 100x60"),
        (lambda path: Wishes(subject="100,20").refiners(SIZE), "subject=100,20 is no place"),
        (lambda path: Wishes(subject="nan,0").refiners(SIZE), "subject=nan,0 is no place"),
        (lambda path: Wishes(mask=path / "none.png").refiners(SIZE), r"none\.png"),
        (lambda path: Wishes(mask=path / "black.png").refiners(SIZE), "shows nobody"),
    ],
)
def test_wishes_that_cannot_be(tmp_path: Path, make: Callable[[Path], Any], line: str) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "black.png")
    with pytest.raises((ConfigError, DataError), match=line):
        make(tmp_path)


def test_points_are_pixels_or_shares() -> None:
    shares, pixels = (Wishes(subject=text).refiners(SIZE)[0] for text in ("0.25,0.5", "25,30"))
    both = np.maximum(disc(25, 30, 9), disc(80, 30, 9))
    np.testing.assert_array_equal(refined(shares, both), refined(pixels, both))


def test_the_command_grants_them(workplace: Workplace, tmp_path: Path) -> None:
    film, out = encode(tmp_path / "in.mp4", count=3), tmp_path / "out.mp4"
    wishes = ("subject=0.5,0.5", "smooth=0.3", "decontaminate=true", "every=2")
    done = workplace.run("matte", f"input={film}", f"out={out}", f"weights={workplace.weights}", *wishes)
    assert done.status == 0 and len(decode(out)[0]) == 3, done.err
    done = workplace.run("matte", f"input={film}", f"out={tmp_path / 'b.mp4'}", "subject=x")
    assert "subject=x is no place" in done.line()
