"""Files of one size matte frames of every size: the filter is RVM's, and aspect, order and edges are kept."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from ptq4vm.engines import enlarging
from ptq4vm.engines.anysize import AnySizeEngine, fitting
from ptq4vm.engines.base import Matte
from ptq4vm.engines.enlarging import Enlarger, GuidedMatte, fit
from ptq4vm.engines.step import Port, StepEngine
from ptq4vm.media.frames import Frame, Look
from ptq4vm.media.yuv import weights_of
from ptq4vm.models.rvm.refiner import FastGuidedFilterRefiner
from ptq4vm.video.composing import Colour, Pictures, composer

OWN = (36, 64)


def scene(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A bright ellipse on a gradient, and its alpha."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    inside = ((rows / size[0] - 0.55) / 0.4) ** 2 + ((columns / size[1] - 0.45) / 0.25) ** 2
    alpha = np.clip((1.1 - inside) * 5, 0, 1).astype(np.float32)
    behind = np.dstack([80 * rows / size[0], 60 * columns / size[1], np.full(size, 40)])
    frame = alpha[..., None] * (210, 170, 120) + (1 - alpha[..., None]) * behind
    return frame.round().astype(np.uint8), alpha


class Bright(StepEngine):
    """Takes frames of :data:`OWN` alone; alpha is how bright a pixel is, the foreground a little darker."""

    def __init__(self) -> None:
        super().__init__("a.onnx", [Port("src", (1, 3, *OWN))], ["fgr", "pha"], {})
        self.resets, self.seen = 0, []

    def reset(self) -> None:
        super().reset()
        self.resets += 1

    def _run(self, inputs: Any) -> Any:
        src = inputs["src"]
        self.seen.append(src)
        return {"pha": np.clip(src[:, :1] * 1.6 - 0.3, 0, 1), "fgr": src * np.float32(0.9)}


@pytest.fixture(params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(enlarging, "_kernels", lambda: None)
    return str(request.param)


@pytest.mark.parametrize("size", [(72, 128), (135, 241), (37, 64)])
def test_it_is_the_fast_guided_filter(way: str, size: tuple[int, int]) -> None:
    frame, _ = scene(size)
    codes = np.asarray(cv2.resize(frame, OWN[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    small = codes / np.float32(255)
    generator = np.random.default_rng(0)
    matte = Matte(*(generator.random((*OWN, *more), np.float32) for more in ((), (3,))))
    found = Enlarger(2).matte(frame, fit(codes, matte))
    tensors = [torch.from_numpy(np.array(each, np.float32)).permute(2, 0, 1)[None] for each in (
        frame / np.float32(255), small, matte.foreground - small, matte.alpha[..., None])]  # fmt: skip
    residual, alpha = FastGuidedFilterRefiner()(*tensors, torch.zeros(1, 16, *OWN))
    foreground = (tensors[0] + residual).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(found.alpha - alpha.clamp(0, 1)[0, 0].numpy()).max() < 1 / 255
    assert np.abs(found.foreground - foreground).max() < 1 / 255
    assert found.alpha.dtype == found.foreground.dtype == np.float32


@given(st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=50)
def test_enlarging_is_torchs_bilinear(large: int, small: int) -> None:
    values = np.random.default_rng(small).random(small).astype(np.float32)
    first, second, share = enlarging._places(large, small)
    expected = F.interpolate(torch.from_numpy(values)[None, None], large, mode="linear", align_corners=False)[0, 0]
    assert np.allclose(values[first] * (1 - share) + values[second] * share, expected, atol=1e-5)


def covered(large: int, small: int) -> NDArray[np.float64]:
    """``(small, large)``: the share of each small pixel that each large one covers."""
    edges, pixels = np.arange(small + 1) * large / small, np.arange(large)
    begins, ends = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    return np.clip(ends - begins, 0, None) * small / large


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=50, deadline=None)
def test_shrinking_gives_the_means_of_what_is_covered(a: int, b: int, c: int, d: int, compiled: bool) -> None:
    (rows, height), (columns, width) = sorted((a, b)), sorted((c, d))
    frame = np.random.default_rng(a).integers(0, 256, (height, width, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(enlarging, "_kernels", lambda: None)
        found = Enlarger(2).shrunk(frame, (rows, columns))
    expected = np.einsum("yj,xi,jik->yxk", covered(height, rows), covered(width, columns), frame)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() < 0.501


@pytest.mark.parametrize("size", [(72, 128), (144, 64), (40, 200), (18, 32), (9, 40), (36, 50), (1080, 1920)])
def test_frames_of_every_size(way: str, size: tuple[int, int]) -> None:
    if way == "numpy" and size[0] > 1000:
        pytest.skip("seconds")
    frame, alpha = scene(size)
    engine = Bright()
    found = AnySizeEngine(engine, 2).matte(frame)
    assert found.alpha.shape == size and found.foreground.shape == (*size, 3)
    assert engine.seen[0].shape == (1, 3, *OWN)
    expected = np.clip(frame[..., 0] / 255 * 1.6 - 0.3, 0, 1)
    assert np.abs(found.alpha - expected).mean() < 0.05, "nothing is stretched or moved"
    assert found.alpha[alpha == 1].mean() > 0.6 and found.alpha[alpha == 0].mean() < 0.1


def test_a_frame_of_the_files_own_size_goes_through(way: str) -> None:
    frame, _ = scene(OWN)
    plain, wrapped = Bright().matte(frame), AnySizeEngine(Bright()).matte(frame)
    assert np.array_equal(plain.alpha, wrapped.alpha) and np.array_equal(plain.foreground, wrapped.foreground)


def test_another_size_begins_another_video() -> None:
    inner = Bright()
    engine = AnySizeEngine(inner, 1)
    for size in ((72, 128), (72, 128), (144, 64)):
        engine.matte(scene(size)[0])
    assert inner.resets == 3, "of the file itself, and of the two sizes"
    engine.reset()
    assert inner.resets == 4


@pytest.mark.parametrize("output", ["composite", "alpha", "rgba", "foreground"])
@pytest.mark.parametrize("behind", ["colour", "picture"])
@pytest.mark.parametrize("size", [(72, 128), (135, 241), (37, 64), (1, 130), (200, 1)])
def test_pictures_are_made_at_once_as_from_the_matte(way: str, output: str, behind: str, size: tuple[int, int]) -> None:
    frame, _ = scene(size)
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    background: Any = Colour((120, 255, 155)) if behind == "colour" else Pictures(
        lambda: iter([Frame(0, picture, Fraction(0))]), Fraction(1))  # fmt: skip
    guided = AnySizeEngine(Bright(), 2).deferred(frame)
    if size in ((1, 130), (200, 1)):
        assert isinstance(guided, Matte | GuidedMatte)
    else:
        assert isinstance(guided, GuidedMatte)
        made = guided.picture(output, background.at(Fraction(0), size))
        assert (made is None) == (way == "numpy" or output == "foreground")
    compose = composer(output, background)
    whole = guided.whole if isinstance(guided, GuidedMatte) else guided
    found, expected = (compose(Frame(0, frame, Fraction(0)), [matte]) for matte in (guided, whole))
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.uint8
    difference = np.abs(found.astype(int) - expected)
    if output in ("rgba", "foreground"):  # where alpha is next to nothing, colours may be black or not
        difference = difference[np.broadcast_to((whole.alpha > 1e-6)[..., None], difference.shape)]
    assert difference.max(initial=0) <= 1
    assert difference.sum() <= 0.02 * difference.size


@pytest.mark.parametrize("look", [Look(1, 1), Look(5, 2)])
@pytest.mark.parametrize("output", ["composite", "alpha"])
@pytest.mark.parametrize("behind", ["colour", "picture"])
@pytest.mark.parametrize("size", [(72, 128), (136, 242), (38, 130)])
def test_pictures_in_yuv_are_those_in_colours(output: str, behind: str, size: tuple[int, int], look: Look) -> None:
    pytest.importorskip("numba")
    frame, _ = scene(size)
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    back = picture if behind == "picture" else np.array([[[120, 255, 155]]], np.uint8)
    weights = weights_of(look)
    guided = AnySizeEngine(Bright(), 2).deferred(frame)
    assert isinstance(guided, GuidedMatte) and weights is not None
    made = guided.picture(output, back, weights)
    alpha, colours = guided.alpha[..., None], 255 * guided.foreground
    exact = 255 * alpha.repeat(3, 2) if output == "alpha" else colours * alpha + (1 - alpha) * back
    planes = np.dstack([exact, np.ones(size)]) @ weights.T
    quarters = planes[..., 1:].reshape(size[0] // 2, 2, size[1] // 2, 2, 2).mean((1, 3))
    expected = np.concatenate([planes[..., 0].ravel(), quarters[..., 0].ravel(), quarters[..., 1].ravel()])
    assert made is not None and made.shape == (3 * size[0] // 2, size[1]) and made.dtype == np.uint8
    assert np.abs(made.ravel() - expected).max() < 0.51


@pytest.mark.parametrize(("output", "size"), [("composite", (135, 242)), ("alpha", (72, 129)), ("rgba", (72, 128))])
def test_what_yuv_does_not_hold_is_made_in_colours(output: str, size: tuple[int, int]) -> None:
    pytest.importorskip("numba")
    guided = AnySizeEngine(Bright(), 2).deferred(scene(size)[0])
    assert isinstance(guided, GuidedMatte)
    made = guided.picture(output, np.zeros((1, 1, 3), np.uint8), weights_of(Look(1)))
    assert made is not None and made.shape == (*size, 4 if output == "rgba" else 3)


def test_what_is_done_ahead_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk: list[int] = []
    own = Enlarger._shrink
    monkeypatch.setattr(Enlarger, "_shrink", lambda self, frame, size: (shrunk.append(1), own(self, frame, size))[1])
    frames = [scene((72, 128))[0] + np.uint8(n) for n in range(12)]
    plain, ahead = AnySizeEngine(Bright(), 1), AnySizeEngine(Bright(), 1)
    expected = [plain.matte(frame) for frame in frames]
    shrunk.clear()
    ahead.prepare(frames[0])
    assert not shrunk, "it is not known yet which size there will be"
    found = [ahead.matte(frames[0])]
    for frame in frames[1:5]:
        ahead.prepare(frame)
    found += [ahead.matte(frame) for frame in frames[1:3]]
    found += [ahead.matte(frames[4])]  # one is left out
    assert len(shrunk) == 5
    found += [ahead.matte(frame) for frame in frames[5:]]
    assert len(shrunk) == 12, "what is not done ahead is done then"
    for one, other in zip(found, [*expected[:3], *expected[4:]], strict=True):
        assert np.array_equal(one.alpha, other.alpha) and np.array_equal(one.foreground, other.foreground)


def test_frames_that_nobody_asks_for_do_not_pile_up() -> None:
    enlarger = Enlarger(1)
    for n in range(50):
        enlarger.shrink_ahead(np.full((8, 8, 3), n, np.uint8), (4, 4))
    assert len(enlarger._ahead) == enlarging._AHEAD
    assert enlarger.shrunk(np.full((8, 8, 3), 49, np.uint8), (4, 4))[0, 0, 0] == 49, "another array is another frame"


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_what_is_fitted_keeps_its_aspect(size: tuple[int, int]) -> None:
    height, width = fitting(size, OWN)
    assert 1 <= height <= OWN[0] and 1 <= width <= OWN[1] and (height == OWN[0] or width == OWN[1])
    assert abs(height * size[1] - width * size[0]) <= max(size[0], size[1]) or min(height, width) == 1


def test_beside_a_portrait_the_picture_goes_on_and_above_a_wide_one_its_edge() -> None:
    engine = Bright()
    frame = np.random.default_rng(0).integers(0, 256, (288, 96, 3)).astype(np.uint8)
    AnySizeEngine(engine, 1).matte(frame)
    seen = engine.seen[0][0]
    inner = fitting((288, 96), OWN)
    left = (OWN[1] - inner[1]) // 2
    assert inner[0] == OWN[0]
    assert np.array_equal(seen[..., left - inner[1] : left], seen[..., left : left + inner[1]])
    AnySizeEngine(engine, 1).matte(np.ascontiguousarray(frame.transpose(1, 0, 2)))
    wide = engine.seen[1][0]
    assert np.array_equal(wide[:, 0], wide[:, 1])
    assert np.array_equal(wide[:, -1], wide[:, -2])
