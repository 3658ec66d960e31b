from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.quant.functional import choose_qparams
from ptq4vm.quant.observers import (
    MinMaxObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
    activation_observer,
    weight_scale,
)
from ptq4vm.quant.spec import ActivationSpec, WeightSpec


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _error(values: Tensor, low: float, high: float, levels: int, centred: bool = False) -> float:
    """Squared error of the grid that covers a range, written out."""
    scale = max((high - low) / levels, 1e-8)
    zero = (levels + 1) // 2 if centred else min(max(round(-low / scale), 0), levels)
    codes = (values.double() / scale + zero).round().clamp(0, levels)
    return float(((codes - zero) * scale - values).square().mean())


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (ActivationSpec(observer="minmax"), MinMaxObserver),
        (ActivationSpec(observer="percentile"), PercentileObserver),
        (ActivationSpec(observer="mse"), MSEObserver),
    ],
)
def test_specs_name_their_observer(spec: ActivationSpec, kind: type[Observer]) -> None:
    observer = activation_observer(spec)
    assert isinstance(observer, kind)
    with pytest.raises(DataError, match="never observed"):
        observer.range()
    observer.observe(_randn(2, 3, 4, 4))
    low, high = observer.range()
    assert low <= 0 <= high


def test_minmax_is_exact_over_all_tensors_even_those_it_samples() -> None:
    observer = MinMaxObserver(per_call=10)
    tensors = [_randn(2, 4, 16, 16, seed=seed) for seed in range(3)]
    for tensor in tensors:
        observer.observe(tensor)
    together = torch.cat(tensors)
    assert observer.range() == (float(together.min()), float(together.max()))


@pytest.mark.parametrize(("values", "expected"), [([2.0, 5.0], (0.0, 5.0)), ([-3.0, -1.0], (-3.0, 0.0))])
def test_minmax_always_contains_zero(values: list[float], expected: tuple[float, float]) -> None:
    observer = MinMaxObserver()
    observer.observe(torch.tensor(values))
    assert observer.range() == expected


def test_percentile_leaves_outliers_out() -> None:
    observer = PercentileObserver(0.9)
    observer.observe(torch.cat([torch.linspace(-1, 1, 1001), torch.tensor([100.0])]))
    low, high = observer.range()
    assert low == pytest.approx(-0.9, abs=0.01) and high == pytest.approx(0.9, abs=0.01)
    full = PercentileObserver(1.0)
    full.observe(torch.tensor([-1.0, 4.0]))
    assert full.range() == (-1.0, 4.0)


def test_sampling_is_seeded() -> None:
    tensor = _randn(100_000)
    ranges = []
    for seed in (0, 0, 1):
        observer = PercentileObserver(0.99, per_call=500, seed=seed)
        observer.observe(tensor)
        ranges.append(observer.range())
    assert ranges[0] == ranges[1] != ranges[2]


@settings(deadline=None, max_examples=150)
@example(values=[36.0, 50.0, 5.5, 11.25, 31.25, 38.375, -24.5], bits=6, symmetric=False)
@example(values=[17.0, -1.0], bits=3, symmetric=True)
@given(
    values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
)
def test_mse_is_never_worse_than_minmax(values: list[float], bits: int, symmetric: bool) -> None:
    tensor, levels = torch.tensor(values), 2**bits - 1
    observer = MSEObserver(levels, symmetric)
    observer.observe(tensor)
    low, high = observer.range()
    widest = (min(0.0, float(tensor.min())), max(0.0, float(tensor.max())))
    centred = symmetric and widest[0] < 0
    if centred:
        reach = max(-widest[0], widest[1])
        widest = (-reach, reach)
        assert low == -high
    assert widest[0] <= low <= 0 <= high <= widest[1]
    allowed = _error(tensor, *widest, levels, centred) * (1 + 1e-4) + 1e-7
    assert _error(tensor, low, high, levels, centred) <= allowed


def test_mse_cuts_a_far_outlier_at_low_bits_and_minmax_does_not() -> None:
    tensor = torch.cat([_randn(5000), torch.tensor([40.0])])
    observer = MSEObserver(15)
    observer.observe(tensor)
    low, high = observer.range()
    assert high < 20
    assert _error(tensor, low, high, 15) < 0.6 * _error(tensor, float(tensor.min()), 40.0, 15)


@settings(deadline=None, max_examples=60)
@given(low=st.floats(-100, 0), high=st.floats(0, 100), bits=st.integers(2, 8))
def test_affine_grid_covers_the_range_to_half_a_step(low: float, high: float, bits: int) -> None:
    levels = 2**bits - 1
    scale, zero = choose_qparams(torch.tensor(low), torch.tensor(high), 0, levels)
    assert scale > 0 and zero == zero.round() and 0 <= zero <= levels
    assert float(-zero * scale) <= low + float(scale) / 2 + 1e-4
    assert float((levels - zero) * scale) >= high - float(scale) / 2 - 1e-4


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_scale_by_mse_is_never_worse_and_low_bits_gain(granularity: str, bits: int) -> None:
    weight = _randn(6, 5, 3, 3) * torch.linspace(0.1, 3, 6).view(-1, 1, 1, 1)
    errors = {}
    for observer in ("minmax", "mse"):
        spec = WeightSpec(bits, granularity, observer)
        scale = weight_scale(weight, spec).view(-1, 1, 1, 1)
        assert scale.numel() == (6 if granularity == "channel" else 1) and bool((scale > 0).all())
        codes = (weight / scale).round().clamp(*spec.code_range)
        errors[observer] = (codes * scale - weight).square().sum((1, 2, 3))
    if granularity == "channel":
        assert bool((errors["mse"] <= errors["minmax"] + 1e-6).all())
    assert errors["mse"].sum() <= errors["minmax"].sum()
    if bits == 2:
        assert errors["mse"].sum() < 0.9 * errors["minmax"].sum()


def test_weight_scale_by_minmax_clips_nothing() -> None:
    weight = torch.tensor([[-8.0, 1.0], [7.0, -1.0], [0.0, 0.0]])
    scale = weight_scale(weight, WeightSpec(4, "channel", "minmax"))
    assert scale[:2].tolist() == [1.0, 1.0] and scale[2] > 0  # -8 and 7 are the ends of the 4-bit grid
