"""What is computed from constants alone, such as the queries that a transformer has learned.

OpenVINO computes attention in one kernel, which may write its result over the query where both have one shape. It does
so too where the query is computed from constants, once for all frames: from the second frame on the query is the result
of the frame before (OpenVINO 2026.4.1; ``benchmarks/openvino_inplace.py`` shows it in a graph of five operations). A
query that *is* a constant is left alone.
"""

from __future__ import annotations

from typing import Any

from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.system.extras import needed

_OF_WEIGHTS = ("DequantizeLinear", "Transpose", "Reshape", "Squeeze", "Unsqueeze")
"""What weights go through, which stay codes."""


def compute_constants(editor: Editor) -> None:
    """Compute what depends on no input; weights, which are only brought from codes to floats and laid out, stay so.

    Args:
        editor: Editor of a simplified graph, whose nodes are in order and stay so.
    """
    known, computed = {tensor.name for tensor in editor.graph.initializer}, set[str]()
    nodes = []
    for node in editor.graph.node:
        if not known.issuperset(name for name in node.input if name):
            continue
        nodes.append(node)
        known.update(node.output)
        if node.op_type not in _OF_WEIGHTS or not computed.isdisjoint(node.input):
            computed.update(node.output)
    read = {name for node in editor.graph.node if not known.issuperset(node.output) for name in node.input}
    wanted = sorted(computed & read)
    for name, value in zip(wanted, _values(editor, nodes, wanted), strict=True):
        node = editor.producer(name)
        editor.rename(node, f"{name}/computed", list(node.output).index(name))
        editor.set_constant(name, value)
    editor.drop_unread_nodes()
    editor.drop_unread_constants()


def _values(editor: Editor, nodes: list[Any], wanted: list[str]) -> list[Any]:
    """Values of tensors that nodes give from constants."""
    if not wanted:
        return []
    onnx, evaluator = needed("onnx", "onnx"), needed("onnx.reference", "onnx").ReferenceEvaluator
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in wanted]
    graph = onnx.helper.make_graph(nodes, "constants", [], outputs, editor.graph.initializer)
    model = onnx.helper.make_model(graph, opset_imports=editor.model.opset_import, ir_version=editor.model.ir_version)
    return list(evaluator(model).run(None, {}))
