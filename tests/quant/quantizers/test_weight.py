from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptq4vm.quant.observers import weight_scale
from ptq4vm.quant.quantizers.adaround import AdaRound
from ptq4vm.quant.quantizers.base import per_column, per_row
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.quantizers.nearest import Nearest
from ptq4vm.quant.spec import WeightSpec


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["channel", "tensor"])
def scaled(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """A weight and a scale that clips a few of its values at 4 bits."""
    weight = _randn(6, 4, 3, 3)
    return weight, weight_scale(weight, WeightSpec(4, request.param, "mse")) * 0.9


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3)])
def test_rows_and_columns_of_a_weight(shape: tuple[int, ...]) -> None:
    weight, rows, columns = _randn(*shape), _randn(6, seed=1), _randn(4, seed=2)
    product = weight * per_row(rows, weight) * per_column(columns, weight)
    assert torch.equal(product[3, 2], weight[3, 2] * rows[3] * columns[2])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nearest_rounds_and_clips(bits: int) -> None:
    weight = _randn(5, 7) * 3
    quantizer = Nearest(bits, torch.full((5,), 0.5))
    codes = quantizer.codes(weight)
    assert codes.dtype == torch.int8
    assert int(codes.min()) == max(-(2 ** (bits - 1)), round(float(weight.min()) * 2))
    expected = (weight * 2).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) / 2
    assert torch.equal(quantizer(weight), expected)


def test_adaround_starts_at_the_float_weight(scaled: tuple[Tensor, Tensor]) -> None:
    weight, scale = scaled
    quantizer = AdaRound(weight, 4, scale)
    rows = scale.view(-1, 1, 1, 1)
    inside = (weight / rows > -8) & (weight / rows < 7)
    assert 0 < int((~inside).sum()) < 30
    started = quantizer(weight)
    torch.testing.assert_close(started[inside], weight[inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(started, torch.minimum(torch.maximum(weight, -8 * rows), 7 * rows), rtol=0, atol=1e-5)


def test_adaround_starts_like_round_to_nearest_once_decided(scaled: tuple[Tensor, Tensor]) -> None:
    weight, scale = scaled
    nearest = Nearest(4, scale).codes(weight)
    assert torch.equal(AdaRound(weight, 4, scale).codes(weight), nearest)
    assert torch.equal(AdaRound(weight, 4, scale).eval()(weight), Nearest(4, scale)(weight))


def test_adaround_regularizer_is_zero_once_decided(scaled: tuple[Tensor, Tensor]) -> None:
    weight, scale = scaled
    quantizer = AdaRound(weight, 4, scale)
    assert float(quantizer.regularizer(20.0)) > float(quantizer.regularizer(2.0)) > 0
    with torch.no_grad():
        quantizer.rounding.copy_(10 * quantizer.rounding.sign())
    assert float(quantizer.regularizer(2.0)) == 0
    assert torch.equal(quantizer(weight), quantizer.eval()(weight))


def test_adaround_regularizer_is_largest_halfway() -> None:
    quantizer = AdaRound(torch.tensor([[0.5]]), 4, torch.ones(1))
    assert float(quantizer.soft()) == pytest.approx(0.5)
    assert float(quantizer.regularizer(2.0)) == pytest.approx(1.0)


def test_adaround_soft_rounding_and_codes_have_limits(scaled: tuple[Tensor, Tensor]) -> None:
    weight, scale = scaled
    quantizer = AdaRound(weight, 4, scale)
    with torch.no_grad():
        quantizer.rounding.copy_(_randn(*weight.shape, seed=1) * 5)
    soft = quantizer.soft()
    assert float(soft.min()) == 0 and float(soft.max()) == 1
    codes = quantizer.codes(weight)
    assert int(codes.min()) >= -8 and int(codes.max()) <= 7
    floor = (weight / scale.view(-1, 1, 1, 1)).floor().clamp(-8, 7)
    up = codes - floor
    assert set(up.unique().tolist()) == {0.0, 1.0}


def test_adaround_learns_only_through_the_soft_weight(scaled: tuple[Tensor, Tensor]) -> None:
    weight, scale = scaled
    quantizer = AdaRound(weight, 4, scale)
    quantizer(weight).sum().backward()
    assert quantizer.rounding.grad is not None and bool((quantizer.rounding.grad >= 0).all())
    assert [name for name, _ in quantizer.named_parameters()] == ["rounding"]
    assert set(quantizer.state_dict()) == {"scale", "rounding"}


def test_fixed_codes_ignore_the_weight(scaled: tuple[Tensor, Tensor]) -> None:
    weight, scale = scaled
    codes = Nearest(4, scale).codes(weight)
    fixed = FixedCodes(codes, 4, scale)
    assert torch.equal(fixed(torch.zeros_like(weight)), Nearest(4, scale)(weight))
    assert fixed.state_dict()["fixed"].dtype == torch.int8
