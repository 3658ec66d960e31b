"""Operations as LiteRT computes them, against ONNX Runtime on the same graph: to a code, or to floats' rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
interpreters = pytest.importorskip("ai_edge_litert.interpreter")

from ptq4vm.errors import ExportError  # noqa: E402
from ptq4vm.exporting.graph.codes import move_codes  # noqa: E402
from ptq4vm.exporting.graph.editor import Editor, Grid  # noqa: E402
from ptq4vm.exporting.targets.litert.lower import lower  # noqa: E402

SIZE = (1, 6, 10, 8)  # N, C, H, W
GRID = Grid(0.05, 120)
RESULT = Grid(0.11, 90)


class Graph:
    """An ONNX graph with a state that goes in as codes, and codes that come out as the state after."""

    def __init__(self, size: Sequence[int] = SIZE, grid: Grid = GRID) -> None:
        value = onnx.helper.make_tensor_value_info("r1i", onnx.TensorProto.UINT8, size)
        made = onnx.helper.make_graph([], "g", [value], [])
        self.editor = Editor(
            onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
        )
        self.grid = grid
        self.kinds: set[str] = set()
        self.x = self.editor.dequantize("r1i", grid)

    def rounded(self, x: str, grid: Grid, top: int = 255) -> str:
        """Codes of a result, from 0 to ``top``."""
        if top < 255:
            x = self.editor.add("Clip", [x, "", self.constant(np.float32((top - grid.zero) * grid.scale))])
        return self.editor.quantize(x, grid)

    def constant(self, value: Any) -> str:
        return self.editor.constant(np.asarray(value))

    def compare(self, output: str, kind: str = "UINT8", moved: bool = False) -> NDArray[Any]:
        """Differences between LiteRT's result (of a graph that moves codes if ``moved``) and ONNX Runtime's."""
        graph = self.editor.graph
        graph.output.append(onnx.helper.make_tensor_value_info(output, getattr(onnx.TensorProto, kind), None))
        self.editor.finish()
        inferred = onnx.shape_inference.infer_shapes(self.editor.model, data_prop=True)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
        size = session.get_inputs()[0].shape
        codes = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
        expected = session.run(None, {"r1i": codes})[0]
        editor = Editor(inferred)
        if moved:
            move_codes(editor)
            editor.finish()
        made = lower(editor, {"r1i": self.grid})
        self.kinds = {each.kind for each in made.model.operations}
        number = made.outputs[output]
        content = made.model.content(made.inputs, {output: number}, {})
        interpreter = interpreters.Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        given = (codes.transpose(0, 2, 3, 1) ^ np.uint8(128)).view(np.int8)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        if kind == "UINT8":
            assert found.dtype == np.int8
            return np.abs(found.astype(int) + 128 - expected.transpose(0, 2, 3, 1).astype(int))
        return np.abs(found - expected.transpose(0, 2, 3, 1))


def convolution(graph: Graph, bits: int = 8, depthwise: bool = False, **attributes: Any) -> str:
    """A 3x3 convolution of integer weights, and a bias, of the graph's input."""
    draw = np.random.default_rng(1)
    channels = SIZE[1]
    rows = channels if depthwise else 5
    most = 2 ** (bits - 1)
    weight = draw.integers(-most, most, (rows, 1 if depthwise else channels, 3, 3)).astype(np.int8)
    scale = draw.uniform(0.002, 0.01, rows).astype(np.float32) * 128 / most
    zeros = np.zeros(rows, np.int8)
    made = graph.editor.add(
        "DequantizeLinear", [graph.constant(weight), graph.constant(scale), graph.constant(zeros)], axis=0
    )
    bias = draw.normal(0, 1, rows).astype(np.float32)
    group = channels if depthwise else 1
    values = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "group": group, **attributes}
    return graph.editor.add("Conv", [graph.x, made, graph.constant(bias)], **values)


