"""HTDQ: its levels by the formula, its rounding by brute force, its grid as engines have it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptq4vm.errors import ConfigError
from ptq4vm.quant.quantizers.base import SiteRanges
from ptq4vm.quant.quantizers.htdq import HTDQuantizer, log_levels, nearest_levels
from ptq4vm.quant.quantizers.uniform import UniformQuantizer
from ptq4vm.quant.spec import ActivationSpec

RELAXATIONS = st.sampled_from([0.003, 0.01, 0.1, 0.3, 1.0, 10.0, math.inf])


@given(bits=st.integers(2, 8), zero=st.integers(0, 255), relaxation=RELAXATIONS)
def test_levels_are_distinct_codes_with_both_ends_and_zero(bits: int, zero: int, relaxation: float) -> None:
    levels = log_levels(bits, 255, zero, relaxation)
    assert len(levels) == 2**bits
    assert bool((levels.diff() > 0).all())
    assert (int(levels[0]), int(levels[-1])) == (0, 255)
    assert zero in levels.tolist()


@given(zero=st.integers(0, 15))
def test_without_bend_levels_are_evenly_spaced(zero: int) -> None:
    assert log_levels(4, 255, 17 * zero, math.inf).tolist() == list(range(0, 256, 17))


@pytest.mark.parametrize(("bits", "relaxation"), [(3, 0.05), (4, 0.1), (4, 0.5), (8, 0.02)])
def test_levels_follow_the_logarithm(bits: int, relaxation: float) -> None:
    top = 65535  # so fine that rounding to the grid does not show
    levels = log_levels(bits, top, 0, relaxation).double()
    bend = relaxation * top
    warped = torch.log1p(levels / bend)
    even = torch.linspace(0, 1, 2**bits, dtype=torch.float64) * math.log1p(top / bend)
    torch.testing.assert_close(warped, even, atol=1e-3, rtol=0)


def test_a_smaller_coefficient_spends_more_levels_near_zero() -> None:
    near = [int((log_levels(4, 255, 0, r) < 64).sum()) for r in (math.inf, 1.0, 0.3, 0.1, 0.03)]
    assert near == sorted(near)
    assert near[0] == 4
    assert near[-1] > 8


@given(bits=st.integers(2, 7), zero=st.integers(0, 255), relaxation=RELAXATIONS)
def test_every_code_goes_to_its_nearest_level(bits: int, zero: int, relaxation: float) -> None:
    levels = log_levels(bits, 255, zero, relaxation)
    table = nearest_levels(levels, 255)
    distances = (torch.arange(256)[:, None] - levels).abs().amin(1)
    assert torch.equal((table - torch.arange(256)).abs(), distances)


def _quantizer(bits: int = 4, grid_bits: int = 8, relaxation: float = 0.1, sizes: tuple[int, ...] = ()) -> HTDQuantizer:
    spec = ActivationSpec(bits=bits, quantizer="htdq", grid_bits=grid_bits)
    ranges = [(-1.0 - i, 3.0 * (1 + i), relaxation) for i in range(max(1, len(sizes)))]
    found = HTDQuantizer.from_ranges(spec, SiteRanges(ranges, sizes))
    assert isinstance(found, HTDQuantizer)
    return found


@pytest.mark.parametrize("sizes", [(), (1, 1, 1), (2, 1)])
def test_rounds_to_the_grid_and_then_by_its_table(sizes: tuple[int, ...]) -> None:
    quantizer = _quantizer(sizes=sizes)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3
    y = quantizer(x)
    scale = quantizer.channel_scale().detach().expand(3).view(-1, 1, 1)
    codes = (y / scale + quantizer.zero_point).round().long()
    torch.testing.assert_close((codes - quantizer.zero_point) * scale, y)
    grid = UniformQuantizer(8, quantizer.scale.detach(), int(quantizer.zero_point), sizes)
    before = (grid(x) / scale + quantizer.zero_point).round().long()
    assert torch.equal(quantizer.table[before].long(), codes)
    assert len(codes.unique()) <= 16


def test_zero_stays_zero() -> None:
    assert not _quantizer()(torch.zeros(1, 1, 2, 2)).any()


def test_gradients_pass_inside_the_range_and_reach_the_scale() -> None:
    quantizer = _quantizer()
    x = torch.tensor([[[[-5.0, 0.4], [2.0, 9.0]]]], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert quantizer.log_scale.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert float(quantizer.log_scale.grad.abs()) > 0


@pytest.mark.parametrize(("bits", "grid_bits", "even"), [(8, 8, True), (4, 8, False), (8, 12, False)])
def test_at_the_bits_of_the_grid_it_is_the_uniform_quantizer(bits: int, grid_bits: int, even: bool) -> None:
    quantizer = _quantizer(bits, grid_bits)
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    uniform = UniformQuantizer(max(bits, grid_bits), quantizer.scale.detach(), int(quantizer.zero_point))
    assert torch.equal(quantizer(x), uniform(x)) is even


def test_engines_get_the_grid_and_the_table_where_there_is_one() -> None:
    assert _quantizer(8).qparams().table is None
    scale, zero, top, table, _ = _quantizer(4).qparams()
    assert (top, int(zero), scale.shape) == (255, int(_quantizer(4).zero_point), ())
    assert table is not None
    assert len(table.unique()) == 16
    with pytest.raises(ConfigError, match="grid of 12 bits"):
        _quantizer(8, 12).qparams()


def test_a_resampled_tensor_keeps_the_levels() -> None:
    quantizer = _quantizer(sizes=(1, 1))
    again = quantizer.regrid(torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(again.table, quantizer.table)
    assert not again.log_scale.requires_grad
    assert again.learned() == []


def test_a_small_coefficient_serves_a_skewed_tensor_better() -> None:
    x = torch.distributions.Exponential(6.0).sample((1, 1, 64, 64)).clamp(max=3.0)
    even, bent = ((_quantizer(relaxation=r)(x).detach() - x).square().mean() for r in (math.inf, 0.1))
    assert float(bent) < 0.6 * float(even)


@pytest.mark.parametrize("wrong", [{"relaxation": 0.0}, {"relaxation": -1.0}, {"grid_bits": 7}, {"grid_bits": 17}])
def test_bad_choices_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ActivationSpec(quantizer="htdq", **wrong)  # type: ignore[arg-type]
