"""Which layers of a quantized network a CPU without VNNI may compute wrongly; :mod:`ptq4vm.quant.overflow` says why."""

from __future__ import annotations

from torch import nn

from ptq4vm.quant.layers import QuantLayer
from ptq4vm.quant.overflow import outside, pair_bounds
from ptq4vm.quant.quantizers.base import ActivationQuantizer


def saturating_layers(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Layers of a quantized network that a CPU without VNNI may compute wrongly.

    Args:
        network: With its roundings decided or not; layers whose weights or inputs stay float are exact anyway.

    Returns:
        The :func:`pair_bounds` of every layer whose sums may leave 16 bits, by path, in definition order.
    """
    quantizers = {path: m for path, m in network.named_modules() if isinstance(m, ActivationQuantizer)}
    largest = max((quantizer.quant_max for quantizer in quantizers.values()), default=0)
    found = {}
    for path, layer in network.named_modules():
        if not isinstance(layer, QuantLayer) or layer.weight_quantizer is None:
            continue
        activation_max = largest  # where another layer's output is read (placement ``output``), not known which
        if isinstance(layer.input_quantizer, ActivationQuantizer):
            activation_max = layer.input_quantizer.quant_max
        elif layer.reads:
            activation_max = quantizers[f"{layer.reads[0].site}.output_quantizer"].quant_max
        bounds = pair_bounds(layer.weight_quantizer.codes(layer.weight), activation_max)
        if outside(bounds):
            found[path] = bounds
    return found
