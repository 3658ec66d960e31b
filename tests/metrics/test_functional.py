"""Every metric as a function: reference values, an independent oracle, properties, and what is refused."""

from __future__ import annotations

from pathlib import Path

import metric_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq4vm.errors import ConfigError, DataError
from ptq4vm.metrics import functional as F
from ptq4vm.metrics.functional.structure import _levels, connected_levels

GOLDEN = Path(__file__).parents[1] / "fixtures" / "metrics_golden.npz"
FUNCTIONS = {
    "mad": F.mean_absolute_difference,
    "mse": F.mean_squared_error,
    "grad": F.gradient_error,
    "conn": F.connectivity_error,
    "dtssd": F.dtssd_error,
}
FORMS = ["uint8", "float", "mixed"]


def smooth_clip(seed: int, frames: int = 3, size: tuple[int, int] = (24, 31)) -> torch.Tensor:
    """Blobs with soft edges, uint8 ``(T, 1, H, W)``."""
    noise = np.random.default_rng(seed).random((frames, *size))
    blurred = oracle.ndimage.gaussian_filter(noise, (0, 2.5, 2.5))
    soft = np.clip((blurred - blurred.mean()) * 12 + 0.5, 0, 1)
    return torch.from_numpy(np.rint(soft * 255).astype(np.uint8))[:, None]


def in_form(pred: torch.Tensor, true: torch.Tensor, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    if form == "uint8":
        return pred, true
    return pred.float() / 255, true.float() / 255 if form == "float" else true


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as stored:
        return {name: torch.from_numpy(stored[name]) for name in ("pred_u8", "true_u8", "per_frame")} | {
            "columns": [str(name) for name in stored["columns"]]
        }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_agrees_with_the_reference_in_every_frame(golden, name, form):
    pred, true = in_form(golden["pred_u8"][:, None], golden["true_u8"][:, None], form)
    expected = golden["per_frame"][:, golden["columns"].index(name)]
    torch.testing.assert_close(FUNCTIONS[name](pred, true, reduction="none"), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(F.frame_metrics(pred, true)[name], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_agrees_with_the_oracle(name, seed, form):
    pred, true = smooth_clip(seed), smooth_clip(seed + 100)
    expected = oracle.clip(pred[:, 0].numpy() / np.float32(255), true[:, 0].numpy() / np.float32(255))[name]
    result = FUNCTIONS[name](*in_form(pred, true, form), reduction="none")
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.7, 1.4, 3.0])
def test_gradient_magnitude_agrees_with_the_oracle(sigma):
    image = smooth_clip(5, frames=1)[0, 0].numpy()
    expected = oracle.gradient(image / 255.0, sigma)
    np.testing.assert_allclose(F.gradient_magnitude(image, sigma), expected, atol=2e-6)
    np.testing.assert_allclose(F.gradient_magnitude((image / 255).astype(np.float32), sigma), expected, atol=2e-6)
    assert not F.gradient_magnitude(np.full((9, 9), 7, np.uint8), sigma).any()


def test_gradient_error_does_not_depend_on_where_arrays_lie_in_memory():
    pred, true = smooth_clip(1).float() / 255, smooth_clip(2)
    padded = [torch.empty(pred.numel() + 64)[i : i + pred.numel()].view_as(pred).copy_(pred) for i in range(0, 24, 3)]
    assert len({F.gradient_error(p, true).item() for p in padded}) == 1


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 10)),
    st.sampled_from([0, 3, 7, 9]),
)
@settings(max_examples=300, deadline=None)
def test_connected_levels_agree_with_labelling_every_threshold(levels, base):
    levels = np.maximum(levels, base) if base else levels  # a base makes large bodies with pits and towers
    np.testing.assert_array_equal(connected_levels(levels), oracle.connected_levels(levels))


def test_connected_levels_when_the_largest_component_is_elsewhere_above():
    levels = np.zeros((5, 12), np.uint8)
    levels[:, :6], levels[1:4, 7:] = 4, 9  # the left body is larger up to 4, the right one alone above
    levels[0, 0] = 10  # and the very top is in neither body's core
    np.testing.assert_array_equal(connected_levels(levels), oracle.connected_levels(levels))
    assert connected_levels(levels).max() == 4


