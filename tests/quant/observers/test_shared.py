from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.quant.functional import choose_qparams
from ptq4vm.quant.observers.mse import MSEObserver, weight_of_clipping
from ptq4vm.quant.observers.shared import SharedZeroObserver
from ptq4vm.quant.spec import ActivationSpec


def _groups(*offsets_and_scales: tuple[float, float]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [offset + scale * torch.rand(500, generator=generator) for offset, scale in offsets_and_scales]


def _observer(parts: list[Tensor], levels: int, affine: bool = True) -> SharedZeroObserver:
    observer = SharedZeroObserver(len(parts), levels, affine)
    observer.observe(parts)
    return observer


def test_groups_with_zero_points_of_their_own_are_no_worse_one_by_one() -> None:
    parts = _groups((-1.0, 1.0), (-0.1, 1.0), (-5.0, 10.0), (0.0, 3.0))
    own = SharedZeroObserver(len(parts), 15, own_zeros=True)
    own.observe(parts)
    shared = _observer(parts, 15)
    alone = [SharedZeroObserver(1, 15) for _ in parts]
    for observer, part in zip(alone, parts, strict=True):
        observer.observe([part])
    errors = [_error(parts, found, 15) for found in (own.ranges(), shared.ranges())]
    assert [a < 0.5 * b for a, b in zip(*errors, strict=True)] == [True, True, False, True], "the third had its way"
    assert errors[0][2] <= 1.05 * errors[1][2]
    widths = [[high - low for low, high in found] for found in (own.ranges(), [o.ranges()[0] for o in alone])]
    assert widths[0] == pytest.approx(widths[1], rel=0.1), "each as if it were alone"


def _error(parts: list[Tensor], ranges: list[tuple[float, float]], levels: int) -> list[float]:
    errors = []
    for part, (low, high) in zip(parts, ranges, strict=True):
        scale, zero = choose_qparams(torch.tensor(low), torch.tensor(high), 0, levels)
        codes = (part / scale + zero).round().clamp(0, levels)
        errors.append(float(((codes - zero) * scale - part).square().mean()))
    return errors


@pytest.mark.parametrize("levels", [3, 15, 255])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("offsets", [(0.0, 0.0), (-0.3, 0.0), (-0.5, -1.0)])
def test_all_groups_get_one_zero_point(levels: int, affine: bool, offsets: tuple[float, float]) -> None:
    parts = _groups((offsets[0], 1.0), (offsets[1] * 10, 10.0))
    ranges = _observer(parts, levels, affine).ranges()
    lows, highs = (torch.tensor(ends) for ends in zip(*ranges, strict=True))
    _, zero = choose_qparams(lows, highs, 0, levels)
    assert zero[0] == zero[1]
    if min(offsets) == 0:
        assert zero[0] == 0
    elif not affine:
        assert zero[0] == (levels + 1) // 2


def test_every_group_keeps_its_own_resolution() -> None:
    parts = _groups((0, 0.01), (0, 1.0), (0, 100.0))
    own = _error(parts, _observer(parts, 15).ranges(), 15)
    assert all(error < float(part.square().mean()) * 0.01 for error, part in zip(own, parts, strict=True))
    widest = [(0.0, 100.0)] * 3
    assert own[0] < 0.01 * _error(parts, widest, 15)[0]


def test_a_group_of_zeros_does_no_harm() -> None:
    parts = [torch.zeros(50), *_groups((-0.5, 1.0))]
    ranges = _observer(parts, 15).ranges()
    assert all(low <= 0 <= high for low, high in ranges)
    assert _error(parts, ranges, 15)[1] < 0.01


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(DataError, match="never observed"):
        SharedZeroObserver(2, 15).ranges()


def _with_outliers(count: int, outliers: int) -> Tensor:
    """Values in [0, 1], and a few at 8."""
    values = torch.rand(count, generator=torch.Generator().manual_seed(1))
    values[torch.randperm(count, generator=torch.Generator().manual_seed(2))[:outliers]] = 8.0
    return values


@pytest.mark.parametrize(
    ("granularity", "bits", "reached"), [("channel", 4, False), ("channel", 8, True), ("tensor", 8, False)]
)
def test_many_codes_of_a_channel_reach_to_what_is_rare(granularity: str, bits: int, reached: bool) -> None:
    observer = MSEObserver.joint(ActivationSpec(bits, granularity=granularity), 1, 0, False)
    assert observer is not None
    for _ in range(20):
        observer.observe([_with_outliers(20000, 1)])
    assert (observer.ranges()[0][1] > 7) == reached, "one value in twenty thousand, which few samples show"


def test_what_is_looked_at_stands_for_all() -> None:
    observer = SharedZeroObserver(2, 255, limit=1000, per_call=500, clipped=16)
    parts = [torch.randn(4000, generator=torch.Generator().manual_seed(s)) * s for s in (1, 3)]
    for part in (0, 1):
        for _ in range(20 if part else 40):  # one is seen twice as often
            observer.observe([parts[part]], part)
    values, shares = observer._values()
    assert values.shape == (2, 1000) and shares is not None
    assert float(shares.sum()) == pytest.approx(1, abs=1e-5)
    assert [(float(v.min()), float(v.max())) for v in values] == [(float(p.min()), float(p.max())) for p in parts]
    found, expected = (values.square() @ shares), torch.stack(parts).square().mean(1)
    assert torch.allclose(found, expected, rtol=0.05)


@pytest.mark.parametrize(("bits", "weight"), [(2, 1), (4, 1), (5, 2), (6, 4), (8, 16)])
def test_weight_of_clipping(bits: int, weight: float) -> None:
    assert weight_of_clipping(2**bits - 1) == weight