@pytest.mark.parametrize("depthwise", (False, True))
@pytest.mark.parametrize("attributes", ({}, {"strides": [2, 2]}, {"dilations": [2, 2], "pads": [2, 2, 2, 2]}))
@pytest.mark.parametrize("bits", (4, 8))
def test_convolutions(bits: int, attributes: dict[str, Any], depthwise: bool) -> None:
    graph = Graph()
    differences = graph.compare(graph.rounded(convolution(graph, bits, depthwise, **attributes), RESULT))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01


def test_a_channel_that_is_all_but_dead_keeps_its_bias() -> None:
    """Of a weight of scale 1e-12 the bias would be a multiple beyond 32 bits."""
    graph = Graph()
    x = convolution(graph)
    weight = graph.editor.producer(graph.editor.producer(x).input[1])
    scale = graph.editor.scales(weight)[0].copy()
    scale[1] = 1e-12
    weight.input[1] = graph.constant(scale)
    differences = graph.compare(graph.rounded(x, RESULT))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01
    assert graph.kinds == {"CONV_2D"}


@pytest.mark.parametrize(
    ("zero", "top", "relu"),
    (
        (0, 255, True),
        (90, 255, True),
        (90, 255, False),
        (0, 15, True),
        (5, 15, False),
        (5, 15, True),
        (11, 15, False),
        (3, 7, True),
    ),
)
def test_results_are_cut_off_where_few_codes_end(zero: int, top: int, relu: bool) -> None:
    graph = Graph()
    x = convolution(graph)
    x = graph.editor.add("Relu", [x]) if relu else x
    grid = Grid(0.11 if top == 255 else 0.9, zero)
    codes = graph.rounded(x, grid, top)
    differences = graph.compare(codes)
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01


def test_a_hard_sigmoid_is_the_convolution_s_own_rounding() -> None:
    graph = Graph()
    x = graph.editor.add("HardSigmoid", [convolution(graph)], alpha=1 / 6, beta=0.5)
    differences = graph.compare(graph.rounded(x, Grid(1 / 255, 0)))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01


@pytest.mark.parametrize("top", (255, 15))
@pytest.mark.parametrize("kind", ("Add", "Sub", "Mul"))
def test_sums_and_products_of_codes(kind: str, top: int) -> None:
    graph = Graph()
    other = graph.rounded(graph.editor.add("Relu", [graph.x]), Grid(0.03, 7))
    x = graph.editor.add(kind, [graph.x, graph.editor.dequantize(other, Grid(0.03, 7))])
    differences = graph.compare(graph.rounded(x, Grid(0.0871 if top == 255 else 0.8713, 5 if top == 15 else 100), top))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.03


@pytest.mark.parametrize("kind", ("HardSwish", "Sigmoid", "Tanh", "HardSigmoid", "Relu"))
def test_functions_between_codes_are_exact(kind: str) -> None:
    graph = Graph(grid=Grid(0.0513, 120))
    differences = graph.compare(graph.rounded(graph.editor.add(kind, [graph.x]), Grid(0.0237, 31)))
    assert (differences > 0).mean() < 0.005 and differences.max() <= 1


def test_a_mean_over_all_pixels() -> None:
    graph = Graph()
    differences = graph.compare(graph.rounded(graph.editor.add("GlobalAveragePool", [graph.x]), Grid(0.013, 130)))
    assert differences.max() <= 1


@pytest.mark.parametrize(("top", "share"), ((15, 0.0), (255, 0.05)))
def test_codes_are_enlarged(top: int, share: float) -> None:
    """Codes that lie between two others are rounded to the even one where they are few; at 8 bits upwards."""
    graph = Graph(grid=Grid(0.05, 5))
    grid = Grid(1.0, 5)
    few = graph.editor.dequantize(graph.rounded(graph.x, Grid(0.05, 5), top), grid)
    scales = graph.constant(np.float32([1, 1, 2, 2]))
    way = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    large = graph.editor.add("Resize", [few, "", scales], **way)
    codes = graph.editor.quantize(large, grid)
    differences = graph.compare(codes, moved=True)
    assert differences.max() <= 1 and (differences > 0).mean() <= share


