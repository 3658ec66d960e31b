"""Integer convolutions as CPUs without VNNI compute them: sums of two products are cut off at 16 bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import QuantConv2d
from ptq4vm.quant.quantizers.base import ActivationQuantizer


def saturating_product(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int64]:
    """``(N, K) x (M, K) -> (N, M)`` as ``vpmaddubsw`` and ``vpmaddwd`` compute it, neighbours paired.

    It gave ONNX Runtime 1.31.1's MatMulInteger on an (emulated) CPU with AVX2 to the last bit.
    """
    even = activations.shape[1] % 2
    a = np.pad(activations, ((0, 0), (0, even))).astype(np.int64)
    w = np.pad(weights, ((0, 0), (0, even))).astype(np.int64)
    total = np.zeros((len(a), len(w)), np.int64)
    for k in range(0, a.shape[1], 2):
        pair = a[:, k, None] * w[None, :, k] + a[:, k + 1, None] * w[None, :, k + 1]
        total += np.clip(pair, -(2**15), 2**15 - 1)
    return total


def wrong_layers(network: MattingNetwork, frames: torch.Tensor) -> dict[str, float]:
    """Dense convolutions that come out wrong with saturating sums, and by how much of their signal.

    Args:
        network: Quantized at the inputs of its layers.
        frames: ``(1, T, 3, H, W)``.
    """
    found: dict[str, float] = {}

    def compare(path: str, layer: QuantConv2d, x: torch.Tensor) -> None:
        quantizer = layer.input_quantizer
        assert isinstance(quantizer, ActivationQuantizer) and layer.weight_quantizer is not None
        x = x.flatten(0, -4)[:1]
        scale = quantizer.channel_scale().view(-1, 1, 1)
        codes = ((x / scale).round() + quantizer.zero_point).clamp(0, quantizer.levels)
        columns = F.unfold(codes, layer.kernel_size, layer.dilation, layer.padding, layer.stride)[0].T[:64]
        weights = layer.weight_quantizer.codes(layer.weight).flatten(1)
        cut = saturating_product(columns.numpy().astype(np.uint8), weights.numpy())
        exact = columns.numpy().astype(np.int64) @ weights.numpy().astype(np.int64).T
        if not np.array_equal(cut, exact):
            found[path] = float(np.sqrt(np.square(cut - exact).mean() / np.square(exact).mean()))

    hooks = [
        layer.register_forward_pre_hook(lambda module, args, path=path: compare(path, module, args[0]))
        for path, layer in quantized_layers(network).items()
        if isinstance(layer, QuantConv2d) and layer.groups == 1
    ]
    with torch.no_grad():
        network.matte(frames)
    for hook in hooks:
        hook.remove()
    return found
