from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from ptq4vm.quant.quantizers.base import SiteRanges
from ptq4vm.quant.quantizers.uniform import UniformQuantizer, migrated
from ptq4vm.quant.spec import ActivationSpec


def _quantizer(bits: int = 4, scale: float = 0.1, zero: int = 5) -> UniformQuantizer:
    return UniformQuantizer(bits, torch.tensor([scale]), zero)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _oracle(x: Tensor, log_scale: Tensor, zero: int, levels: int) -> Tensor:
    """LSQ written out with autograd: rounding passes gradients, the scale's is multiplied by 1/sqrt(N levels)."""
    scale = log_scale.exp()
    factor = 1 / math.sqrt(x.numel() * levels)
    scale = scale.detach() + (scale - scale.detach()) * factor
    v = x / scale
    rounded = v + (torch.round(v) - v).detach()
    return ((rounded + zero).clamp(0, levels) - zero) * scale


@pytest.mark.parametrize(("bits", "zero"), [(2, 0), (4, 7), (8, 128), (8, 255)])
def test_values_lie_on_the_grid_and_ends_are_clipped(bits: int, zero: int) -> None:
    quantizer = _quantizer(bits, 0.25, zero)
    codes = quantizer(_randn(500) * 100) / 0.25 + zero
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert codes.min().round() == 0 and codes.max().round() == 2**bits - 1


@settings(deadline=None, max_examples=40)
@given(scale=st.floats(1e-4, 100), bits=st.integers(2, 8), share=st.floats(0, 1))
def test_zero_is_exact_and_quantizing_twice_changes_nothing(scale: float, bits: int, share: float) -> None:
    quantizer = _quantizer(bits, scale, round(share * (2**bits - 1)))
    x = torch.cat([torch.zeros(1), _randn(200) * scale * 2**bits])
    once = quantizer(x)
    assert once[0] == 0
    assert torch.equal(quantizer(once), once)


def test_error_inside_the_range_is_half_a_step() -> None:
    x = torch.linspace(-0.5, 1.0, 301)
    assert float((_quantizer(4, 0.1, 5)(x) - x).detach().abs().max()) <= 0.05 + 1e-6


@pytest.mark.parametrize("shape", [(64,), (2, 3, 5, 7), (2, 2, 3, 5, 7)])
def test_gradients_match_autograd(shape: tuple[int, ...]) -> None:
    quantizer = _quantizer(4, 0.2, 6)
    log_scale = quantizer.log_scale.detach().clone().requires_grad_()
    x, weight = _randn(*shape), _randn(*shape, seed=1)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, oracle = quantizer(first), _oracle(second, log_scale, 6, 15)
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-6)
    (ours * weight).sum().backward()
    (oracle * weight).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)
    torch.testing.assert_close(quantizer.log_scale.grad, log_scale.grad, rtol=1e-4, atol=1e-6)
    assert 0 < int((first.grad == 0).sum()) < x.numel()  # clipped values learn nothing


def test_branches_equal_separate_quantizers() -> None:
    sizes, scales = (2, 3, 1), torch.tensor([0.1, 0.5, 2.0])
    joined = UniformQuantizer(4, scales, 4, sizes)
    x = _randn(2, 6, 4, 4)
    parts = [UniformQuantizer(4, scale.view(1), 4)(part) for scale, part in zip(scales, x.split(sizes, 1), strict=True)]
    torch.testing.assert_close(joined(x), torch.cat(parts, 1))
    clip = x.unflatten(0, (1, 2))
    assert torch.equal(joined(clip), joined(x).unflatten(0, (1, 2)))
    assert joined.channel_scale().tolist() == pytest.approx([0.1, 0.1, 0.5, 0.5, 0.5, 2.0])


def test_branches_learn_each_their_own_scale() -> None:
    joined = UniformQuantizer(4, torch.tensor([0.1, 0.2]), 4, (2, 1))
    joined(_randn(2, 3, 4, 4))[:, :2].sum().backward()
    assert joined.log_scale.grad[0] != 0 and joined.log_scale.grad[1] == 0


def test_wrong_number_of_scales_is_refused() -> None:
    with pytest.raises(ValueError, match="one value per branch"):
        UniformQuantizer(4, torch.tensor([0.1]), 4, (2, 1))


