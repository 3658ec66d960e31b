"""Networks whose stored tensors are quantized once: what their files hold, and what engines make of them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import SIZE
from deploy_runs import random_quantized, spec
from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.engines.registry import open_engine
from ptq4vm.engines.step import StepEngine
from ptq4vm.exporting.deviations import deviations
from ptq4vm.exporting.graph.codes import move_codes, states_as_codes
from ptq4vm.exporting.graph.editor import Editor, drop_unread
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait, verify
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import activation_quantizers
from ptq4vm.quant.layers import QuantActivation
from ptq4vm.quant.quantizers.uniform import UniformQuantizer

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")

SHAPE = FrameShape(*SIZE)
GRANULARITIES = ("mixed", "tensor", "channel")


@functools.cache
def network(granularity: str) -> MattingNetwork:
    return random_quantized(spec("w8a8", granularity, "engine"))


def check_first_layers(small: MattingNetwork, engine: StepEngine) -> None:
    """The first layers compute what the network does.

    Later on a value between two codes has gone the other way somewhere, and at 4 bits a code is a large step.
    """
    frame = moving_portrait(SIZE, 1).frames.float() / 255
    with torch.no_grad():
        states = [torch.zeros_like(state) for state in small.matte(frame).states if state is not None]
    early = deviations(small, engine, [frame, *states])[:6]
    assert max(layer.error for layer in early) < 1e-3, early


def check_file(small: MattingNetwork, target: str, path: Path, integers: bool) -> None:
    """A network's file computes what it does, and with ``integers`` no convolution in float."""
    TARGETS[target]().write(small, path, SHAPE, {})
    engine = open_engine(path, threads=1)
    check_first_layers(small, engine)
    if integers:
        assert isinstance(engine, OpenVinoEngine)
        assert all(kind != ("Convolution", "f32") for kind in engine.executed_types())


def constants(model: Any) -> dict[str, Any]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_convolution_reads_codes_of_one_scale(granularity: str) -> None:
    model = TARGETS["openvino"]().graph(network(granularity), SHAPE)
    sources = {name: node for node in model.graph.node for name in node.output}
    values = constants(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            source = sources[node.input[0]]
            assert source.op_type == "DequantizeLinear" and values[source.input[1]].ndim == 0, node.name
        if node.op_type in ("Concat", "Split") and node.output[0] not in ("fgr", "pha"):
            assert all(sources[name].op_type != "DequantizeLinear" for name in node.input if name in sources), node.name


def test_pictures_are_resized_as_codes_only_where_the_engine_rounds() -> None:
    for name in ("onnx", "openvino"):
        model = TARGETS[name]().graph(network("mixed"), SHAPE)
        sources = {name: node.op_type for node in model.graph.node for name in node.output}
        kinds = {sources[node.input[0]] for node in model.graph.node if node.op_type == "Resize"}
        assert kinds == ({"Concat"} if name == "openvino" else {"Mul"})


def test_states_enter_and_leave_as_codes() -> None:
    model = TARGETS["openvino"]().graph(network("mixed"), SHAPE)
    zeros = states_as_codes(Editor(model), ["r1i", "r2i", "r3i", "r4i"])
    onnx.checker.check_model(model, full_check=True)
    quantizers = [network("mixed").get_submodule(f"decoder.decode{level}.gru.state") for level in (1, 2, 3, 4)]
    assert [zeros[f"r{level}i"] for level in (1, 2, 3, 4)] == [
        int(q.output_quantizer.zero_point)
        for q in quantizers
        if isinstance(q, QuantActivation)  # type: ignore[arg-type]
    ]
    types = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]}
    assert {name for name, kind in types.items() if kind == onnx.TensorProto.UINT8} == {
        *zeros, *(f"{name[:-1]}o" for name in zeros)
    }  # fmt: skip


def test_states_stay_where_they_are_no_codes() -> None:
    model = TARGETS["onnx"]().graph(random_quantized(spec("w8a8", "mixed", "input")), SHAPE)
    before = model.SerializeToString()
    assert states_as_codes(Editor(model), ["r1i", "r2i", "r3i", "r4i"]) == {}
    assert model.SerializeToString() == before


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "a.xml"
    TARGETS["openvino"]().write(network("mixed"), path, SHAPE, {"version": "1"})
    return path


def test_openvino_keeps_states_inside_and_begins_with_zeros(file: Path) -> None:
    engine = OpenVinoEngine(file, threads=1)
    assert engine.frame_size == SIZE
    clip = moving_portrait(SIZE, 5)
    parity = verify(network("mixed"), engine, [clip])
    # with random weights the network doubles differences from frame to frame; the trained one is far closer
    assert parity.mean < 4 / 255 and parity.mad_change < 0.02, parity
    frames = clip.frames.permute(0, 2, 3, 1).numpy()
    engine.reset()
    first, second = (engine.matte(frames[0]).alpha.copy() for _ in range(2))
    engine.reset()
    again = engine.matte(frames[0]).alpha
    np.testing.assert_array_equal(first, again)
    assert np.abs(second - first).max() > 1e-3  # it does remember
    with torch.no_grad():
        expected = network("mixed").matte(clip.frames[:1].float() / 255).alpha[0, 0].numpy()
    assert np.abs(first - expected).mean() < 2 / 255


@pytest.mark.parametrize("bits", [pytest.param("w4a8", marks=pytest.mark.slow), "w4a4"])
def test_openvino_computes_with_packed_weights(bits: str, tmp_path: Path) -> None:
    small = random_quantized(spec(bits, "mixed", "engine"))
    TARGETS["openvino"]().write(small, tmp_path / "a.xml", SHAPE, {})
    engine = OpenVinoEngine(tmp_path / "a.xml", threads=1)
    assert all(kind != ("Convolution", "f32") for kind in engine.executed_types())
    weights = sum(p.numel() for name, p in small.named_parameters() if name.endswith("weight"))
    assert (tmp_path / "a.bin").stat().st_size < 0.6 * weights
    check_first_layers(small, engine)


