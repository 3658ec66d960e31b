"""The editor of ONNX graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptq4vm.exporting.graph.editor import Editor

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
    editor = Editor(model)
    editor.drop_unread_nodes()
    assert [node.name for node in model.graph.node] == ["sum", "y"]
    editor.drop_unread_constants()
    assert [tensor.name for tensor in model.graph.initializer] == ["one", "kept"]
    onnx.checker.check_model(model, full_check=True)


def test_readers_are_redirected_but_for_one(model: Any) -> None:
    editor = Editor(model)
    editor.redirect("x", "one", but="product")
    assert [list(node.input) for node in model.graph.node] == [["one", "one"], ["x", "two"], ["product"], ["sum"]]
    editor.redirect("one", "x")
    assert list(model.graph.node[0].input) == ["x", "x"]


def test_shapes_tell_what_is_not_known(model: Any) -> None:
    shapes = Editor(model).shapes()
    assert shapes["x"] == shapes["sum"] == shapes["y"] == (2, None)
    assert shapes["kept"] == (2, 1)


def test_the_editor_knows_what_it_changed(model: Any) -> None:
    editor = Editor(model)
    name = editor.constant(np.float32(4))
    other = editor.constant(np.float32(5), "stem")
    assert (name, other, editor.constant(np.float32(6))) == ("shaped/0", "stem/0", "shaped/1")
    editor.insert(1, "Mul", ["sum", name], ["scaled"], "scaled")
    editor.redirect("sum", "scaled", but="scaled")
    assert editor.producer("scaled", "Mul").name == "scaled" and editor.producer("scaled", "Add") is None
    assert [node.name for node in editor.readers("scaled")] == ["y"] and editor.only_reader("y") is None
    editor.rename_tensors({"scaled": "s", "one": "1", "y": "kept as it is", name: "four"})
    assert editor.producer("s").name == "scaled" and editor.producer("scaled") is None
    assert editor.is_constant("1") and editor.value("four") == 4 and editor.value(name) is None
    editor.rename(editor.producer("s"), "t")
    editor.redirect("s", "t")
    editor.remove(editor.producer("dead"))
    editor.finish()
    assert [node.name for node in model.graph.node] == ["sum", "scaled", "y"]
    assert [tensor.name for tensor in model.graph.initializer] == ["1", "kept", "four"]
    onnx.checker.check_model(model, full_check=True)
