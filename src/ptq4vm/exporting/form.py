"""The export form of a quantized network: its fake quantizers as the operations of an integer graph.

In the export form every activation quantizer is a QuantizeLinear and a DequantizeLinear with the calibrated scale and
zero point, and every quantized weight is its integer codes behind a DequantizeLinear. It computes what the
fake-quantized network computes, up to the rounding of floats.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.fold import absorb
from ptq4vm.quant.functional import dequantize, quantize
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import QuantActivation, QuantConv2d, QuantLayer
from ptq4vm.quant.quantizers.base import ActivationQuantizer, per_column, per_row
from ptq4vm.quant.segments import segment_scales

CODES = "codes"
"""Name of the buffer that holds a layer's weight codes: by it the layer is found again in the graph."""
U8_LEVELS = 255
_INT32 = 6  # in ONNX's list of types


class _Quantize(torch.autograd.Function):
    """``QuantizeLinear``: float to uint8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
        codes = quantize(x, _along(scale, x, axis), _along(zero, x, axis), 0, U8_LEVELS)
        return codes.to(torch.uint8)

    @staticmethod
    def symbolic(g: Any, x: Any, scale: Any, zero: Any, axis: int) -> Any:
        return g.op("QuantizeLinear", x, scale, zero, axis_i=axis)


class _Dequantize(torch.autograd.Function):
    """``DequantizeLinear``: integers to float."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
        return dequantize(codes.float(), _along(scale, codes, axis), _along(zero, codes, axis))

    @staticmethod
    def symbolic(g: Any, codes: Any, scale: Any, zero: Any, axis: int) -> Any:
        return g.op("DequantizeLinear", codes, scale, zero, axis_i=axis)


class _Lookup(torch.autograd.Function):
    """``Gather`` from a table of 256 codes, for quantizers whose levels are not evenly spaced."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, table: Tensor) -> Tensor:
        return table[codes.int()]

    @staticmethod
    def symbolic(g: Any, codes: Any, table: Any) -> Any:
        return g.op("Gather", table, g.op("Cast", codes, to_i=_INT32), axis_i=0)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """``values`` shaped to be broadcast along ``axis`` of ``x``; one value for all where it has no dimension."""
    return values if values.ndim == 0 else values.view(-1, *[1] * (x.ndim - 1 - axis))


class ExportActivation(nn.Module):
    """An activation quantizer as QuantizeLinear and DequantizeLinear on the unsigned 8-bit type.

    Fewer bits than 8 are exact on it: what exceeds their own range is clipped to its upper end first (the lower end
    is code 0 in both, where the 8-bit type saturates by itself).

    Args:
        quantizer: With a scale for all channels, or one for each.
        fold: Leave the scales of the channels out of the way back to float: whoever reads the result has multiplied
            its weights by them. An integer convolution knows only one scale for its input.
    """

    scale: Tensor
    zero: Tensor
    out_scale: Tensor
    out_zero: Tensor
    lower: Tensor | None
    upper: Tensor
    table: Tensor | None

    def __init__(self, quantizer: ActivationQuantizer, fold: bool = False) -> None:
        super().__init__()
        scale, zero_point, quant_max, table, shift = quantizer.qparams()
        zero = zero_point.to(torch.uint8)
        self.clips = quant_max < U8_LEVELS
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero.expand_as(scale).clone())
        self.register_buffer("out_scale", torch.ones(()) if fold else scale.clone())
        self.register_buffer("out_zero", zero.clone() if fold else self.zero.clone())
        self.register_buffer("table", None if table is None else table.to(torch.uint8))
        first = 0.0 if shift is None else shift
        upper = (first + quant_max - zero.float()) * scale
        self.register_buffer("lower", None if shift is None else ((shift - zero.float()) * scale).view(-1, 1, 1))
        self.upper_value = float(upper.max())
        self.register_buffer("upper", upper.view(-1, 1, 1) if scale.ndim else upper)

    def forward(self, x: Tensor) -> Tensor:
        """Round ``x`` of any shape (channels at dimension -3 where each has its own scale) to values that codes stand
        for."""
        if self.lower is not None:
            x = torch.maximum(x, self.lower)
        if self.clips:
            x = torch.minimum(x, self.upper) if self.upper.ndim else x.clamp(max=self.upper_value)
        axis = max(x.ndim - 3, 0)
        codes = _Quantize.apply(x, self.scale, self.zero, axis)
        if self.table is not None:
            codes = _Lookup.apply(codes, self.table)
        return _Dequantize.apply(codes, self.out_scale, self.out_zero, axis)


class ExportLayer(nn.Module):
    """A quantized convolution or linear layer with integer weight codes.

    Args:
        layer: Absorbed: without an affine, and with its rounding decided.
        scales: ``(C_in,)`` of the stored tensors that it reads (placement ``engine``), when they differ.
    """

    weight_scale: Tensor
    weight_zero: Tensor
    divisor: Tensor | None

    def __init__(self, layer: QuantLayer, scales: Tensor | None = None) -> None:
        super().__init__()
        quantizer = layer.input_quantizer
        assert quantizer is None or isinstance(quantizer, ActivationQuantizer)
        own = quantizer.channel_scale().detach() if quantizer is not None and _is_depthwise(layer, quantizer) else None
        grouped = isinstance(layer, QuantConv2d) and layer.groups > 1
        # the input is divided by its scales and the weight multiplied: what reaches the convolution are bare codes
        self.register_buffer("divisor", None if scales is None else scales.view(-1, 1, 1))
        self.input_quantizer = None if quantizer is None else ExportActivation(quantizer, fold=own is not None)
        output = layer.output_quantizer
        self.output_quantizer = None if output is None else ExportActivation(output)  # type: ignore[arg-type]
        self.bits = None if layer.weight_quantizer is None else layer.weight_quantizer.bits
        # where every input channel has rows of the weight to itself, the scales of these rows take up its scale
        channels = scales if grouped and own is None else own
        rows = len(layer.weight)
        factor = layer.weight.new_ones(rows) if channels is None else channels.repeat_interleave(rows // len(channels))
        if layer.weight_quantizer is None:
            weight = layer.weight.detach() * per_row(factor, layer.weight)
            if scales is not None and not grouped:  # the codes of a quantized weight have them already
                weight = weight * per_column(scales, weight)
            self.weight = nn.Parameter(weight, requires_grad=False)
        else:
            self.register_buffer(CODES, layer.weight_quantizer.codes(layer.weight).contiguous())
            self.register_buffer("weight_scale", layer.weight_quantizer.scale.float() * factor)
            self.register_buffer("weight_zero", torch.zeros(len(factor), dtype=torch.int8))
        self.bias = layer.bias
        self.geometry: tuple[Any, ...] | None = None
        if isinstance(layer, QuantConv2d):
            self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the quantized layer computes for ``x``, from its integer weight codes."""
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        if self.divisor is not None:
            x = x / self.divisor
        weight = self.weight if self.bits is None else self._dequantized()
        y = F.linear(x, weight, self.bias) if self.geometry is None else F.conv2d(x, weight, self.bias, *self.geometry)
        return y if self.output_quantizer is None else self.output_quantizer(y)

    def _dequantized(self) -> Tensor:
        return _Dequantize.apply(self.get_buffer(CODES), self.weight_scale, self.weight_zero, 0)