def test_drop_lets_elements_through_while_training_only() -> None:
    quantizer = _quantizer()
    quantizer.drop = 0.5
    x = torch.full((20_000,), 0.123)
    share = float((quantizer(x) == x).float().mean())
    assert share == pytest.approx(0.5, abs=0.02)
    assert not bool((quantizer.eval()(x) == x).any())


def test_scale_stays_positive_whatever_the_optimizer_does() -> None:
    quantizer = _quantizer()
    with torch.no_grad():
        quantizer.log_scale -= 20
    assert 0 < float(quantizer.scale.detach()) < 1e-8


def test_repr_names_the_choices() -> None:
    assert "bits=4, scale=[0.1], zero_point=5" in repr(_quantizer())


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_migration_leads_from_one_scale_to_those_of_the_channels(strength: float) -> None:
    scale = torch.tensor([0.01, 0.1, 1.0])
    found = migrated(scale, strength)
    torch.testing.assert_close(found, scale.log().lerp(scale.max().log(), 1 - strength).exp())
    assert bool((found >= scale * (1 - 1e-6)).all())  # nothing is clipped that was not


@pytest.mark.parametrize("carried", [True, False])
def test_only_scales_that_weights_carry_migrate(carried: bool) -> None:
    spec = ActivationSpec(bits=4, granularity="channel", migration=0.0)
    seen = SiteRanges([(0.0, 0.15), (0.0, 1.5)], (1, 1), learns=not carried)
    scale = UniformQuantizer.from_ranges(spec, seen).scale.detach()
    torch.testing.assert_close(scale, torch.tensor([0.1, 0.1]) if carried else torch.tensor([0.01, 0.1]))


@settings(deadline=None, max_examples=40)
@given(bits=st.integers(2, 7), offset=st.floats(-3, 3), seed=st.integers(0, 99))
def test_codes_with_zero_points_of_their_own_lie_on_one_grid(bits: int, offset: float, seed: int) -> None:
    x = _randn(1, 5, 6, 6, seed=seed) * torch.tensor([0.1, 1, 2, 5, 9])[:, None, None] + offset
    lows, highs = (x.amin((0, 2, 3)).clamp(max=0), x.amax((0, 2, 3)).clamp(min=0))
    ranges = list(zip(lows.tolist(), highs.tolist(), strict=True))
    quantizer = UniformQuantizer.from_ranges(ActivationSpec(bits, zeros="channel"), SiteRanges(ranges, (1,) * 5))
    x = 1.3 * x  # some of it is clipped
    scale, zero, top, table, shift = quantizer.qparams()
    assert table is None and shift is not None and zero.ndim == 0
    scale, shift = scale[:, None, None], shift[:, None, None]
    codes = (x / scale + zero).round().clamp(shift, shift + top)
    assert float(codes.min()) >= 0 and float(codes.max()) <= ActivationSpec(bits, zeros="channel").largest_code <= 255
    apart = ((codes - zero) * scale - quantizer(x).detach()).abs() / scale
    assert float((apart > 1e-3).float().mean()) < 0.02, "but for values halfway between two codes"
    moved = quantizer.regrid(quantizer.channel_scale(), quantizer.channel_zero())
    differs = ((moved(x) - quantizer(x)).detach().abs() / scale) > 1e-3
    assert float(differs.float().mean()) < 0.02, "but for values halfway between two codes"


def test_zero_points_follow_channels_below_eight_bits_alone() -> None:
    ranges, sizes = [(-1.0, 0.0), (0.0, 2.0)], (1, 1)
    found = {
        (zeros, bits): UniformQuantizer.from_ranges(ActivationSpec(bits, zeros=zeros), SiteRanges(ranges, sizes))
        for zeros in ("shared", "channel")
        for bits in (4, 8)
    }
    assert found["channel", 4].zero_point.tolist() == [15, 0]
    assert found["channel", 4].scale.tolist() == pytest.approx([1 / 15, 2 / 15])
    assert all(len(q.zero_point) == 1 for key, q in found.items() if key != ("channel", 4))
    joined = UniformQuantizer.from_ranges(ActivationSpec(4, zeros="channel"), SiteRanges(ranges, (2, 1)))
    assert not joined.own_zeros, "branches of several channels share theirs"
