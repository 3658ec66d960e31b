"""Layers of exported files one at a time: each computes from what it reads what PyTorch computes from that."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from commands import SIZE
from deploy_runs import random_quantized, spec
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.engines.step import Tensors
from ptq4vm.exporting.deviations import Deviation, stepwise
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import Parity, moving_portrait, open_engine, verify
from ptq4vm.models.base import MattingNetwork

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

CHOICES = (
    ("w8a8", "tensor", "input"),
    ("w8a8", "mixed", "input"),  # OpenVINO rounded joined tensors on one grid of its own: 2.7% of a layer's signal
    ("w4a8", "branch", "input"),
    ("w4a4", "mixed", "input"),
    ("w8a8", "tensor", "output"),  # OpenVINO's alpha ended at the last code below 1
    ("w8a8", "mixed", "engine"),
    ("w4a4", "tensor", "engine"),
)
CLIP = moving_portrait(SIZE, 4)


@functools.cache
def network(*choice: str) -> MattingNetwork:
    return random_quantized(spec(*choice))


def write(choice: tuple[str, ...], target: str, folder: Path) -> Path:
    file = folder / f"a{TARGETS[target].suffix}"
    TARGETS[target]().write(network(*choice), file, FrameShape(*SIZE), {})
    return file


SLOW = (("w8a8", "tensor", "input"), ("w4a8", "branch", "input"), ("w4a4", "tensor", "engine"))


@pytest.mark.parametrize(
    ("choice", "target"),
    [
        pytest.param(
            choice,
            target,
            id="-".join((*choice, target)),
            marks=[pytest.mark.slow] if target == "openvino" and choice in SLOW else [],
        )
        for choice in CHOICES
        for target in ("onnx", "openvino")
    ],
)
def test_every_layer_computes_what_pytorch_computes(choice: tuple[str, ...], target: str, tmp_path: Path) -> None:
    engine = open_engine(write(choice, target, tmp_path), threads=1)
    frames = stepwise(network(*choice), engine, CLIP.frames[:2])
    assert len(frames) == 2
    for steps in frames:
        assert "pha" in [step.path for step in steps] and len(steps) >= 79
        # enlarged codes often lie halfway between two: there PyTorch itself is not sure
        wrong = [step for step in steps if step.error > max(1e-3, 1.5 * step.own)]
        assert not wrong
        if choice[2] == "input":
            assert max(step.own for step in steps) < 1e-2


def test_alpha_reaches_one_where_it_is_quantized(tmp_path: Path) -> None:
    choice = ("w8a8", "tensor", "output")
    engine = open_engine(write(choice, "openvino", tmp_path), threads=1)
    alpha = engine.matte(CLIP.frames[0].permute(1, 2, 0).numpy()).alpha
    assert alpha.max() == 1 and alpha.min() == 0


def test_parts_with_scales_of_their_own_are_convolved_as_integers(tmp_path: Path) -> None:
    engine = OpenVinoEngine(write(("w8a8", "mixed", "input"), "openvino", tmp_path), threads=1)
    counts = {kind: count for kind, count in engine.executed_types().items() if kind[0] == "Convolution"}
    assert set(counts) == {("Convolution", "u8")} and sum(counts.values()) == 78 + 7


def test_only_the_wrong_layer_stands_out(tmp_path: Path) -> None:
    path = "backbone.features.2.block.0.0"
    file = write(("w8a8", "tensor", "input"), "onnx", tmp_path)
    model = onnx.load_model(file)
    (weight,) = [node for node in model.graph.node if node.name == f"{path}/weight"]
    (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == weight.input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(1.1), scale.name))
    onnx.save_model(model, file)
    (steps,) = stepwise(network("w8a8", "tensor", "input"), OnnxEngine(file, threads=1), CLIP.frames[:1])
    assert [step.path for step in steps if step.error > 1e-2] == [path]


class _Forgetful(OpenVinoEngine):
    """Loses the states that it keeps inside."""

    def layer_results(
        self, feeds: Mapping[str, NDArray[np.float32]], names: Sequence[str], earlier: Sequence[NDArray[np.uint8]] = ()
    ) -> Tensors:
        return super().layer_results(feeds, names)


def test_lost_states_are_found(tmp_path: Path) -> None:
    choice = ("w8a8", "mixed", "engine")
    engine = _Forgetful(write(choice, "openvino", tmp_path), threads=1)
    first, second = stepwise(network(*choice), engine, CLIP.frames[:2])
    wrong = [{step.path for step in steps if step.error > max(0.05, step.own)} for steps in (first, second)]
    assert not wrong[0] and wrong[1] and all(".gru." in path for path in wrong[1])


def test_rounding_alone_does_not_fail_a_file(tmp_path: Path) -> None:
    """A W8A8 file of case 22's kind: no layer is wrong, and PyTorch itself moves as far where a sum is one step off."""
    choice = ("w4a4", "mixed", "input")
    parity = verify(network(*choice), open_engine(write(choice, "openvino", tmp_path), threads=1), [CLIP])
    assert parity.mean > 2 / 255 and parity.exact and parity.passed
    assert parity.own is not None and parity.own.mean > parity.mean / 2
    line = str(parity)
    assert line.startswith("passed") and "only rounding sets the file apart" in line and "\n" not in line


def test_a_wrong_layer_is_not_taken_for_rounding(tmp_path: Path) -> None:
    choice, path = ("w4a4", "mixed", "input"), "decoder.decode1.conv.0"
    file = write(choice, "onnx", tmp_path)
    model = onnx.load_model(file)
    (conv,) = [node for node in model.graph.node if node.name == path]
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == conv.input[2]]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.3), bias.name))
    onnx.save_model(model, file)
    parity = verify(network(*choice), OnnxEngine(file, threads=1), [CLIP])
    assert parity.mean > 2 / 255 and not parity.exact and not parity.passed
    assert f"{path} computes otherwise than PyTorch from the same values" in str(parity)


FAR = Parity(("a",), 4, 3 / 255, 0.5, (0, 0), (20.0, 20.1), steps=(Deviation("b", 0.001),))
OWN = replace(FAR, mean=2 / 255)


@pytest.mark.parametrize(
    ("changes", "passed"),
    (
        ({"own": OWN}, True),
        ({}, False),  # how far PyTorch is from itself is not known
        ({"own": replace(OWN, mean=1 / 255)}, False),  # not that far
        ({"own": OWN, "steps": ()}, False),  # the engine does not tell of its layers
        ({"own": OWN, "steps": (Deviation("b", 0.02),)}, False),
        ({"own": OWN, "steps": (Deviation("b", 0.02, 0.03),)}, True),
        ({"own": OWN, "mad": (20.0, 21.0)}, False),  # the matte is another one, whatever the reason
    ),
)
def test_what_counts_as_rounding(changes: dict[str, Any], passed: bool) -> None:
    assert replace(FAR, **changes).passed == passed
