"""Plain functions on an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptq4vm.export.graph.editor import drop_unread_constants, drop_unread_nodes, redirect_readers, tensor_shapes

onnx = pytest.importorskip("onnx")


@pytest.fixture
def model() -> Any:
    """``y = relu(x + one)``; nobody reads ``dead`` and what leads to it, and ``kept`` is an output and a constant."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Add", ["x", "one"], ["sum"], "sum"),
        helper.make_node("Mul", ["x", "two"], ["product"], "product"),
        helper.make_node("Neg", ["product"], ["dead"], "dead"),
        helper.make_node("Relu", ["sum"], ["y"], "y"),
    ]
    names = {"one": 1, "two": 2, "kept": 3}
    constants = [onnx.numpy_helper.from_array(np.full((2, 1), v, np.float32), name) for name, v in names.items()]
    values = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, "width"]),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, "width"]),
        helper.make_tensor_value_info("kept", onnx.TensorProto.FLOAT, [2, 1]),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], constants))


def test_what_nobody_reads_goes(model: Any) -> None:
    drop_unread_nodes(model.graph)
    assert [node.name for node in model.graph.node] == ["sum", "y"]
    drop_unread_constants(model.graph)
    assert [tensor.name for tensor in model.graph.initializer] == ["one", "kept"]
    onnx.checker.check_model(model, full_check=True)


def test_readers_are_redirected_but_for_one(model: Any) -> None:
    redirect_readers(model.graph, "x", "one", but="product")
    assert [list(node.input) for node in model.graph.node] == [["one", "one"], ["x", "two"], ["product"], ["sum"]]
    redirect_readers(model.graph, "one", "x")
    assert list(model.graph.node[0].input) == ["x", "x"]


def test_shapes_tell_what_is_not_known(model: Any) -> None:
    shapes = tensor_shapes(model)
    assert shapes["x"] == shapes["sum"] == shapes["y"] == (2, None)
    assert shapes["kept"] == (2, 1)
