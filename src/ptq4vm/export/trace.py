"""From the export form to an ONNX file: the trace of one frame, then what torch's exporter cannot write."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptq4vm.export.form import CODES, FrameStep, export_form, weight_bits
from ptq4vm.export.graph.codes import CodeMover
from ptq4vm.export.graph.editor import drop_unread_constants
from ptq4vm.export.graph.rewrite import Rewriter
from ptq4vm.export.onnx.integers import shape_for_onnx_runtime
from ptq4vm.export.shape import FrameShape
from ptq4vm.io import atomic_path
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.system.extras import needed

TRACED_OPSET = 20
"""The highest that torch's tracing exporter writes."""
OPSET = 21
"""The first with packed 4-bit integers; the operations used here mean the same as in 20."""
IR_VERSION = 10


def input_names(states: int) -> list[str]:
    """``src, r1i, ...``."""
    return ["src", *(f"r{i + 1}i" for i in range(states))]


def output_names(states: int) -> list[str]:
    """``fgr, pha, r1o, ...``."""
    return ["fgr", "pha", *(f"r{i + 1}o" for i in range(states))]


def to_onnx(
    network: MattingNetwork, shape: FrameShape, metadata: Mapping[str, str] | None = None, openvino: bool = False
) -> Any:
    """The integer graph of one frame of a quantized network (or the float graph of a float one).

    Args:
        network: From :func:`ptq4vm.api.load_checkpoint`; not changed.
        shape: Of its input.
        metadata: For ``metadata_props``.
        openvino: Shape the graph for OpenVINO instead of ONNX Runtime (placement ``engine``).

    Returns:
        A checked ``onnx.ModelProto``. Its convolutions, and their results, are named by the layers' paths.

    Raises:
        ConfigError: onnx is not installed.
    """
    onnx = needed("onnx", "onnx")
    form = export_form(network, "openvino" if openvino else "onnx")
    model = onnx.load_model_from_string(_trace(FrameStep(form, shape.downsample_ratio), network.num_states, shape))
    rewriter = Rewriter(model)
    rewriter.name_layers(f".{CODES}", "network.")
    rewriter.simplify()
    shaped = not openvino and _stores_operations(network)
    CodeMover(model, openvino or (shaped and not shape.dynamic)).run()
    if shaped:
        shape_for_onnx_runtime(model)
    rewriter.shorten_names("/network/")
    _pack(model, {path: bits for path, bits in weight_bits(form).items() if bits <= 4})
    model.ir_version = IR_VERSION
    model.opset_import[0].version = OPSET
    model.producer_name, model.producer_version = "ptq4vm", (metadata or {}).get("version", "")
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    return model


def export_onnx(network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
    """Write :func:`to_onnx` to a file, whole or not at all. Raises :class:`SaveError`, :class:`ConfigError`."""
    content = to_onnx(network, shape, metadata).SerializeToString()
    with atomic_path(out) as temporary:
        temporary.write_bytes(content)


def _stores_operations(network: MattingNetwork) -> bool:
    """Whether the result of every operation is quantized."""
    return any(layer.reads and layer.output_quantizer is not None for layer in quantized_layers(network).values())


def _trace(step: FrameStep, states: int, shape: FrameShape) -> bytes:
    """The graph as torch's exporter writes it."""
    src = torch.rand(1, 3, shape.height, shape.width)
    with torch.no_grad():
        zeros = [torch.zeros_like(state) for state in step(src)[2:]]
    inputs, outputs = input_names(states), output_names(states)
    axes = {}
    if shape.dynamic:
        axes = {"src": {2: "height", 3: "width"}, "fgr": {2: "height", 3: "width"}, "pha": {2: "height", 3: "width"}}
        for name in [*inputs[1:], *outputs[2:]]:
            axes[name] = {2: f"{name[:-1]}_height", 3: f"{name[:-1]}_width"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # the exporter that traces is called legacy, but only it lets a layer say which nodes it becomes
        for category in (DeprecationWarning, UserWarning, torch.jit.TracerWarning):
            warnings.simplefilter("ignore", category)
        torch.onnx.export(
            step,
            (src, *zeros),
            buffer,  # type: ignore[arg-type]
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=TRACED_OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def _pack(model: Any, bits: Mapping[str, int]) -> None:
    """Store the codes of these layers two to a byte, and their zero points likewise."""
    onnx = needed("onnx", "onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    # equal tensors are kept once: one that an 8-bit layer uses too stays 8-bit
    wide = {node.input[0] for node in nodes if _layer_of(node) not in bits}
    packed: dict[str, str] = {}
    for node in nodes:
        if node.input[0] in wide:
            continue
        for position in (0, 2):
            name = node.input[position]
            if name not in packed:
                packed[name] = f"{name}.int4"
                codes = onnx.numpy_helper.to_array(tensors[name])
                model.graph.initializer.append(
                    onnx.helper.make_tensor(
                        packed[name], onnx.TensorProto.INT4, codes.shape, pack_int4(codes), raw=True
                    )
                )
            node.input[position] = packed[name]
    drop_unread_constants(model.graph)


def _layer_of(node: Any) -> str:
    """Path of the layer whose weight a node gives, which :meth:`Rewriter.name_layers` wrote into its name."""
    return str(node.name).removesuffix("/weight")


def pack_int4(codes: NDArray[np.int8]) -> bytes:
    """Codes in [-8, 7] two to a byte, the first in the low half, as ONNX stores int4."""
    halves = codes.ravel().astype(np.uint8) & 15
    if halves.size % 2:
        halves = np.append(halves, np.uint8(0))
    return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8).tobytes()
