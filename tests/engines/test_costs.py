"""What each operation of a file costs and why it is in float: by engines' own profiles, on graphs that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy_runs import random_quantized, spec
from ptq4vm.engines.benchmark import images
from ptq4vm.engines.costs.operation import Costs, Operation
from ptq4vm.engines.explaining import explain, frame_size
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.engines.step import StepEngine
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec
from ptq4vm.system.cpu import this_cpu

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SIDE = 16
INTEGERS = {"overflow": "safe", "bits": "w8a8"}
CASES = {
    "integers": "",
    "float bias": "float bias: ONNX Runtime's integer convolutions take a bias of integers",
    "float result": "its result is not quantized: ONNX Runtime's integer convolutions end in codes (+target=onnx)",
    "float weight": "float by choice: its weight is not quantized",
    "float input": "float by choice: what it reads is not quantized",
    "packed weight": "weights of 4 bits: ONNX Runtime's integer convolutions take 8",
}


class Drawn:
    """A graph that is written node by node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name or output, **attributes))
        return output

    def rounded(self, x: str, output: str) -> str:
        """Codes and back."""
        grid = [self.constant(f"{output}.scale", np.float32(0.02)), self.constant(f"{output}.zero", np.uint8(128))]
        self.node("QuantizeLinear", [x, *grid], f"{output}.codes")
        return self.node("DequantizeLinear", [f"{output}.codes", *grid], output)

    def integers(self, name: str, codes: np.ndarray, scale: float, output: str) -> str:
        """A constant behind its scales, one for each row."""
        zero = np.zeros(len(codes), codes.dtype)
        scales = self.constant(f"{name}.scale", np.full(len(codes), scale, np.float32))
        inputs = [self.constant(f"{name}.codes", codes), scales, self.constant(f"{name}.zero", zero)]
        return self.node("DequantizeLinear", inputs, output, f"{name}/weight" if name == "head.conv" else name, axis=0)

    def write(self, path: Path) -> Path:
        kind = onnx.TensorProto.FLOAT
        ports = [
            onnx.helper.make_tensor_value_info(name, kind, [1, count, SIDE, SIDE])
            for name, count in (("src", 3), ("fgr", 3), ("pha", 1))
        ]
        graph = onnx.helper.make_graph(self.nodes, "drawn", ports[:1], ports[1:], self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
        onnx.helper.set_model_props(model, INTEGERS)
        path.write_bytes(model.SerializeToString())
        return path


def one_convolution(path: Path, case: str) -> Path:
    """A 3x3 convolution ``head.conv`` between codes but for what the case leaves out, and a mean that nobody rounds."""
    drawn, random = Drawn(), np.random.default_rng(0)
    codes = random.integers(-8, 8, (3, 3, 3, 3)).astype(np.int8)
    x = "src" if case == "float input" else drawn.rounded("src", "head.in")
    if case == "float weight":
        weight = drawn.constant("w", codes.astype(np.float32) / 64)
    elif case == "packed weight":
        packed = onnx.helper.make_tensor("head.conv.codes", onnx.TensorProto.INT4, codes.shape, codes.ravel().tolist())
        zero = onnx.helper.make_tensor("head.conv.zero", onnx.TensorProto.INT4, [3], [0, 0, 0])
        drawn.constants += [packed, zero]
        scales = drawn.constant("head.conv.scale", np.full(3, 1 / 64, np.float32))
        weight = drawn.node(
            "DequantizeLinear", ["head.conv.codes", scales, "head.conv.zero"], "w", "head.conv/weight", axis=0
        )
    else:
        weight = drawn.integers("head.conv", codes, 1 / 64, "w")
    bias = drawn.integers("bias", np.array([10, 20, 30], np.int32), 0.02 / 64, "b")
    if case == "float bias":
        bias = drawn.constant("free", np.array([0.1, 0.2, 0.3], np.float32))
    drawn.node("Conv", [x, weight, bias], "y", "head.conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    drawn.node("Clip", ["y" if case == "float result" else drawn.rounded("y", "head.out")], "fgr")
    drawn.node("ReduceMean", ["src", drawn.constant("axes", np.array([1], np.int64))], "pha", "refiner/mean")
    return drawn.write(path)


def frames(count: int = 3, size: tuple[int, int] = (SIDE, SIDE)) -> list[np.ndarray]:
    return images(moving_portrait(size, count))


@pytest.mark.parametrize("case", CASES)
def test_why_onnx_runtime_runs_a_convolution_in_float(case: str, tmp_path: Path) -> None:
    costs = OnnxEngine.costs(one_convolution(tmp_path / "a.onnx", case), frames(), 1, 1)
    (conv,) = [each for each in costs.operations if each.macs]
    assert (conv.name, conv.reason) == ("head.conv", CASES[case])
    assert conv.macs == 3 * 3 * 9 * SIDE * SIDE == costs.macs
    assert conv.type == ("f32" if CASES[case] else "u8") and conv.integers is not bool(CASES[case])
    assert costs.integer_macs == (0 if CASES[case] else 1)
    (mean,) = [each for each in costs.operations if each.kind == "ReduceMean"]
    assert mean.reason == "float by choice: nothing in refiner is quantized"
    assert 0 < costs.milliseconds < costs.frame and all(each.milliseconds >= 0 for each in costs.operations)
    assert all(each.integers or each.reason for each in costs.operations)


def test_an_operation_that_has_no_integer_kernel(tmp_path: Path) -> None:
    drawn = Drawn()
    drawn.node("HardSigmoid", [drawn.rounded("src", "head.in")], "y", "head/bend")
    drawn.node("Identity", [drawn.rounded("y", "head.out")], "fgr")
    drawn.node("ReduceMean", ["src", drawn.constant("axes", np.array([1], np.int64))], "pha", "head/mean")
    costs = OnnxEngine.costs(drawn.write(tmp_path / "a.onnx"), frames(), 1)
    reasons = {each.name: each.reason for each in costs.operations}
    assert reasons["head/bend"] == "no integer kernel in ONNX Runtime for HardSigmoid between codes"
    assert reasons["head/mean"] == "float by choice: neither what it reads nor what it gives is quantized"
    kinds = [each.reason for each in costs.operations if each.kind.endswith("quantizeLinear")]
    assert set(kinds) <= {"conversion: floats become codes", "conversion: codes become floats"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network for each engine, and one for ONNX Runtime whose results are not quantized."""
    folder = tmp_path_factory.mktemp("costs")
    weight = WeightSpec(8, observer="minmax")
    stores = {"onnx": ("tensor", "operations"), "openvino": ("mixed", "layers")}
    files = {}
    for name, (granularity, stored) in stores.items():
        activation = ActivationSpec(8, granularity=granularity, observer="minmax")
        network = random_quantized(QuantSpec(weight, activation, "engine", stores=stored))
        files[name] = folder / f"{name}{TARGETS[name].suffix}"
        TARGETS[name]().write(network, files[name], FrameShape(64, 96), INTEGERS)
    files["inputs"] = folder / "inputs.onnx"
    TARGETS["onnx"]().write(random_quantized(spec("w8a8")), files["inputs"], FrameShape(64, 96), INTEGERS)
    return files


LAYER_MACS = {"decoder.decode0.conv.3": 16 * 16 * 9 * 64 * 96, "decoder.decode4.gru.ih.0": 128 * 128 * 9 * 4 * 6}


@pytest.mark.parametrize("name", ["onnx", "openvino", "inputs"])
def test_layers_of_a_network(exported: dict[str, Path], name: str) -> None:
    found = explain(exported[name], frames(4, (64, 96)), 1, 1)
    layers = {each.name: each for each in found.costs.operations if each.macs}
    assert {path: layers[path].macs for path in LAYER_MACS} == LAYER_MACS
    assert found.size == (64, 96) == frame_size(exported[name]) and found.frames == 4
    assert 0 < found.costs.milliseconds < found.costs.frame
    if name == "inputs":
        assert found.costs.integer_macs == 0 and not any(each.integers for each in layers.values())
    elif name == "openvino":
        assert found.costs.integer_macs == 1 and all(each.type == "u8" and each.kernel for each in layers.values())
    else:
        assert found.costs.integer_macs is not None and found.costs.integer_macs > 0.9
        assert layers["decoder.decode0.conv.3"].kind == "QLinearConv"


def test_openvino_says_why(exported: dict[str, Path]) -> None:
    costs = OpenVinoEngine.costs(exported["openvino"], frames(2, (64, 96)), 1)
    found = {each.name: each for each in costs.operations if each.reason}
    gates = [each for name, each in found.items() if name.endswith("HardSigmoid") and each.kind == "Math"]
    (gate,) = {each.reason for each in gates}
    assert gate == "float by choice: neither what it reads nor what it gives is quantized"
    assert not {each.kind for each in found.values()} & {"Const", "Input", "Output"}


def test_a_cpu_without_vnni_is_told(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    if this_cpu(onednn=True).exact:
        assert explain(exported["openvino"], frames(1, (64, 96)), 1, 0).notes == ()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    (note,) = explain(exported["openvino"], frames(1, (64, 96)), 1, 0).notes
    assert note.startswith("this CPU has no VNNI")


def test_the_loops_of_a_binary_network(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    from ptq4vm.engines.files.bits import BitsEngine
    from ptq4vm.models.bivm.network import BiVM

    network = BiVM().eval()
    network.decide()
    TARGETS["bits"]().write(network, tmp_path / "a.bits", FrameShape(48, 64), {"bits": "w1a1"})
    costs = BitsEngine.costs(tmp_path / "a.bits", frames(2, (48, 64)), 1, 1)
    kinds = {each.kind: each for each in costs.operations}
    assert kinds["BinaryConv"].integers and kinds["BinaryConv"].type == "bin"
    assert kinds["Sign"].reason == "conversion: signs of floats become bits"
    assert kinds["ExactConv"].reason == "float by choice: this layer's weights are floats"
    binary = [each for each in costs.operations if each.kind == "BinaryConv"]
    assert sum(1 + each.name.count(" + ") for each in binary) == 58, "two that are added up in one loop are named both"
    assert 0.5 < (costs.integer_macs or 0) < 1 and 0 < costs.milliseconds < costs.frame
    # times are of the frames after the warming up alone
    assert BitsEngine.costs(tmp_path / "a.bits", frames(2, (48, 64)), 2, 0).operations[0].macs == 0


def test_engines_that_do_not_tell() -> None:
    class Silent(StepEngine):
        title = "Silent"

    with pytest.raises(ConfigError, match="Silent does not tell what the operations of a"):
        Silent.costs(Path("a.x"), frames(1))


@pytest.mark.parametrize("engine", [OnnxEngine, OpenVinoEngine])
def test_what_cannot_be_timed(engine: type[StepEngine], exported: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="no frames"):
        engine.costs(exported["onnx"], [])
    with pytest.raises(ConfigError, match="warm_up=-1"):
        engine.costs(exported["onnx"], frames(1, (64, 96)), 1, -1)
    with pytest.raises(DataError, match="takes frames of 96x64"):
        engine.costs(exported["onnx"], frames(1))


def test_sums_of_costs() -> None:
    costs = Costs(
        [
            Operation("a", "Conv", "u8", 3.0, 300),
            Operation("b", "Conv", "f32", 4.0, 100, "bias"),
            Operation("c", "Add", "f32", 2.0, 0, "bias"),
        ],
        10.0,
    )
    assert [each.name for each in costs.by_cost()] == ["b", "a", "c"]
    assert list(costs.by_reason()) == ["bias", ""] and costs.integer_time == pytest.approx(1 / 3)
    assert costs.macs == 400 and costs.integer_macs == 0.75
    unknown = Costs([*costs.operations, Operation("d", "Conv", "u8", 1.0, None)], 10.0)
    assert unknown.macs is None and unknown.integer_macs is None
