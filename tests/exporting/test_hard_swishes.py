"""Hard-swish of codes in ONNX Runtime: the gate with the fewest wrong codes, and what the kernels make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptq4vm.exporting.graph.editor import Editor, Grid
from ptq4vm.exporting.targets.onnx.swishes import TOP, best_gate, multiply_hard_swishes

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

LEAST = -0.375
"""The smallest value of the function."""
CODES = np.arange(TOP + 1, dtype=np.uint8)


def grids(largest: float) -> tuple[Grid, Grid]:
    """Of what goes in, from -3 to ``largest``, and of what comes out."""
    ends = ((-3.0, largest), (LEAST, largest * min(largest + 3, 6) / 6))
    steps = [(high - low) / TOP for low, high in ends]
    one, other = (Grid(step, round(-low / step)) for step, (low, _) in zip(steps, ends, strict=True))
    return one, other


def exact(source: Grid, result: Grid) -> np.ndarray:
    x = (CODES.astype(np.float64) - source.zero) * source.scale
    return np.clip(np.rint(x * np.clip(x + 3, 0, 6) / 6 / result.scale) + result.zero, 0, TOP)


def plain(source: Grid, result: Grid) -> int:
    """How many codes are wrong with a gate that is rounded to multiples of 6/255."""
    x = (CODES.astype(np.float64) - source.zero) * source.scale
    gate = np.clip(np.rint((x + 3) * TOP / 6), 0, TOP) / TOP
    return int((np.clip(np.rint(x * gate / result.scale) + result.zero, 0, TOP) != exact(source, result)).sum())


def swish(source: Grid, result: Grid) -> Any:
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {"a": np.float32(source.scale), "b": np.uint8(source.zero)}
    constants |= {"c": np.float32(result.scale), "d": np.uint8(result.zero)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "a", "b"], ["x/float"]),
        helper.make_node("HardSwish", ["x/float"], ["swish"], "swish"),
        helper.make_node("QuantizeLinear", ["swish", "c", "d"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, kinds.UINT8, [1, 1, 16, 16]) for name in ("x", "y")]
    stored = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "swish", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("largest", [0.7, 1.9, 2.66, 4.73, 8.14, 27.39, 54.78])
def test_few_codes_are_wrong_and_none_by_more_than_one(largest: float, tmp_path: Path) -> None:
    source, result = grids(largest)
    gate = best_gate(source, result)
    assert gate.wrong <= plain(source, result)
    model = swish(source, result)
    editor = Editor(model)
    multiply_hard_swishes(editor)
    editor.finish()
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "executed.onnx")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load_model(options.optimized_model_filepath).graph.node}
    assert kinds == {"QLinearAdd", "QLinearMul"}
    found = session.run(None, {"x": CODES.reshape(1, 1, 16, 16)})[0].ravel()
    off = np.abs(found - exact(source, result))
    # kernels compute in float32: a code that lies halfway may go the other way
    assert off.max() <= 1 and abs(int((off > 0).sum()) - gate.wrong) <= 2


def test_wide_ranges_are_exact_where_a_plain_gate_is_not() -> None:
    source, result = Grid(0.2263541519641876, 13), Grid(0.21606, 2)  # of a trained network's first layer
    assert plain(source, result) == 1 and best_gate(source, result).wrong == 0


def test_large_values_pass_as_they_are() -> None:
    source, result = grids(54.78)
    gate = best_gate(source, result)
    assert gate.scale * TOP == pytest.approx(1) and gate.step * TOP == pytest.approx(6)