def test_levels_count_the_thresholds_reached_even_next_to_them():
    values = [np.float32(0), np.float32(1)]
    for threshold in np.arange(1, 11, dtype=np.float32) / np.float32(10):
        value = threshold
        for _ in range(6):
            value = np.nextafter(value, np.float32(0))
        for _ in range(13):
            values.append(min(value, np.float32(1)))
            value = np.nextafter(value, np.float32(2))
    alpha = np.array(values, np.float32)[None]
    thresholds = np.arange(1, 11, dtype=np.float32) / np.float32(10)
    np.testing.assert_array_equal(_levels(alpha), (alpha[..., None] >= thresholds).sum(-1))
    every_byte = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(_levels(every_byte), [[10 * int(b) // 255 for b in range(256)]])


alphas = hnp.arrays(np.uint8, (3, 1, 9, 7)).map(torch.from_numpy)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(alphas)
@settings(max_examples=20, deadline=None)
def test_perfect_prediction_scores_zero(name, alpha):
    assert FUNCTIONS[name](alpha, alpha.clone()).item() == 0
    assert FUNCTIONS[name](alpha.float() / 255, alpha).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(alphas, alphas)
@settings(max_examples=20, deadline=None)
def test_symmetric_and_in_range(name, a, b):
    forth, back = FUNCTIONS[name](a, b).item(), FUNCTIONS[name](b, a).item()
    assert forth == pytest.approx(back, rel=1e-9)
    assert 0 <= forth <= {"mad": 1000, "mse": 1000, "dtssd": 200, "conn": 0.063}.get(name, np.inf) * (1 + 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_batch_of_clips_equals_clip_by_clip(name):
    pred = torch.stack([smooth_clip(s) for s in (1, 2)])
    true = torch.stack([smooth_clip(s) for s in (3, 4)])
    function = FUNCTIONS[name]
    each = torch.stack([function(p, t, reduction="none") for p, t in zip(pred, true, strict=True)])
    assert each.shape == (2, 3)
    torch.testing.assert_close(function(pred, true, reduction="none"), each)
    torch.testing.assert_close(function(pred, true), each.mean())
    torch.testing.assert_close(function(pred, true, reduction="sum"), each.sum())


@given(st.integers(1, 5))
@settings(deadline=None, max_examples=5)
def test_dtssd_in_chunks_equals_the_whole(cut):
    pred, true = smooth_clip(1, frames=6), smooth_clip(2, frames=6)
    head = F.dtssd_error(pred[:cut], true[:cut], reduction="none")
    previous = F.last_frames(pred[:cut], true[:cut])
    tail = F.dtssd_error(pred[cut:], true[cut:], previous, reduction="none")
    torch.testing.assert_close(torch.cat([head, tail]), F.dtssd_error(pred, true, reduction="none"))


def test_sad_is_mad_times_pixels():
    pred, true = smooth_clip(1), smooth_clip(2)
    sad, mad = F.sum_absolute_difference(pred, true), F.mean_absolute_difference(pred, true)
    torch.testing.assert_close(sad, mad * (24 * 31) / 1e6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("pred", "true", "words"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5), "same shape"),
        (torch.zeros(4, 4), torch.zeros(4, 4), r"\(T, 1, H, W\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), r"\(T, 1, H, W\)"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), r"\(T, 1, H, W\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), torch.zeros(2, 1, 4, 4), "predicted alpha is torch.int64"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 255.0), r"true alpha spans \[255, 255\]"),
        (torch.full((2, 1, 4, 4), torch.nan), torch.zeros(2, 1, 4, 4), "finite"),
    ],
)
def test_refuses_bad_input_in_one_line(name, pred, true, words):
    with pytest.raises(DataError, match=words) as caught:
        FUNCTIONS[name](pred, true)
    assert "\n" not in str(caught.value)


def test_refuses_bad_options():
    alpha = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ConfigError, match="median"):
        F.mean_absolute_difference(alpha, alpha, reduction="median")
    with pytest.raises(ConfigError, match="sigma"):
        F.gradient_error(alpha, alpha, sigma=0)
    with pytest.raises(DataError, match="reset at the start"):
        F.dtssd_error(alpha, alpha, (torch.zeros(1, 5, 5), torch.zeros(1, 5, 5)))
