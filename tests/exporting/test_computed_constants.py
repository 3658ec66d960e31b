"""What is computed from constants alone: in files for OpenVINO it is a constant, and weights stay codes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.targets.openvino.constants import compute_constants

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

HEADS, COUNT, TOKENS, WIDTH = 4, 4, 24, 32


@pytest.fixture(params=["rounded", "floats"])
def model(request: pytest.FixtureRequest) -> Any:
    """Attention of learned queries, projected, to tokens that a layer with codes as weights projects as well."""
    random, helper, kinds = np.random.default_rng(0), onnx.helper, onnx.TensorProto
    constants = {
        "learned": random.standard_normal((1, HEADS, COUNT, WIDTH)).astype(np.float32),
        "codes": random.integers(-64, 64, (WIDTH, WIDTH)).astype(np.int8),
        "scale": np.full(WIDTH, 1 / 100, np.float32),
        "zeros": np.zeros(WIDTH, np.int8),
        "step": np.float32(1 / 40),
        "zero": np.uint8(128),
        "small": np.float32(1 / 20),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zeros"], ["weight"], axis=0),
        helper.make_node("QuantizeLinear", ["learned", "step", "zero"], ["learned/codes"]),
        helper.make_node("DequantizeLinear", ["learned/codes", "step", "zero"], ["learned/rounded"]),
        helper.make_node("MatMul", ["learned/rounded", "weight"], ["projected"]),
        helper.make_node("QuantizeLinear", ["projected", "small", "zero"], ["query/codes"]),
        helper.make_node("DequantizeLinear", ["query/codes", "small", "zero"], ["query"]),
        helper.make_node("MatMul", ["x", "weight"], ["key"]),
        helper.make_node("Transpose", ["key"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["query", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "key"], ["y"]),
    ]
    if request.param == "floats":
        nodes = [node for node in nodes if node.op_type != "QuantizeLinear" and "step" not in node.input]
        nodes = [node for node in nodes if "small" not in node.input]
        for node in nodes:
            for index, name in enumerate(node.input):
                node.input[index] = {"learned/rounded": "learned", "query": "projected"}.get(name, name)
        for name in ("step", "small", "zero"):
            del constants[name]
    shapes = {"x": [1, HEADS, TOKENS, WIDTH], "y": [1, HEADS, COUNT, WIDTH]}
    ports = [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in shapes.items()]
    stored = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "attention", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def tokens() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, HEADS, TOKENS, WIDTH)).astype(np.float32)


def in_onnx_runtime(model: Any) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": tokens()})[0]  # type: ignore[no-any-return]


def test_the_query_is_a_constant_and_the_weight_stays_codes(model: Any) -> None:
    before = in_onnx_runtime(model)
    editor = Editor(model)
    compute_constants(editor)
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds == {"DequantizeLinear": 1, "MatMul": 3, "Transpose": 1, "Softmax": 1}
    value = editor.value("query" if editor.value("query") is not None else "projected")
    assert value is not None and value.shape == (1, HEADS, COUNT, WIDTH)
    assert editor.value("codes") is not None and editor.value("learned") is None
    np.testing.assert_allclose(in_onnx_runtime(model), before, atol=1e-6)
    nodes = [node.SerializeToString() for node in model.graph.node]
    compute_constants(Editor(model))
    assert nodes == [node.SerializeToString() for node in model.graph.node], "nothing is left to compute"


def test_openvino_gives_the_same_for_the_same(model: Any) -> None:
    expected = in_onnx_runtime(model)
    compute_constants(Editor(model))
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    for _ in range(3):
        np.testing.assert_allclose(request.infer({"x": tokens()})[0], expected, atol=1e-5)