def _is_depthwise(layer: QuantLayer, quantizer: ActivationQuantizer) -> bool:
    """Whether every input channel has its own scale and reaches its own output channels only."""
    if not isinstance(layer, QuantConv2d) or not quantizer.sizes:
        return False
    return layer.groups == layer.in_channels == len(quantizer.channel_scale())


def export_form(network: MattingNetwork, target_name: str) -> MattingNetwork:
    """Copy a quantized (or float) network into the export form, in eval mode and the usual memory layout.

    GAC's affine, where there is one, is absorbed into weights and biases.

    Args:
        network: The network to copy; it is not changed.
        target_name: Name of the export target, for which the network may have modules in another form.
    """
    form = absorb(copy.deepcopy(network)).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    sites = {
        path: module.output_quantizer
        for path, module in form.named_modules()
        if isinstance(module, QuantActivation) and isinstance(module.output_quantizer, ActivationQuantizer)
    }
    for path, layer in quantized_layers(form).items():
        form.set_submodule(path, ExportLayer(layer, _read_scales(layer, sites)))
    replacements = form.export_replacements(target_name)
    for path, module in list(form.named_modules()):
        if isinstance(module, QuantActivation):
            quantizer = module.output_quantizer
            assert isinstance(quantizer, ActivationQuantizer)
            form.set_submodule(path, nn.Sequential(module.function, ExportActivation(quantizer)))
            continue
        replace = next((make for kind, make in replacements.items() if isinstance(module, kind)), None)
        if replace is not None:
            form.set_submodule(path, replace(module))
    return form


def _read_scales(layer: QuantLayer, sites: Mapping[str, ActivationQuantizer]) -> Tensor | None:
    """Scales of the stored tensors that a layer reads, where it has to bring them to one; an engine knows only one."""
    if not layer.reads:
        return None
    scales = segment_scales(sites, layer.reads)
    carried = layer.weight_quantizer is not None and layer.weight_quantizer.factor is not None
    return scales if carried or bool((scales != scales[0]).any()) else None


def weight_bits(form: MattingNetwork) -> dict[str, int]:
    """Give the bit-width of every quantized weight of an export form, by layer path."""
    layers = {path: module for path, module in form.named_modules() if isinstance(module, ExportLayer)}
    return {path: layer.bits for path, layer in layers.items() if layer.bits is not None}


class FrameStep(nn.Module):
    """One frame of a network, ``src, r1i, ... -> fgr, pha, r1o, ...``: the module that is traced and exported.

    Args:
        network: In its export form.
        downsample_ratio: Fixed in the graph.
    """

    def __init__(self, network: MattingNetwork, downsample_ratio: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.downsample_ratio = downsample_ratio

    def forward(self, src: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """``src`` ``(1, 3, H, W)`` in [0, 1] and the states to foreground, alpha and the next states."""
        return tuple(self.network(src, *states, downsample_ratio=self.downsample_ratio))
