"""Files for ONNX Runtime in which the result of every operation is quantized: parity, and what is run as integers."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import SIZE
from deploy_runs import random_quantized
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait, verify
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

LAYERS, UPSAMPLINGS = 78, 4
ODD = (68, 84)
"""Sizes whose halves are odd: what was upsampled is cut off."""


@functools.cache
def network(bits: int = 8) -> MattingNetwork:
    activation = ActivationSpec(bits, observer="minmax")
    return random_quantized(QuantSpec(WeightSpec(8, observer="minmax"), activation, "engine", stores="operations"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    TARGETS["onnx"]().write(network(), path, FrameShape(*SIZE), {"version": "1"})
    return path


def executed(file: Path, folder: Path) -> Any:
    """The graph as ONNX Runtime runs it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "executed.onnx")
    disabled = ["WeightBiasQuantization"]  # as the engine opens files: their own biases must do
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    return onnx.load_model(options.optimized_model_filepath)


def test_every_convolution_is_run_as_integers(file: Path, tmp_path: Path) -> None:
    kinds = Counter(node.op_type for node in executed(file, tmp_path).graph.node)
    # the head is a matrix product that ends in float; every upsampling is two more convolutions
    assert kinds["QLinearConv"] == LAYERS - 1 + 2 * UPSAMPLINGS and kinds["MatMulIntegerToFloat"] == 1, kinds
    assert not {"Conv", "FusedConv", "Resize", "HardSigmoid", "Sigmoid", "Tanh", "Relu"} & kinds.keys(), kinds
    assert kinds["Sub"] == 1, kinds  # of the image's mean; states are mixed as integers
    assert kinds["QLinearSigmoid"] and kinds["QLinearMul"] and kinds["QLinearAdd"] and kinds["QLinearGlobalAveragePool"]


def test_kernels_for_many_channels_are_taken(file: Path, tmp_path: Path) -> None:
    graph = executed(file, tmp_path).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QLinearConv":
            outputs, inputs, *_ = weights[node.input[3]]
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            assert (groups % 16 if groups > 1 else inputs % 4) == 0 or outputs < 16, node.name


@pytest.mark.parametrize("size", [SIZE, ODD], ids=str)
def test_it_agrees_with_pytorch(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    TARGETS["onnx"]().write(network(), path, FrameShape(*size), {"version": "1"})
    # with random weights the network doubles differences from frame to frame; the trained one is far closer
    parity = verify(network(), OnnxEngine(path, threads=1), [moving_portrait(size, 2)])
    assert parity.passed, parity


@pytest.mark.parametrize(
    ("size", "ratio"), [pytest.param((96, 192), 0.5, marks=pytest.mark.slow), ((136, 168), 0.375)], ids=str
)
def test_what_the_refiner_enlarges_is_no_code(size: tuple[int, int], ratio: float, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    TARGETS["onnx"]().write(
        network(), path, FrameShape(*size, downsample_ratio=ratio), {"downsample_ratio": str(ratio)}
    )
    parity = verify(network(), OnnxEngine(path, threads=1), [moving_portrait(size, 2)])
    assert parity.passed, parity
    kinds = Counter(node.op_type for node in executed(path, tmp_path).graph.node)
    assert kinds["QLinearConv"] == LAYERS - 1 + 2 * UPSAMPLINGS, kinds


def test_any_size_and_fewer_bits_are_right_too(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    TARGETS["onnx"]().write(network(), path, FrameShape(*SIZE, dynamic=True), {"version": "1"})
    parity = verify(network(), OnnxEngine(path, threads=1), [moving_portrait(ODD, 2)])
    assert parity.passed, parity
    TARGETS["onnx"]().write(network(4), path, FrameShape(*SIZE), {"version": "1"})
    parity = verify(network(4), OnnxEngine(path, threads=1), [moving_portrait(SIZE, 2)])
    assert np.isfinite(parity.mean) and parity.mean < 20 / 255, parity
