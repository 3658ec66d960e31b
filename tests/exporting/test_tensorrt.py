"""Files for TensorRT: every rule of its documentation holds and finds what breaks it; their numbers; refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ptq4vm
from commands import SIZE, Workplace
from deploy_runs import random_quantized, spec, write_run
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.registry import engine_class, open_engine
from ptq4vm.errors import ConfigError, ExportError
from ptq4vm.exporting.graph.editor import Editor, Grid
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.targets.tensorrt import rules
from ptq4vm.exporting.targets.tensorrt.shaping import sign_codes
from ptq4vm.exporting.trace import FrameShape, to_onnx
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import activation_quantizers
from ptq4vm.quant.spec import ActivationSpec, QuantSpec

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIGNED = replace(
    spec("w8a8", "tensor", "engine"),
    activation=ActivationSpec(8, granularity="tensor", observer="minmax", asymmetric=False, signed=True),
    overflow="vnni",
)
SHAPE = FrameShape(*SIZE)


@pytest.fixture(scope="module")
def network() -> MattingNetwork:
    return random_quantized(SIGNED)


@pytest.fixture(scope="module")
def written(network: MattingNetwork) -> Any:
    return TARGETS["tensorrt"]().graph(network, SHAPE, {"bits": "w8a8"})


@pytest.fixture(scope="module")
def opened(network: MattingNetwork) -> Any:
    return TARGETS["tensorrt"]().graph(network, FrameShape(*SIZE, True), {"bits": "w8a8"})


def layer(editor: Editor, path: str = "decoder.decode0.conv.3") -> Any:
    return next(node for node in editor.nodes("Conv") if node.name == path)


def residual(editor: Editor) -> Any:
    """A sum of what a convolution gives and what was there before."""
    return next(node for node in editor.nodes("Add") if node.name == "backbone/features.3/Add")


def shift_zero(editor: Editor) -> str:
    node = editor.producer(layer(editor).input[0])
    node.input[2] = editor.constant(np.int8(3))
    return str(node.name)


def unsigned(editor: Editor) -> str:
    node = editor.producer(layer(editor).input[0])
    node.input[2] = editor.constant(np.uint8(0))
    return str(node.name)


def scale_of_channels(editor: Editor) -> str:
    node = editor.producer(layer(editor).input[0])
    node.input[1] = editor.constant(np.full(16, 0.5, np.float32))
    return str(node.name)


def weight_of_one_column(editor: Editor) -> str:
    node = editor.producer(layer(editor).input[1])
    next(each for each in node.attribute if each.name == "axis").i = 1
    return str(node.name)


def negative_scale(editor: Editor) -> str:
    node = editor.producer(layer(editor).input[0])
    node.input[1] = editor.constant(np.float32(-0.5))
    return str(node.name)


def float_input(editor: Editor) -> str:
    node = layer(editor)
    rounded = editor.producer(node.input[0])
    node.input[0] = editor.producer(rounded.input[0]).input[0]
    return str(node.name)


def float_weight(editor: Editor) -> str:
    node = layer(editor)
    node.input[1] = editor.constant(np.zeros((16, 16, 3, 3), np.float32))
    return str(node.name)


def weight_rounded_in_the_graph(editor: Editor) -> str:
    node = layer(editor)
    weight = editor.producer(node.input[1])
    floats = editor.constant(np.zeros((16, 16, 3, 3), np.float32))
    weight.input[0] = editor.add("QuantizeLinear", [floats, *weight.input[1:]])
    return str(node.name)


def integer_bias(editor: Editor) -> str:
    node = layer(editor)
    inputs = [np.zeros(16, np.int32), np.ones(16, np.float32), np.zeros(16, np.int32)]
    node.input[2] = editor.add("DequantizeLinear", [editor.constant(each) for each in inputs], axis=0)
    return str(node.name)


def codes_into_an_operation(editor: Editor) -> str:
    node = next(each for each in editor.nodes("Concat") if each.name == "decoder/decode0/merge/Concat")
    rounded = editor.producer(node.input[0])
    codes = editor.producer(rounded.input[0])
    node.input[0] = codes.output[0]
    return str(codes.name)


def two_grids_in_a_pair(editor: Editor) -> str:
    rounded = editor.producer(layer(editor).input[0])
    rounded.input[1] = editor.constant(np.float32(0.123))
    return str(editor.producer(rounded.input[0]).name)


def rounded_before_its_activation(editor: Editor) -> str:
    node = next(each for each in editor.nodes("Relu") if editor.producer(each.input[0], "Conv") is not None)
    node.input[0] = editor.dequantize(editor.quantize(node.input[0], Grid(0.1, 0)), Grid(0.1, 0))
    return str(node.name)


def float_residual(editor: Editor) -> str:
    node = residual(editor)
    place = next(i for i, name in enumerate(node.input) if editor.producer(name, "DequantizeLinear") is not None)
    rounded = editor.producer(node.input[place])
    node.input[place] = editor.producer(rounded.input[0]).input[0]
    return str(node.name)


def float_sum(editor: Editor) -> str:
    node = residual(editor)
    for reader in editor.readers(node.output[0]):
        if reader.op_type == "QuantizeLinear":
            for rounded in editor.readers(reader.output[0]):
                editor.redirect(rounded.output[0], node.output[0])
    return str(node.name)


def float_results_of_codes(editor: Editor) -> str:
    node = next(each for each in editor.nodes("Resize") if each.name == "decoder/decode0/merge/upsample/Resize")
    (reader,) = editor.readers(node.output[0])
    for rounded in editor.readers(reader.output[0]):
        editor.redirect(rounded.output[0], node.output[0])
    return str(node.name)


def unknown_operation(editor: Editor) -> str:
    node = next(each for each in editor.nodes("Relu"))
    node.op_type = "QLinearConv"
    return "QLinearConv"


def later_opset(editor: Editor) -> str:
    editor.model.opset_import[0].version = 25
    return "opset 25"


def no_profile(editor: Editor) -> str:
    kept = [entry for entry in editor.model.metadata_props if entry.key != "profile_max"]
    del editor.model.metadata_props[:]
    editor.model.metadata_props.extend(kept)
    return "profile_max"


BROKEN: dict[Callable[[Editor], str], rules.Check] = {
    shift_zero: rules.signed_around_zero,
    unsigned: rules.signed_around_zero,
    scale_of_channels: rules.scales_of_tensors_and_channels,
    weight_of_one_column: rules.scales_of_tensors_and_channels,
    negative_scale: rules.scales_of_tensors_and_channels,
    float_input: rules.all_inputs_of_layers,
    float_weight: rules.all_inputs_of_layers,
    weight_rounded_in_the_graph: rules.weights_behind_one_node,
    integer_bias: rules.biases_in_float,
    codes_into_an_operation: rules.nodes_in_pairs,
    two_grids_in_a_pair: rules.nodes_in_pairs,
    rounded_before_its_activation: rules.nothing_before_activations,
    float_residual: rules.residuals_quantized,
    float_sum: rules.residuals_quantized,
    float_results_of_codes: rules.integers_to_integers,
    unknown_operation: rules.operations_of_the_parser,
    later_opset: rules.operations_of_the_parser,
    no_profile: rules.profile_of_open_sizes,
}
"""What breaks a graph, and the rule that it breaks; it gives the name that the rule must find."""


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_rules_hold_and_name_their_source(rule: rules.Check, written: Any, opened: Any) -> None:
    assert rule(Editor(written)) == [] == rule(Editor(opened))
    titles = ("IOptimizationProfile", "Explicit Quantization", "Supported ONNX Operators")
    assert (rule.__doc__ or "").startswith(titles)
    assert rule in BROKEN.values()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_rules_find_what_breaks_them(broken: Callable[[Editor], str], opened: Any) -> None:
    editor = Editor(copy.deepcopy(opened))
    name = broken(editor)
    assert name in BROKEN[broken](editor)
    with pytest.raises(ExportError, match=r"target=tensorrt: the graph breaks the rule"):
        rules.check_rules(editor)


def test_the_graph_is_one_of_signed_codes_with_states_outside(written: Any) -> None:
    assert (written.opset_import[0].version, written.ir_version) == (20, 9)
    assert [port.name for port in written.graph.input] == ["src", "r1i", "r2i", "r3i", "r4i"]
    assert [port.name for port in written.graph.output] == ["fgr", "pha", "r1o", "r2o", "r3o", "r4o"]
    kinds = {tensor.data_type for tensor in written.graph.initializer}
    assert onnx.TensorProto.UINT8 not in kinds and onnx.TensorProto.INT32 not in kinds
    said = {entry.key: entry.value for entry in written.metadata_props}
    assert said["target"] == "tensorrt" and "profile_min" not in said


def test_a_profile_for_open_sizes(opened: Any) -> None:
    said = {entry.key: entry.value for entry in opened.metadata_props}
    assert said["profile_opt"] == "src:1x3x64x96,r1i:1x16x32x48,r2i:1x20x16x24,r3i:1x40x8x12,r4i:1x64x4x6"
    assert said["profile_min"].startswith("src:1x3x32x48,r1i:1x16x16x24,")
    assert said["profile_max"].startswith("src:1x3x128x192,r1i:1x16x64x96,")


def test_every_zero_point_is_in_the_middle(network: MattingNetwork) -> None:
    zeros = {int(quantizer.qparams().zero_point) for quantizer in activation_quantizers(network).values()}
    assert zeros == {128}


def test_signed_codes_are_the_same_numbers(network: MattingNetwork, written: Any) -> None:
    """A graph as the exporter writes it and the one for TensorRT, without a runtime's rewriting: equal to the bit."""
    plain = to_onnx(network, SHAPE, {}, "tensorrt")
    generator = np.random.default_rng(0)
    feeds = {"src": generator.random((1, 3, *SIZE), np.float32)}
    for port in plain.graph.input:
        if port.name != "src":
            sizes = [each.dim_value for each in port.type.tensor_type.shape.dim]
            feeds[port.name] = generator.normal(0, 0.3, sizes).astype(np.float32)
    results = [_run(model, feeds) for model in (plain, written)]
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert float(results[0][1].std()) > 1e-3


