"""The exact arithmetic is that of PyTorch's modules up to rounding, and the same whatever the order of channels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.models.bivm import exact

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@given(size=sizes)
def test_halving_is_average_pooling_that_rounds_up(size: tuple[int, int]) -> None:
    x = picture(size)
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(exact.halve(x), pooled)


@given(size=sizes)
def test_doubling_is_bilinear(size: tuple[int, int]) -> None:
    x = picture(size)
    enlarged = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(exact.double(x), enlarged)


@pytest.mark.parametrize(("ours", "theirs"), [(exact.tanh, torch.tanh), (exact.sigmoid, torch.sigmoid)])
def test_gates_are_close_and_stay_in_range(ours: object, theirs: object) -> None:
    x = torch.cat([torch.linspace(-12, 12, 4801), torch.tensor([-1e30, 1e30, 0.0])])
    found, expected = ours(x), theirs(x)  # type: ignore[operator]
    assert (found - expected).abs().max() < 2e-4
    assert found.min() >= expected.min() - 1e-6 and found.max() <= 1
    assert bool((found.sort().values.diff() >= 0).all())


@pytest.mark.parametrize("kind", list(exact.EXACT))
def test_what_takes_a_modules_place_does_the_same(kind: type[nn.Module]) -> None:
    arguments = {
        nn.Upsample: {"scale_factor": 2, "mode": "bilinear", "align_corners": False},
        nn.AvgPool2d: {"kernel_size": 2, "ceil_mode": True, "count_include_pad": False},
        nn.AdaptiveAvgPool2d: {"output_size": 1},
    }.get(kind, {})
    x = 3 * picture((7, 10))
    torch.testing.assert_close(exact.EXACT[kind]()(x), kind(**arguments)(x), atol=2e-4, rtol=1e-4)


def test_a_convolution_is_rounded_once() -> None:
    conv = nn.Conv2d(3, 4, 3, 2, 1)
    norm = nn.BatchNorm2d(4).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        assert tensor is not None
        tensor.data.normal_()
    x = picture((9, 8))
    found = exact.ExactConv2d(conv)
    found.fold(norm)
    torch.testing.assert_close(found(x), norm(conv(x)), atol=1e-5, rtol=1e-4)
    turned = exact.ExactConv2d(conv)
    turned.weight = nn.Parameter(turned.weight.flip(1))
    torch.testing.assert_close(turned(x.flip(1)), exact.ExactConv2d(conv)(x), atol=0, rtol=0)
