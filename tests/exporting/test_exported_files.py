from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import SIZE
from deploy_runs import random_quantized, spec
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.errors import ConfigError, DataError, ExportError
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait, open_engine, verify
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

CHOICES = (
    ("w8a8", "mixed", "input"),
    ("w4a4", "mixed", "input"),
    ("w4a8", "tensor", "input"),
    ("w8a8", "tensor", "output"),
    ("w8a8", "mixed", "engine"),
    ("w8a8", "tensor", "engine"),
)
SHAPE = FrameShape(*SIZE)
CLIP = moving_portrait(SIZE, 4)


@functools.cache
def network(*choice: str) -> MattingNetwork:
    return random_quantized(spec(*choice))


@functools.cache
def graph(*choice: str) -> Any:
    return TARGETS["onnx"]().graph(network(*choice), SHAPE, {"version": "1.2.3", "bits": choice[0]})


@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_onnx_runtime_agrees_with_pytorch(choice: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(graph(*choice).SerializeToString())
    engine = OnnxEngine(file, threads=1)
    parity = verify(network(*choice), engine, [CLIP])
    # random weights double the differences of codes from frame to frame where states are codes, too
    assert parity.mean < (2 if choice[2] == "engine" else 1) / 255 and parity.passed, parity
    assert engine.metadata == {"version": "1.2.3", "bits": choice[0]}


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(choice, id="-".join(choice), marks=[] if choice[1] == "mixed" else [pytest.mark.slow])
        for choice in CHOICES[:2] + CHOICES[3:]
    ],
)
def test_openvino_agrees_with_pytorch(choice: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    TARGETS["openvino"]().write(network(*choice), file, SHAPE, {"version": "1.2.3", "bits": choice[0]})
    engine = OpenVinoEngine(file, threads=1)
    parity = verify(network(*choice), engine, [CLIP])
    # with random weights a value between two of 16 codes that goes the other way moves all that comes after it
    assert parity.passed and (parity.mean < 2 / 255 or choice[0] == "w4a4"), parity
    assert engine.metadata == {"version": "1.2.3", "bits": choice[0]}
    assert {path.name for path in tmp_path.iterdir()} == {"a.xml", "a.bin"}
    weights = sum(layer.weight.numel() for layer in quantized_layers(network(*choice)).values())
    assert file.with_suffix(".bin").stat().st_size < weights * (0.6 if choice[0] == "w4a4" else 1.1)
    assert any(kind == "Convolution" for kind, _ in engine.executed_types())


@pytest.mark.parametrize("choice", CHOICES[:2], ids="-".join)
def test_weights_are_the_calibrated_codes(choice: tuple[str, ...]) -> None:
    model = graph(*choice)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    sources = {name: node for node in model.graph.node for name in node.output}
    nodes = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    layers = quantized_layers(network(*choice))
    assert nodes.keys() == layers.keys()
    for path, layer in layers.items():
        weight = sources[nodes[path].input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert sources[nodes[path].input[0]].op_type == "DequantizeLinear"
        codes = tensors[weight.input[0]]
        assert layer.weight_quantizer is not None
        packed = layer.weight_quantizer.bits == 4
        assert codes.data_type == (onnx.TensorProto.INT4 if packed else onnx.TensorProto.INT8)
        count = layer.weight.numel()
        assert len(codes.raw_data) == ((count + 1) // 2 if packed else count)
        expected = layer.weight_quantizer.codes(layer.weight).numpy()
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(codes).astype(np.int8), expected)


def test_the_graph_is_what_an_integer_engine_wants() -> None:
    model = graph(*CHOICES[0])
    assert [value.name for value in model.graph.input] == ["src", "r1i", "r2i", "r3i", "r4i"]
    assert [value.name for value in model.graph.output] == ["fgr", "pha", "r1o", "r2o", "r3o", "r4o"]
    assert model.opset_import[0].version == 21
    kinds = {node.op_type for node in model.graph.node}
    assert kinds.isdisjoint({"Identity", "Constant", "Shape", "Gather", "Slice", "Cast", "Min", "BatchNormalization"})
    # the products that are left multiply two results: gates of squeeze-and-excitation, LR-ASPP and the recurrent units
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        assert node.op_type != "Mul" or constants.isdisjoint(node.input)
    others = {node.op_type for node in model.graph.node for name in node.input if name in constants}
    assert {"Add"}.isdisjoint(others)


@pytest.mark.parametrize("name", ("onnx", "openvino"))
def test_any_size_and_a_ratio(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]()
    file, shape = tmp_path / f"a{target.suffix}", FrameShape(*SIZE, dynamic=True, downsample_ratio=0.5)
    target.write(network(*CHOICES[0]), file, shape, {"downsample_ratio": "0.5"})
    engine = open_engine(file, threads=1)
    assert engine.frame_size is None
    for size in ((64, 96), (70, 102)):
        parity = verify(network(*CHOICES[0]), engine, [moving_portrait(size, 2)])
        assert parity.mean < 2 / 255, parity  # of random weights; see the trained network in docs/deploy.md
    engine.reset()
    frames = CLIP.frames.permute(0, 2, 3, 1).numpy()
    first = engine.matte(frames[0])
    engine.matte(frames[1][:, :80])  # another size: another video
    np.testing.assert_array_equal(engine.matte(frames[0]).alpha, first.alpha)
    assert first.alpha.shape == SIZE and first.foreground.shape == (*SIZE, 3)


@pytest.mark.parametrize("path", ("backbone.features.2.block.0.0", "decoder.decode1.conv.0"))
def test_a_wrong_layer_is_found(path: str, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph(*CHOICES[0]))
    (weight,) = [node for node in model.graph.node if node.name == f"{path}/weight"]
    (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == weight.input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 8, scale.name))
    file = tmp_path / "wrong.onnx"
    file.write_bytes(model.SerializeToString())
    parity = verify(network(*CHOICES[0]), OnnxEngine(file, threads=1), [CLIP])
    assert not parity.passed
    # sums in another order: not the same, but as near as numbers go where no code goes the other way
    assert parity.own is not None and 0 < parity.own.mean < parity.mean / 2
    assert next(layer for layer in parity.layers if layer.error > 1).path == path
    assert f" {path} (" in str(parity)


def test_frames_must_fit(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(graph(*CHOICES[0]).SerializeToString())
    engine = OnnxEngine(file, threads=1)
    with pytest.raises(DataError, match=r"takes frames of 96x64, not 64x96: .*size=64x96") as caught:
        engine.matte(np.zeros((96, 64, 3), np.uint8))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="uint8"):
        engine.matte(np.zeros((64, 96, 3), np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ("a.onnx", "a.xml"))
@pytest.mark.parametrize("content", (b"", b"nonsense", None))
def test_damaged_files(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
        (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ExportError, match=name) as caught:
        open_engine(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_and_foreign_files(tmp_path: Path) -> None:
    content = graph(*CHOICES[0]).SerializeToString()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=r"half\.onnx"):
        open_engine(tmp_path / "half.onnx")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    other = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])
    model = onnx.helper.make_model(other, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="ptq4vm export"):
        open_engine(tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match=r"neither \.bits nor "):
        open_engine(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "values", ((8, 512), (288, 8), (24, 24, False, 0.5), (288, 512, False, 0.0), (288, 512, True, 2.0))
)
def test_shapes_out_of_range(values: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError):
        FrameShape(*values)


def test_zero_states_are_no_states() -> None:
    src = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        fresh = network(*CHOICES[0]).matte(src)
        zeros = network(*CHOICES[0]).matte(src, tuple(torch.zeros_like(s) for s in fresh.states if s is not None))
    assert torch.equal(fresh.alpha, zeros.alpha)
