from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ptq4vm.exporting.form import ExportActivation, ExportLayer
from ptq4vm.exporting.graph.int4 import pack_int4
from ptq4vm.quant.fold import absorb
from ptq4vm.quant.layers import Affine, QuantConv2d
from ptq4vm.quant.quantizers.nearest import Nearest
from ptq4vm.quant.quantizers.uniform import UniformQuantizer


@settings(deadline=None, max_examples=40)
@given(
    bits=st.integers(2, 8),
    scale=st.floats(1e-3, 10),
    zero=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_lower_bits_are_exact_on_the_8_bit_type(bits: int, scale: float, zero: float, seed: int) -> None:
    levels = 2**bits - 1
    quantizer = UniformQuantizer(bits, torch.tensor([scale]), round(zero * levels))
    codes = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 * levels - levels
    # away from the middle between two codes, where the two round either way
    x = (codes.round() + (codes - codes.round()) * 0.9) * quantizer.scale.detach()
    torch.testing.assert_close(ExportActivation(quantizer)(x), quantizer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", (1, 4))
@pytest.mark.parametrize("bits", (4, 8))
def test_scales_of_channels(groups: int, bits: int) -> None:
    torch.manual_seed(0)
    conv = QuantConv2d(nn.Conv2d(4, 8, 3, padding=1, groups=groups)).requires_grad_(False)
    conv.weight_quantizer = Nearest(bits, torch.rand(8) * 0.05 + 0.01)
    conv.harden()
    sizes = (1, 1, 1, 1) if groups == 4 else (3, 1)
    scale = torch.rand(len(sizes)) + 0.05
    conv.input_quantizer = UniformQuantizer(bits, scale, 3, sizes).requires_grad_(False)
    exported = ExportLayer(conv)
    x = torch.randn(2, 4, 6, 6) * 3
    torch.testing.assert_close(exported(x), conv(x), rtol=1e-4, atol=1e-4)
    # an integer convolution knows one scale for its input: of a depthwise one, the scales are in the weights
    assert (exported.input_quantizer.out_scale.ndim == 0) == (groups == 4)


@torch.no_grad()
def test_affine_is_absorbed() -> None:
    conv = QuantConv2d(nn.Conv2d(3, 4, 1))
    conv.weight_quantizer = Nearest(4, torch.full((4,), 0.1))
    conv.affine = Affine(4)
    conv.affine.log_scale.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
    conv.affine.shift.copy_(torch.tensor([0.5, -1, 2, 0.1]))
    x = torch.randn(1, 3, 5, 5)
    expected = conv(x)
    absorb(conv)
    torch.testing.assert_close(ExportLayer(conv)(x), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-8, 7), max_size=9))
def test_two_codes_share_a_byte(codes: list[int]) -> None:
    packed = np.frombuffer(pack_int4(np.array(codes, np.int8)), np.uint8)
    assert len(packed) == (len(codes) + 1) // 2
    halves = np.stack([packed & 15, packed >> 4], 1).ravel().astype(np.int8)
    assert np.where(halves > 7, halves - 16, halves)[: len(codes)].tolist() == codes
