"""Layers with slots for quantizers and for the global affine; the float network's ``forward`` stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.errors import ConfigError
from ptq4vm.quant.placement.wiring import Segments
from ptq4vm.quant.quantizers.base import WeightQuantizer, per_row
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.spec import FLOAT_BITS


class Affine(nn.Module):
    """GAC's learnable scale and shift of a folded layer's output: ``y = scale * (W x + b) + shift``.

    It acts on weight and bias, where it is absorbed later, so that it costs nothing per pixel. The scale is kept as
    a logarithm: it must stay positive to be absorbed into the weight scale.

    Args:
        channels: Output channels for one pair per channel, or 1 for one pair per layer (as published).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    @property
    def scale(self) -> Tensor:
        """Factor on every output channel, ``(channels,)`` float32, positive."""
        return self.log_scale.exp()

    def forward(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """``(scale * weight, scale * bias + shift)``; shapes ``(C_out, ...)`` and ``(C_out,)``."""
        return weight * per_row(self.scale, weight), bias * self.scale + self.shift


class QuantLayer(nn.Module):
    """What quantized layers share: the slots, and how weight and bias are made from them.

    Attributes:
        input_quantizer: Acts on the layer's input (placement ``input``), or ``None``.
        weight_quantizer: Acts on the weight, or ``None`` where weights stay float.
        output_quantizer: Acts on the layer's output (placement ``output`` without activation function), or ``None``.
        affine: GAC's scale and shift, or ``None`` before it and after absorption.
        reads: Placement ``engine``: the sites whose stored tensors are its input, else empty.
    """

    weight: Tensor
    bias: Tensor
    input_quantizer: nn.Module | None
    weight_quantizer: WeightQuantizer | None
    output_quantizer: nn.Module | None
    affine: Affine | None
    reads: Segments = ()

    def _take_over(self, layer: nn.Conv2d | nn.Linear) -> None:
        self.weight = layer.weight
        bias = layer.bias if layer.bias is not None else nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
        self.bias = bias
        for slot in ("input_quantizer", "weight_quantizer", "output_quantizer", "affine"):
            self.register_module(slot, None)

    @property
    def weight_bits(self) -> int:
        """Bits of a weight; 32 where weights stay float."""
        return FLOAT_BITS if self.weight_quantizer is None else self.weight_quantizer.bits

    def effective(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as the layer applies them."""
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        return (weight, self.bias) if self.affine is None else self.affine(weight, self.bias)

    @torch.no_grad()
    def harden(self) -> None:
        """Replace a rounding that may still change by its decided codes."""
        if self.weight_quantizer is not None and not self.weight_quantizer.decided:
            self.weight_quantizer = FixedCodes.start(self.weight, self.weight_quantizer)

    @torch.no_grad()
    def absorb_affine(self) -> None:
        """Fold the affine into the weight scale and the bias: ``s <- scale * s``, ``b <- scale * b + shift``."""
        if self.affine is None:
            return
        _, bias = self.affine(self.weight, self.bias)
        if self.weight_quantizer is None:
            self.weight.mul_(per_row(self.affine.scale, self.weight))
        else:
            self.harden()
            self.weight_quantizer.scale = self.weight_quantizer.scale * self.affine.scale
        self.bias.copy_(bias)
        self.affine = None


class QuantConv2d(QuantLayer, nn.Conv2d):  # type: ignore[misc]  # its bias is never None
    """A convolution with quantizer slots; it always has a bias, so that a shift can be absorbed.

    Args:
        layer: The float convolution, whose parameters it takes over (shared, not copied).
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ConfigError(f"convolution with padding {layer.padding!r}, {layer.padding_mode!r} is not supported")
        nn.Conv2d.__init__(
            self,
            layer.in_channels,
            layer.out_channels,
            _pair(layer.kernel_size),
            _pair(layer.stride),
            _pair(layer.padding),
            _pair(layer.dilation),
            layer.groups,
            device="meta",
        )
        self._take_over(layer)

    def forward(self, input: Tensor) -> Tensor:
        """``(N, C_in, H, W) -> (N, C_out, H', W')``."""
        x = input if self.input_quantizer is None else self.input_quantizer(input)
        y = self._conv_forward(x, *self.effective())
        return y if self.output_quantizer is None else self.output_quantizer(y)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = sizes
    return rows, columns


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]  # a bias is always there
    """A linear layer with quantizer slots; see :class:`QuantConv2d`."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, device="meta")
        self._take_over(layer)

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features) -> (..., out_features)``."""
        x = input if self.input_quantizer is None else self.input_quantizer(input)
        y = F.linear(x, *self.effective())
        return y if self.output_quantizer is None else self.output_quantizer(y)


def quant_layer(layer: nn.Module) -> QuantLayer:
    """The quantized counterpart of a float layer, with empty slots.

    Raises:
        ConfigError: There is none for its type or its padding.
    """
    if isinstance(layer, nn.Conv2d):
        return QuantConv2d(layer)
    if isinstance(layer, nn.Linear):
        return QuantLinear(layer)
    raise ConfigError(f"a layer of type {type(layer).__name__} cannot be quantized: declare it in float_modules")


class QuantActivation(nn.Module):
    """An activation function followed by a quantizer (placement ``output``).

    Args:
        function: The float network's activation module.
        quantizer: Acts on its output.
    """

    def __init__(self, function: nn.Module, quantizer: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.output_quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        """``quantizer(function(x))``, any shape."""
        return self.output_quantizer(self.function(x))