def _run(model: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize(
    "chosen",
    [spec("w4a8", "tensor", "engine"), spec("w8a4", "tensor", "engine"), spec("w4a4")],
    ids=("w4a8", "w8a4", "w4a4"),
)
def test_other_bits_are_refused(chosen: QuantSpec) -> None:
    with pytest.raises(
        ConfigError, match=r"^target=tensorrt is W8A8, and this network has 4 bits: .* \+target=tensorrt$"
    ):
        TARGETS["tensorrt"]().graph(random_quantized(chosen), SHAPE)


@pytest.mark.parametrize("placement", ["input", "engine"])
def test_networks_for_other_engines_are_refused(placement: str) -> None:
    with pytest.raises(
        ExportError, match=r"zero point of 0, and .* has -\d+: quantize with bits=w8a8 \+target=tensorrt"
    ):
        TARGETS["tensorrt"]().graph(random_quantized(spec("w8a8", placement=placement)), SHAPE)


def test_shaping_leaves_weights_alone(written: Any) -> None:
    editor = Editor(copy.deepcopy(written))
    before = [tensor.SerializeToString() for tensor in editor.graph.initializer]
    sign_codes(editor)
    assert [tensor.SerializeToString() for tensor in editor.graph.initializer] == before


def test_signed_grids_need_symmetry() -> None:
    with pytest.raises(ConfigError, match=r"signed=true has its zero point in the middle: add asymmetric=false"):
        ActivationSpec(signed=True)


def test_from_a_run_to_a_file_and_a_matte(workplace: Workplace, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SIGNED)
    file = tmp_path / "a.trt.onnx"
    done = workplace.run("export", f"checkpoint={run}", "target=tensorrt", f"out={file}", "size=96x64")
    assert done.status == 0 and done.err == "" and done.out.strip() == str(file), done.err
    engine = open_engine(file, 1)
    assert isinstance(engine, OnnxEngine) and engine.metadata["target"] == "tensorrt"
    assert engine.metadata["overflow"] == "safe" and engine.metadata["bits"] == "w8a8"
    parity = ptq4vm.verify(run, file, frames=2, threads=1)
    # of random weights, whose rounding of halves goes either way; tests/ of real ones need clips
    assert parity.mean < 4 / 255 and parity.mad_change < 0.02
    source = tmp_path / "in.png"
    onto = tmp_path / "out.png"
    _picture(source)
    done = workplace.run("matte", f"input={source}", f"out={onto}", f"checkpoint={file}", "output=alpha")
    assert done.status == 0 and onto.is_file(), done.err
    notes = ptq4vm.explain(file, frames=1, warm_up=0, threads=1).notes
    assert notes and notes[0].startswith("this file is for TensorRT")


def _picture(path: Path) -> None:
    pixels = torch.randint(0, 256, (64, 96, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)


@pytest.mark.parametrize(
    ("out", "target", "said"),
    (
        ("a.onnx", "tensorrt", "out=a.onnx: target=tensorrt needs a name that ends in .trt.onnx"),
        ("a.trt.onnx", "onnx", "target=onnx needs a name that ends in .onnx, and .trt.onnx is target=tensorrt's"),
        ("a.xml", "tensorrt", "needs a name that ends in .trt.onnx"),
    ),
)
def test_names_choose_their_target(out: str, target: str | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ptq4vm.export("fp32", out, target=target)
    assert said in str(caught.value)


def test_a_float_network_can_be_compared(workplace: Workplace, tmp_path: Path) -> None:
    file = tmp_path / "fp32.trt.onnx"
    ptq4vm.export("fp32", file, size=(64, 96), weights=workplace.weights)
    assert engine_class(file) is OnnxEngine and open_engine(file, 1).metadata["bits"] == "fp32"
