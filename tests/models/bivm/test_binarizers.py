"""Signs forward, the stated slope backward, the stated factor: every binarizer against its formula written plainly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ptq4vm.models.bivm.binarizers.base import BINARIZERS, RPReLU, clipped, polynomial
from ptq4vm.models.bivm.binarizers.recu import ReCU

NAMES = ("bnn", "dorefa", "reactnet", "recu")
VALUES = [-2.5, -1.0, -0.6, -0.1, -0.0, 0.0, 0.1, 0.6, 1.0, 2.5]
finite = st.floats(-4, 4, width=32, allow_nan=False)


def gradient(function: object, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient of the sum of ``3 * function(x)``."""
    x = x.clone().requires_grad_()
    y = function(x)  # type: ignore[operator]
    (3 * y).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def test_all_are_known() -> None:
    assert BINARIZERS.names() == tuple(sorted(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_signs_and_their_factor_is_a_mean(name: str) -> None:
    torch.manual_seed(3)
    weight = torch.randn(5, 4, 3, 3)
    binarizer = BINARIZERS[name]()
    signs, scale = binarizer.signs(weight), binarizer.scale(weight)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    if name == "recu":
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True, correction=0)
        low, high = (torch.tensor([f.quantile(q) for f in weight.flatten(1)]).view(-1, 1, 1, 1) for q in (0.15, 0.85))
        weight = torch.minimum(torch.maximum(weight, low), high)
    torch.testing.assert_close(signs, torch.where(weight >= 0, 1.0, -1.0))
    expected = torch.stack([f.abs().mean() for f in weight])
    if name == "dorefa":
        expected = weight.abs().mean().expand(5)
    torch.testing.assert_close(scale.flatten(), expected)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("bnn", clipped), ("dorefa", lambda x: torch.ones_like(x)), ("reactnet", clipped)],
)
def test_weights_learn_by_the_stated_slope(name: str, slope: object) -> None:
    weight = torch.tensor(VALUES).view(1, -1, 1, 1)
    signs, grad = gradient(BINARIZERS[name]().signs, weight)
    assert signs.flatten().tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1], "zero, of either sign, is a set bit"
    torch.testing.assert_close(grad, 3 * slope(weight))  # type: ignore[operator]


@pytest.mark.parametrize(("name", "slope"), [("bnn", clipped), ("reactnet", polynomial), ("recu", polynomial)])
@given(values=st.lists(finite, min_size=2, max_size=8))
def test_activations_are_signs_with_the_stated_slope(name: str, slope: object, values: list[float]) -> None:
    x = torch.tensor(values).view(1, len(values), 1, 1)
    module = BINARIZERS[name]().activation(len(values))
    signs, grad = gradient(module, x)
    torch.testing.assert_close(signs, torch.where(x >= 0, 1.0, -1.0))
    torch.testing.assert_close(grad, 3 * slope(x))  # type: ignore[operator]
    with torch.no_grad():
        torch.testing.assert_close(module(x), signs, msg="the path of inference is another")


@given(values=st.lists(finite, min_size=1, max_size=8))
def test_dorefa_rounds_activations_to_zero_and_one(values: list[float]) -> None:
    x = torch.tensor(values).view(1, len(values), 1, 1)
    bits, grad = gradient(BINARIZERS["dorefa"]().activation(len(values)), x)
    torch.testing.assert_close(bits, (x.clamp(0, 1) >= 0.5).float())
    inside = ((2 * x - 1).abs() <= 1).float()  # [0, 1], in the arithmetic of the module
    torch.testing.assert_close(grad, 3 * inside)


def test_shifts_move_thresholds() -> None:
    module = BINARIZERS["reactnet"]().activation(2)
    with torch.no_grad():
        module.shift.copy_(torch.tensor([0.5, -0.5]).view(2, 1, 1))
    assert module(torch.tensor([-0.4, 0.4]).view(1, 2, 1, 1)).flatten().tolist() == [1, -1]


def test_recu_gives_no_gradient_beyond_its_quantiles_and_clamps_less_with_time() -> None:
    recu = ReCU()
    weight = torch.linspace(-1, 1, 101).view(1, -1, 1, 1)
    recu.advance(0)
    early = (recu.rectified(weight).diff(dim=1) > 0).float().mean()
    recu.advance(1)
    late = (recu.rectified(weight).diff(dim=1) > 0).float().mean()
    assert early == pytest.approx(0.7, abs=0.02) and late == pytest.approx(0.98, abs=0.02)


def test_rprelu_is_its_equation() -> None:
    torch.manual_seed(0)
    module = RPReLU(3)
    for parameter in module.parameters():
        parameter.data.normal_()
    x = torch.randn(2, 3, 4, 5)
    moved = x - module.before
    expected = torch.where(moved > 0, moved, module.prelu.weight.view(3, 1, 1) * moved) + module.after
    torch.testing.assert_close(module(x), expected)
