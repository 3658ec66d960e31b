"""The file for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.exporting.graph.codes import MOVES, move_codes, multiply_apart
from ptq4vm.exporting.graph.editor import Pass, drop_unread
from ptq4vm.exporting.target import TARGETS, GraphTarget
from ptq4vm.exporting.targets.onnx.integers import shape_for_onnx_runtime
from ptq4vm.exporting.targets.onnx.softmax import keep_even_softmax_in_float
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.placement.wiring import trace

_EXACT_MOVES = tuple(kind for kind in MOVES if kind != "Resize")


@TARGETS.register("onnx")
class OnnxTarget(GraphTarget):
    """A network as one ``.onnx`` file of standard operations, shaped for ONNX Runtime."""

    name = "onnx"
    suffix = ".onnx"
    engine = OnnxEngine

    def passes(self, network: MattingNetwork, shape: FrameShape) -> Sequence[Pass]:
        """See :meth:`Target.passes`.

        ONNX Runtime cuts off where it should round in resizing codes, and refuses sums and products of tensors with a
        scale for each channel. Where the result of every operation is quantized, and sizes are known, neither is left.
        """
        operations = _stores_operations(network)
        moving: list[Pass] = [move_codes]
        if not operations or shape.dynamic:
            moving = [partial(move_codes, moves=_EXACT_MOVES), multiply_apart]
        return [*moving, drop_unread, keep_even_softmax_in_float, *([shape_for_onnx_runtime] if operations else [])]


def _stores_operations(network: MattingNetwork) -> bool:
    """Whether the result of every operation is quantized: of layers too, where such are added up or bent by a curve.

    Without any of these there is nothing that only storing operations would quantize.
    """
    readers = [layer for layer in quantized_layers(network).values() if layer.reads]
    if any(layer.output_quantizer is not None for layer in readers):
        return True
    return bool(readers) and not trace(network).results