@pytest.mark.parametrize(
    ("target", "suffix", "granularity", "placement", "bits"),
    [
        ("openvino", "xml", "channel", "engine", "w4a4"),
        pytest.param("openvino", "xml", "channel", "engine", "w8a7", marks=pytest.mark.slow),
        pytest.param("openvino", "xml", "mixed", "input", "w4a4", marks=pytest.mark.slow),
        ("openvino", "xml", "mixed", "input", "w8a7"),
        ("onnx", "onnx", "channel", "engine", "w4a4"),
        pytest.param("onnx", "onnx", "channel", "engine", "w8a7", marks=pytest.mark.slow),
        pytest.param("onnx", "onnx", "mixed", "input", "w4a4", marks=pytest.mark.slow),
        ("onnx", "onnx", "mixed", "input", "w8a7"),
    ],
)
def test_zero_points_of_channels_are_stored_as_one(
    target: str, suffix: str, granularity: str, placement: str, bits: str, tmp_path: Path
) -> None:
    chosen = spec(bits, granularity, placement)
    small = random_quantized(replace(chosen, activation=replace(chosen.activation, zeros="channel")))
    own = [q for q in activation_quantizers(small).values() if isinstance(q, UniformQuantizer) and q.own_zeros]
    assert any(len(q.zero_point.unique()) > 1 for q in own)
    check_file(small, target, tmp_path / f"a.{suffix}", integers=target == "openvino" and placement == "engine")


@pytest.mark.parametrize(("target", "suffix"), [("openvino", "xml"), ("onnx", "onnx")])
@pytest.mark.parametrize(
    ("granularity", "placement"), [("channel", "engine"), pytest.param("mixed", "input", marks=pytest.mark.slow)]
)
def test_levels_that_are_not_evenly_spaced_are_looked_up(
    target: str, suffix: str, granularity: str, placement: str, tmp_path: Path
) -> None:
    chosen = spec("w4a4", granularity, placement)
    bent = replace(chosen.activation, quantizer="htdq", relaxation=0.2)
    small = random_quantized(replace(chosen, activation=bent))
    check_file(small, target, tmp_path / f"a.{suffix}", integers=target == "openvino" and placement == "engine")


def test_openvino_runs_every_convolution_as_integers(file: Path) -> None:
    counts = OpenVinoEngine(file, threads=1).executed_types()
    floats = {key: count for key, count in counts.items() if "Convolution" in key[0] and key[1] not in ("u8", "i8")}
    assert not floats, counts


def test_the_file_holds_no_states(file: Path) -> None:
    weights = sum(p.numel() for name, p in network("mixed").named_parameters() if name.endswith("weight"))
    assert file.with_suffix(".bin").stat().st_size < 1.1 * weights


def test_a_wrong_layer_is_found_with_states_inside(file: Path) -> None:
    clip = moving_portrait(SIZE, 3)
    inputs = [clip.frames[2:].float() / 255]
    states: tuple[Any, ...] = ()
    with torch.no_grad():
        for frame in clip.frames[:2]:
            states = network("mixed").matte(frame[None].float() / 255, states).states
    engine = OpenVinoEngine(file, threads=1)
    found = deviations(network("mixed"), engine, [*inputs, *states], earlier=clip.frames[:2])
    assert found and max(d.error for d in found) < 0.3
    forgotten = deviations(network("mixed"), engine, [*inputs, *states])
    errors = [{d.path: d.error for d in run} for run in (found, forgotten)]
    assert errors[0]["decoder.decode4.gru.hh.0"] < errors[1]["decoder.decode4.gru.hh.0"]


def _joined(scales: tuple[float, float], zeros: tuple[int, int]) -> Any:
    """Two dequantized tensors side by side, read by a convolution."""
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes, constants = [], []
    for name, scale, zero in zip("ab", scales, zeros, strict=True):
        constants += [tensor(np.full(2, scale, np.float32), f"s{name}"), tensor(np.full(2, zero, np.uint8), f"z{name}")]
        nodes.append(helper.make_node("DequantizeLinear", [name, f"s{name}", f"z{name}"], [f"f{name}"], axis=1))
    nodes += [helper.make_node("Concat", ["fa", "fb"], ["c"], axis=1), helper.make_node("Conv", ["c", "w"], ["y"])]
    constants.append(tensor(np.ones((1, 4, 1, 1), np.float32), "w"))
    shape = [1, 2, 4, 4]
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape) for name in "ab"]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 4, 4])
    return helper.make_model(helper.make_graph(nodes, "joined", inputs, [output], constants))


@pytest.mark.parametrize(("zeros", "moved"), [((3, 3), True), ((3, 4), False)])
def test_codes_are_joined_where_they_share_their_zero(zeros: tuple[int, int], moved: bool) -> None:
    model = _joined((0.5, 0.25), zeros)
    reference = onnx.reference.ReferenceEvaluator(model)
    feeds = {name: np.random.default_rng(0).integers(0, 9, (1, 2, 4, 4)).astype(np.uint8) for name in "ab"}
    expected = reference.run(None, feeds)[0]
    editor = Editor(model)
    move_codes(editor)
    drop_unread(editor)
    (concat,) = (node for node in model.graph.node if node.op_type == "Concat")
    assert (list(concat.input) == ["a", "b"]) == moved
    np.testing.assert_allclose(onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0], expected, rtol=1e-6)
