from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq4vm.ops.warp import in_frame, warp


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (31, 64), (90, 160), (288, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_zero_flow_is_the_identity_bit_by_bit(size: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.rand(2, 3, *size).to(dtype)
    assert torch.equal(warp(image, torch.zeros(2, 2, *size)), image)


@settings(max_examples=25, deadline=None)
@given(dx=st.integers(-9, 9), dy=st.integers(-9, 9), height=st.integers(10, 40), width=st.integers(10, 40))
def test_whole_pixel_shifts_are_exact_and_borders_repeat(dx: int, dy: int, height: int, width: int) -> None:
    image = torch.rand(1, 2, height, width)
    flow = torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, height, width)
    rows = (torch.arange(height) + dy).clamp(0, height - 1)
    columns = (torch.arange(width) + dx).clamp(0, width - 1)
    assert torch.equal(warp(image, flow), image[:, :, rows][:, :, :, columns])


def test_fractions_interpolate_a_ramp() -> None:
    x = torch.arange(37.0).expand(1, 1, 20, 37)
    flow = torch.zeros(1, 2, 20, 37)
    flow[:, 0] = 2.3
    assert (warp(x, flow) - (x + 2.3).clamp(max=36)).abs().max() < 1e-5


def test_gradients() -> None:
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 5, 6, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


@pytest.mark.parametrize(
    ("image", "flow"),
    [
        ((3, 8, 8), (1, 2, 8, 8)),
        ((1, 3, 8, 8), (1, 3, 8, 8)),
        ((2, 3, 8, 8), (1, 2, 8, 8)),
        ((1, 3, 8, 8), (1, 2, 8, 9)),
    ],
)
def test_shapes_that_do_not_match(image: tuple[int, ...], flow: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="flow"):
        warp(torch.rand(image), torch.rand(flow))


def test_in_frame() -> None:
    flow = torch.zeros(1, 2, 4, 6)
    flow[:, 0] = 2
    assert in_frame(flow)[0, 0].sum(0).tolist() == [4, 4, 4, 4, 0, 0]
    flow[:, 1] = -1
    assert in_frame(flow)[0, 0].sum(1).tolist() == [0, 4, 4, 4]
