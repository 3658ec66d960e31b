"""From the export form to an ONNX graph: the trace of one frame, then what torch's exporter cannot write."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ptq4vm.exporting.form import CODES, FrameStep, export_form, weight_bits
from ptq4vm.exporting.graph.editor import Editor, Pass
from ptq4vm.exporting.graph.int4 import pack_weights
from ptq4vm.exporting.graph.names import name_layers, shorten_names
from ptq4vm.exporting.graph.simplify import simplify
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.models.base import MattingNetwork
from ptq4vm.system.extras import needed

TRACED_OPSET = 20
"""The highest that torch's tracing exporter writes."""
OPSET = 21
"""The first with packed 4-bit integers; the operations used here mean the same as in 20."""
IR_VERSION = 10


def input_names(states: int) -> list[str]:
    """Names of a graph's inputs in order: ``src`` and the states before the frame, ``r1i, ...``."""
    return ["src", *(f"r{i + 1}i" for i in range(states))]


def output_names(states: int) -> list[str]:
    """Names of a graph's outputs in order: ``fgr``, ``pha`` and the states after the frame, ``r1o, ...``."""
    return ["fgr", "pha", *(f"r{i + 1}o" for i in range(states))]


def to_onnx(
    network: MattingNetwork,
    shape: FrameShape,
    metadata: Mapping[str, str],
    target_name: str,
    passes: Sequence[Pass] = (),
) -> Any:
    """Trace one frame of a quantized network to an integer graph (or of a float one to a float graph).

    Args:
        network: The quantized network, from :func:`ptq4vm.api.load_checkpoint`; not changed.
        shape: Size of the frames that the graph shall take.
        metadata: Text by key that becomes the model's ``metadata_props``.
        target_name: Name of the :class:`ptq4vm.exporting.target.Target`, by which special modules get their form.
        passes: Changes to the simplified graph, in this order, before names are shortened and weights packed.

    Returns:
        A checked ``onnx.ModelProto``. Its convolutions, and their results, are named by the layers' paths.

    Raises:
        ConfigError: onnx is not installed.
    """
    onnx = needed("onnx", "onnx")
    form = export_form(network, target_name)
    model = onnx.load_model_from_string(_trace(FrameStep(form, shape.downsample_ratio), network.num_states, shape))
    editor = Editor(model)
    name_layers(editor, f".{CODES}", "network.")
    simplify(editor)
    for change in passes:
        change(editor)
    shorten_names(editor, "/network/")
    pack_weights(editor, weight_bits(form))
    model.ir_version = IR_VERSION
    model.opset_import[0].version = OPSET
    model.producer_name, model.producer_version = "ptq4vm", metadata.get("version", "")
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


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
