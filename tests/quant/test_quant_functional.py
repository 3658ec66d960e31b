"""The arithmetic of quantization: its properties, and that it computes to the last bit what was written out before."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from ptq4vm.quant import functional as Q
from ptq4vm.quant.observers import MSEObserver, weight_scale
from ptq4vm.quant.observers.shared import SharedZeroObserver
from ptq4vm.quant.quantizers.base import SiteRanges
from ptq4vm.quant.quantizers.nearest import Nearest
from ptq4vm.quant.quantizers.uniform import UniformQuantizer
from ptq4vm.quant.spec import ActivationSpec, WeightSpec

seeds = st.integers(0, 2**31)
widths = st.integers(2, 8)
scales = st.floats(1e-4, 100)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(seed=seeds, bits=widths, scale=scales, share=st.floats(0, 1), shift_first=st.booleans())
def test_codes_are_whole_in_range_and_next_to_their_values(
    seed: int, bits: int, scale: float, share: float, shift_first: bool
) -> None:
    top, step = 2**bits - 1, torch.tensor(scale)
    zero = round(share * top)
    x = _randn(200, seed=seed) * scale * top
    codes = Q.quantize(x, step, zero, 0, top, shift_first=shift_first)
    assert torch.equal(codes, codes.round()) and 0 <= int(codes.min()) <= int(codes.max()) <= top
    values = Q.dequantize(codes, step, zero)
    inside = (x >= -zero * scale) & (x <= (top - zero) * scale)
    assert bool(((values - x).abs()[inside] <= scale * 0.501).all())
    assert torch.equal(Q.quantize(values, step, zero, 0, top, shift_first=shift_first), codes)
    assert float(Q.dequantize(Q.quantize(torch.zeros(1), step, zero, 0, top), step, zero)) == 0
    tensor = torch.tensor(float(zero))
    assert torch.equal(Q.quantize(x, step, tensor, 0, top, shift_first=shift_first), codes)
    assert torch.equal(Q.dequantize(codes, step, tensor), values)


def test_halves_round_to_even_and_inputs_stay_as_they_are() -> None:
    x = torch.tensor([0.5, 1.5, 2.5])
    before = x.clone()
    assert Q.quantize(x, torch.ones(()), 1, 0, 9).tolist() == [1, 3, 3]  # ONNX: the zero point comes after
    assert Q.quantize(x, torch.ones(()), 1, 0, 9, shift_first=True).tolist() == [2, 2, 4]
    assert torch.equal(x, before)
    codes = torch.tensor([3.0, 4.0])
    assert Q.dequantize(codes, torch.tensor([2.0]), 1).tolist() == [4, 6] and codes.tolist() == [3, 4]


@settings(deadline=None, max_examples=40)
@given(seed=seeds, bits=widths, scale=scales)
def test_fake_quantization_is_there_and_back_with_gradients_of_the_identity(seed: int, bits: int, scale: float) -> None:
    top, zero = 2**bits - 1, 2 ** (bits - 1)
    x = (_randn(3, 4, 5, 6, seed=seed) * scale * top / 3).requires_grad_()
    step = torch.tensor([scale])
    found = Q.fake_quantize(x, step, torch.tensor([float(zero)]), 0, top)
    expected = Q.dequantize(Q.quantize(x, step, zero, 0, top), step, zero)
    # where a value lies halfway, the fused kernel may round to the other side
    halfway = ((x.detach() / scale).frac().abs() - 0.5).abs() < 1e-3
    torch.testing.assert_close(found[~halfway], expected[~halfway], rtol=1e-5, atol=scale * 1e-3)
    found.sum().backward()
    assert x.grad is not None
    clear = x.detach()[(x.detach() / scale + zero > 0) & (x.detach() / scale + zero < top)]
    assert int((x.grad == 1).sum()) >= len(clear) - int(halfway.sum()) and set(x.grad.unique().tolist()) <= {0.0, 1.0}


def test_fake_quantization_along_an_axis_is_that_of_every_slice() -> None:
    x, step, zero = _randn(2, 3, 4, 5), torch.tensor([0.1, 0.2, 0.5]), torch.full((3,), 4.0)
    found = Q.fake_quantize(x, step, zero, 0, 15, axis=1)
    for c in range(3):
        assert torch.equal(found[:, c], Q.fake_quantize(x[:, c], step[c : c + 1], zero[:1], 0, 15))


ENDS = st.tuples(st.floats(-100, 0, width=32), st.floats(0, 100, width=32))


@settings(deadline=None, max_examples=100)
@given(ends=ENDS, bits=widths, symmetric=st.booleans(), signed=st.booleans())
def test_grids_cover_their_ranges(ends: tuple[float, float], bits: int, symmetric: bool, signed: bool) -> None:
    low, high = torch.tensor(ends)
    bottom, top = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    scale, zero = Q.choose_qparams(low, high, bottom, top, symmetric)
    assert scale > 0 and zero == zero.round() and bottom <= zero <= top
    slack = float(scale) * (1.01 if symmetric else 0.51) + 1e-4
    assert float((bottom - zero) * scale) <= float(low) + slack
    assert float((top - zero) * scale) >= float(high) - slack
    if symmetric and low < 0:
        assert zero == (bottom + top + 1) // 2


@settings(deadline=None, max_examples=100)
@given(ranges=st.lists(ENDS, min_size=1, max_size=4), bits=widths, share=st.floats(0, 1))
def test_covering_scales_clip_nothing_and_are_the_smallest(
    ranges: list[tuple[float, float]], bits: int, share: float
) -> None:
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    top = 2**bits - 1
    zero = min(max(1, round(share * top)), top - 1)
    scale = Q.covering_scale(low, high, 0, top, zero)
    assert bool((-zero * scale <= low + 1e-9).all() and ((top - zero) * scale >= high - 1e-9).all())
    tight = torch.minimum((low + zero * scale).abs(), (high - (top - zero) * scale).abs())
    assert bool((tight[scale > Q.SMALLEST_SCALE] < 1e-9).all())
    assert torch.isinf(Q.covering_scale(torch.tensor(-1.0), torch.tensor(1.0), 0, top))  # nothing below 0 has a code


@settings(deadline=None, max_examples=30)
@given(seed=seeds, bits=widths, groups=st.integers(1, 4))
def test_the_search_finds_what_trying_out_finds(seed: int, bits: int, groups: int) -> None:
    x = _randn(groups, 50, seed=seed)
    candidates = torch.rand(9, groups, generator=torch.Generator().manual_seed(seed)) + 0.01
    top = 2**bits - 1
    for reduction, divisor in (("mean", None), ("sum", None), ("mean", torch.rand(groups) + 0.1)):
        best, error = Q.search_scale(x, candidates, 1, 0, top, reduction=reduction, divisor=divisor)
        assert best.shape == error.shape == (groups,)
        for g in range(groups):
            grids = [Q.dequantize(Q.quantize(x[g], s, 1, 0, top), s, 1) for s in candidates[:, g]]
            errors = torch.stack([getattr((y - x[g]).square(), reduction)() for y in grids])
            errors = errors if divisor is None else errors / divisor[g]
            torch.testing.assert_close(error[g], errors.min())
            torch.testing.assert_close(errors[best[g]], errors.min())


def test_the_first_of_equals_wins_and_one_group_needs_no_dimension() -> None:
    best, error = Q.search_scale(torch.zeros(5), torch.tensor([3.0, 2.0, 1.0]), torch.zeros(3), 0, 7)
    assert best.shape == error.shape == () and int(best) == 0 and float(error) == 0


# What each observer and quantizer computed for itself before there was one place for it, word for word.


def _old_qparams(low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    scale = ((high - low) / levels).clamp_min(1e-8)
    return scale, (-low / scale).round().clamp(0, levels)


def _old_weight_scale(weight: Tensor, spec: WeightSpec) -> Tensor:
    rows = weight.detach().float().flatten(1) if spec.granularity == "channel" else weight.detach().reshape(1, -1)
    low, high = spec.code_range
    full = torch.maximum(rows.amax(1) / high, rows.amin(1) / low).clamp_min(1e-8)
    if spec.observer == "minmax":
        return full
    best, best_error = full, torch.full_like(full, torch.inf)
    for shrink in torch.linspace(1.0, 0.2, 80).tolist():
        scale = full * shrink
        codes = (rows / scale[:, None]).round_().clamp_(low, high)
        error = (codes * scale[:, None] - rows).square_().sum(1)
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return best


def _old_mse_range(values: Tensor, levels: int, symmetric: bool) -> tuple[float, float]:
    seen_low, seen_high = min(0.0, float(values.min())), max(0.0, float(values.max()))

    def error(low: Tensor, high: Tensor) -> Tensor:
        scale, zero = _old_qparams(low, high, levels)
        if symmetric and seen_low < 0:
            zero = torch.full_like(zero, (levels + 1) // 2)
        errors = []
        for s, z in zip(scale, zero, strict=True):
            codes = (values / s + z).round_().clamp_(0, levels)
            errors.append(((codes - z) * s - values).square_().mean())
        return torch.stack(errors)

    shrink = torch.linspace(1.0, 1 / 24, 24)
    low, high = torch.tensor(seen_low), torch.tensor(seen_high)
    if symmetric and seen_low < 0:
        high = torch.maximum(-low, high)
        low = -high
    best = error(low * shrink, high * shrink).argmin()
    low, high = low * shrink[best], high * shrink[best]
    if not symmetric:
        wide = torch.cat([torch.ones(1), torch.linspace(0.3, 1.7, 48)])
        for _ in range(2):
            lows = (low * wide).clamp(min=seen_low)
            low = lows[error(lows, high.expand_as(lows)).argmin()]
            highs = (high * wide).clamp(max=seen_high)
            high = highs[error(low.expand_as(highs), highs).argmin()]
    return float(low), float(high)


def _old_shared_search(
    values: Tensor, low: Tensor, high: Tensor, zero: int, levels: int, relative: bool
) -> tuple[Tensor, Tensor]:
    up = high / (levels - zero)
    down = -low / zero if zero else torch.zeros_like(up)
    full = torch.maximum(up, down).clamp_min(1e-8)
    best, best_error = full, torch.full_like(full, torch.inf)
    weight = values.square().mean(1).clamp_min(1e-12) if relative else torch.ones(())
    for shrink in torch.linspace(1, 0.1, 16).tolist():
        scale = full * shrink
        codes = (values / scale[:, None]).round_().clamp_(-zero, levels - zero)
        error = codes.mul_(scale[:, None]).sub_(values).square_().mean(1) / weight
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return best_error, best


def _old_shared_grid(ranges: list[tuple[float, float]], bits: int, affine: bool) -> tuple[Tensor, int]:
    lows, highs = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*ranges, strict=True))
    levels = 2**bits - 1
    if not affine and bool((lows < 0).any()):
        highs = torch.maximum(-lows, highs)
        lows = -highs
    scale, zero = _old_qparams(lows, highs, levels)
    if not affine and bool((lows < 0).any()):
        zero = torch.full_like(zero, 2 ** (bits - 1))
    if len(zero) == 1:
        return scale.float(), int(zero)
    zeros = torch.arange(levels + 1, dtype=torch.float64)[:, None]
    room = torch.where(highs > 0, highs / (levels - zeros), 0.0)
    needed = torch.maximum(room, torch.where(lows < 0, -lows / zeros, 0.0)).clamp_min(1e-8)
    shared = int((needed / scale).square().mean(1).argmin())
    return needed[shared].float(), shared


@settings(deadline=None, max_examples=30)
@given(
    seed=seeds,
    bits=widths,
    granularity=st.sampled_from(["channel", "tensor"]),
    observer=st.sampled_from(["minmax", "mse"]),
    reduce_range=st.booleans(),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
)
def test_weight_scales_and_codes_are_what_they_were(
    seed: int, bits: int, granularity: str, observer: str, reduce_range: bool, shift: float
) -> None:
    spec = WeightSpec(max(bits, 3), granularity, observer, reduce_range)
    weight = _randn(5, 4, 3, 3, seed=seed) * torch.tensor([0.0, 0.1, 1, 10, 1e-9]).view(-1, 1, 1, 1) + shift
    scale = weight_scale(weight, spec)
    assert torch.equal(scale, _old_weight_scale(weight, spec))
    factor = _randn(4, seed=seed).exp()
    for own in (None, factor):
        quantizer = Nearest(spec.bits, scale, own, reduce_range)
        step = scale.view(-1, 1, 1, 1) if own is None else scale.view(-1, 1, 1, 1) / own.view(1, -1, 1, 1)
        codes = (weight / step).round().clamp(*spec.code_range).to(torch.int8)
        assert torch.equal(quantizer.codes(weight), codes)
        assert torch.equal(quantizer(weight), codes.to(weight.dtype) * step)


@settings(deadline=None, max_examples=25)
@given(
    seed=seeds,
    count=st.sampled_from([1, 7, 1000, 16384]),
    bits=widths,
    symmetric=st.booleans(),
    kind=st.sampled_from(["normal", "positive", "negative", "outlier", "half steps"]),
)
def test_mse_ranges_are_what_they_were(seed: int, count: int, bits: int, symmetric: bool, kind: str) -> None:
    values = _randn(count, seed=seed)
    if kind in ("positive", "negative"):
        values = values.abs() * (1 if kind == "positive" else -1)
    elif kind == "outlier":
        values[0] = 40.0
    elif kind == "half steps":
        values = (values * 4).round() / 2
    observer = MSEObserver(2**bits - 1, symmetric)
    observer.observe(values)
    assert observer.range() == _old_mse_range(values, 2**bits - 1, symmetric)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_samples_are_averaged_as_they_were(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        values = _randn(65536)
        observer = MSEObserver(15, per_call=65536)
        observer.observe(values)
        assert observer.range() == _old_mse_range(values, 15, False)
    finally:
        torch.set_num_threads(before)


@settings(deadline=None, max_examples=25)
@given(
    seed=seeds,
    groups=st.integers(1, 5),
    bits=widths,
    relative=st.booleans(),
    offset=st.sampled_from([0.0, 1.0, -1.0]),
    share=st.floats(0, 1),
)
def test_shared_scales_are_what_they_were(
    seed: int, groups: int, bits: int, relative: bool, offset: float, share: float
) -> None:
    top = 2**bits - 1
    parts = [_randn(300, seed=seed + g) * 10.0**g + offset for g in range(groups)]
    parts[-1] = torch.zeros(300) if seed % 3 == 0 else parts[-1]
    observer = SharedZeroObserver(groups, top, relative=relative)
    observer.observe(parts)
    values = torch.stack(parts)
    zero = min(round(share * top), top - 1)
    found, expected = (
        observer._search(values, zero),
        _old_shared_search(values, observer.low, observer.high, zero, top, relative),
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=150)
@given(ranges=st.lists(ENDS, min_size=1, max_size=4), bits=widths, asymmetric=st.booleans())
def test_shared_zero_points_are_what_they_were(ranges: list[tuple[float, float]], bits: int, asymmetric: bool) -> None:
    sizes = (1,) * len(ranges) if len(ranges) > 1 else ()
    quantizer = UniformQuantizer.from_ranges(ActivationSpec(bits, asymmetric), SiteRanges(ranges, sizes))
    scale, zero = _old_shared_grid(ranges, bits, asymmetric)
    assert int(quantizer.zero_point) == zero and torch.equal(quantizer.log_scale.detach(), scale.log())


@pytest.mark.parametrize("sizes", [(), (2, 1)])
def test_activations_round_as_they_did(sizes: tuple[int, ...]) -> None:
    scale = torch.tensor([0.1, 0.3][: max(1, len(sizes))])
    quantizer, x = UniformQuantizer(4, scale, 6, sizes), _randn(2, 3, 8, 8)
    spread = quantizer.channel_scale()
    factor = 1 / math.sqrt(x.numel() // len(spread) * 15)
    if sizes:
        zero = quantizer.zero_point.expand_as(spread)
        expected = torch._fake_quantize_learnable_per_channel_affine(x, spread, zero, 1, 0, 15, factor)
    else:
        expected = torch._fake_quantize_learnable_per_tensor_affine(x, spread, quantizer.zero_point, 0, 15, factor)
    assert torch.equal(quantizer(x), expected)
