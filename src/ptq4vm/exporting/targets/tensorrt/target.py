"""The file for TensorRT."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.step import state_size
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.form import U8_LEVELS
from ptq4vm.exporting.graph.editor import Editor, Pass, drop_unread
from ptq4vm.exporting.shape import SMALLEST
from ptq4vm.exporting.target import TARGETS, GraphTarget
from ptq4vm.exporting.targets.tensorrt.rules import FOR_ALL, RULES, check_rules
from ptq4vm.exporting.targets.tensorrt.shaping import round_moved, sign_codes
from ptq4vm.exporting.trace import TRACED_OPSET, FrameShape
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import activation_quantizers, quantized_layers
from ptq4vm.system.cpu import Cpu
from ptq4vm.system.extras import needed

IR_VERSION = 9
"""The one that came with opset 20."""


@TARGETS.register("tensorrt")
class TensorRTTarget(GraphTarget):
    """A network as an ``.onnx`` file with explicit quantization, by the rules of :mod:`.rules`.

    Its numbers are checked with ONNX Runtime, which opens it by its suffix and runs its convolutions in float.
    """

    name = "tensorrt"
    suffix = ".trt.onnx"
    engine = OnnxEngine

    def exact(self, cpu: Cpu) -> bool:
        """Say yes: TensorRT adds products in 32 bits, and ONNX Runtime runs convolutions with float biases in float."""
        return True

    def passes(self, network: MattingNetwork, shape: FrameShape) -> Sequence[Pass]:
        """See :meth:`Target.passes`."""
        return (sign_codes, round_moved, drop_unread)

    def graph(self, network: MattingNetwork, shape: FrameShape, metadata: Mapping[str, str] | None = None) -> Any:
        """See :meth:`Target.graph`; the graph keeps the rules.

        Raises:
            ConfigError: onnx is not installed, or the network has other bits than TensorRT's.
            ExportError: The network was calibrated otherwise.
        """
        quantized = _check_bits(network)
        said = {**(metadata or {}), "target": self.name}
        model = super().graph(network, shape, said)
        onnx = needed("onnx", "onnx")
        model.ir_version, model.opset_import[0].version = IR_VERSION, TRACED_OPSET
        if shape.dynamic:
            onnx.helper.set_model_props(model, {**said, **_profile(model, network, shape)})
        onnx.checker.check_model(model, full_check=True)
        check_rules(Editor(model), RULES if quantized else FOR_ALL)
        return model


def _check_bits(network: MattingNetwork) -> bool:
    """Whether anything is quantized. Raises :class:`ConfigError` for other bits than 8."""
    weights = {layer.weight_quantizer.bits for layer in quantized_layers(network).values() if layer.weight_quantizer}
    activations = {quantizer.quant_max for quantizer in activation_quantizers(network).values()}
    if weights - {8} or activations - {U8_LEVELS}:
        few = min([*weights, *(most.bit_length() for most in activations)])
        raise ConfigError(
            f"target=tensorrt is W8A8, and this network has {few} bits: TensorRT multiplies 8-bit integers, and knows "
            "4 bits for blocks of weights alone: quantize with bits=w8a8 +target=tensorrt"
        )
    return bool(weights or activations)


def _profile(model: Any, network: MattingNetwork, shape: FrameShape) -> dict[str, str]:
    """Smallest, usual and largest shape of every input, as ``trtexec`` takes them: half and twice the size given."""
    least = math.ceil(SMALLEST / shape.downsample_ratio)
    usual = (shape.height, shape.width)
    sizes = {
        "profile_min": tuple(max(least, length // 2) for length in usual),
        "profile_opt": usual,
        "profile_max": tuple(2 * length for length in usual),
    }
    return {key: ",".join(_shapes(model, network, size, shape.downsample_ratio)) for key, size in sizes.items()}


def _shapes(model: Any, network: MattingNetwork, size: Sequence[int], ratio: float) -> list[str]:
    found = []
    for port, stride in zip(model.graph.input, (None, *network.state_strides), strict=True):
        channels = [each.dim_value for each in port.type.tensor_type.shape.dim][:2]
        own = size if stride is None else state_size(size, ratio, stride)
        found.append(f"{port.name}:{'x'.join(map(str, [*channels, *own]))}")
    return found