def test_joined_codes_keep_their_own_scales() -> None:
    """A convolution's weight carries them; LiteRT joins tensors of one scale only."""
    graph = Graph()
    other = graph.rounded(graph.editor.add("Tanh", [graph.x]), Grid(0.009, GRID.zero))
    joined = graph.editor.add("Concat", ["r1i", other], axis=1)
    differences = graph.compare(joined)
    assert differences.max() == 0 and differences.shape[-1] == 2 * SIZE[1]


def test_parts_of_codes_are_the_codes() -> None:
    graph = Graph()
    graph.editor.insert(
        len(graph.editor.graph.node), "Split", ["r1i", graph.constant(np.int64([2, 4]))], ["a", "b"], "s", axis=1
    )
    ends = [graph.constant(np.int64([end])) for end in (1, 3, 1)]
    assert graph.compare(graph.editor.add("Slice", ["b", *ends])).max() == 0


def test_codes_of_a_scale_for_each_channel() -> None:
    """Into and out of a depthwise convolution its weight takes them up; elsewhere floats are multiplied by them."""
    scales, results = (np.float32([0.03, 0.05, 0.02, 0.06, 0.04, 0.05]) * times for times in (1, 3))
    graph = Graph()
    zeros = graph.constant(np.full(6, GRID.zero, np.uint8))
    graph.x = graph.editor.add("DequantizeLinear", ["r1i", graph.constant(scales), zeros], axis=1)
    x = convolution(graph, depthwise=True)
    codes = graph.editor.add("QuantizeLinear", [x, graph.constant(results), zeros], axis=1)
    again = graph.editor.add("DequantizeLinear", [codes, graph.constant(results), zeros], axis=1)
    found = graph.editor.add("QuantizeLinear", [again, graph.constant(results * 2), zeros], axis=1)
    differences = graph.compare(found)
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01


FLOATS = {
    "AveragePool": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    "MaxPool": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "ReduceMean": {"keepdims": 1},
    "Clip": {},
    "Sub": {},
    "Div": {},
    "BatchNormalization": {"epsilon": 1e-3},
    "InstanceNormalization": {"epsilon": 1e-3},
    "DepthToSpace": {"blocksize": 2},
}


@pytest.mark.parametrize("kind", FLOATS)
def test_operations_of_floats(kind: str) -> None:
    graph = Graph((1, 8, 11, 9))
    draw = np.random.default_rng(2)
    channels = [graph.constant(draw.uniform(0.5, 1.5, 8).astype(np.float32)) for _ in range(4)]
    more = {
        "ReduceMean": [graph.constant(np.int64([1]))],
        "Clip": [graph.constant(np.float32(-1)), graph.constant(np.float32(2))],
        "Sub": [graph.constant(draw.uniform(0.5, 1.5, (8, 1, 1)).astype(np.float32))],
        "Div": [graph.constant(np.float32(3))],
        "BatchNormalization": channels,
        "InstanceNormalization": channels[:2],
    }
    found = graph.editor.add(kind, [graph.x, *more.get(kind, [])], **FLOATS[kind])
    assert graph.compare(found, "FLOAT").max() < 2e-5


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    (
        ("Erf", {}, "Erf"),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, "AveragePool .* with padding"),
    ),
)
def test_what_cannot_be_written(kind: str, attributes: dict[str, Any], said: str) -> None:
    graph = Graph()
    with pytest.raises(ExportError, match=f"target=litert: {said}.* cannot be written: use another target") as caught:
        graph.compare(graph.editor.add(kind, [graph.x], **attributes), "FLOAT")
    assert "\n" not in str(caught.value)
