"""A softmax between codes in ONNX Runtime: what its one operation for that computes wrongly stays one of floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.targets.onnx.softmax import SAFE, keep_even_softmax_in_float

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

ROWS = 7
STEP = 0.01
"""Between the codes that go in: weights are nearly even."""


def softmax(length: int, scale: float, shape: list[Any]) -> Any:
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {"a": np.float32(STEP), "b": np.uint8(128), "c": np.float32(scale), "d": np.uint8(0)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "a", "b"], ["x/float"]),
        helper.make_node("Softmax", ["x/float"], ["weight"], "softmax", axis=-1),
        helper.make_node("QuantizeLinear", ["weight", "c", "d"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, kinds.UINT8, shape) for name in ("x", "y")]
    stored = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "softmax", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: Any, x: np.ndarray, folder: Path) -> tuple[np.ndarray, set[str]]:
    """The codes that come out, and which operations ran."""
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(folder / "executed.onnx")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    executed = onnx.load_model(options.optimized_model_filepath)
    return session.run(None, {"x": x})[0], {node.op_type for node in executed.graph.node}


@pytest.mark.parametrize("length", [5, 24, 90])
@pytest.mark.parametrize("times", [0.1, 0.9, 1.1, 2.0])
@pytest.mark.parametrize("known", [True, False])
def test_weights_are_right_at_every_scale(length: int, times: float, known: bool, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(100, 156, (1, ROWS, length)).astype(np.uint8)
    scale = 1 / (times * SAFE * length)
    exact = np.exp((x.astype(np.float64) - 128) * STEP)
    expected = np.clip(np.rint(exact / exact.sum(-1, keepdims=True) / scale), 0, 255)
    model = softmax(length, scale, [1, ROWS, length if known else "length"])
    keep_even_softmax_in_float(Editor(model))
    found, kinds = run(model, x, tmp_path)
    # the operation of codes cuts the scale's reciprocal off to a whole number
    assert np.abs(found - expected).max() <= 1
    assert ("QLinearSoftmax" in kinds) is (known and times < 1), kinds


def test_other_softmaxes_are_left_alone() -> None:
    model = softmax(8, 1e-5, [1, ROWS, 8])
    model.graph.node.append(onnx.helper.make_node("Identity", ["weight"], ["other"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1, ROWS, 8]))
    before = [node.SerializeToString() for node in model.graph.node]
    keep_even_softmax_in_float(Editor(model))
    assert sorted(node.SerializeToString() for node in model.graph.node) == sorted(before)
