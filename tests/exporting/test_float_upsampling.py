"""What is upsampled as floats in a file for ONNX Runtime, beside what is upsampled as codes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import quantize
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.junction import Regrid
from ptq4vm.quant.spec import ActivationSpec, Partition, QuantSpec, WeightSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class _Enlarging(MattingNetwork):
    """Codes are upsampled between two convolutions, the raw matte behind them once more, as floats."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU())
        self.large = Regrid()
        self.project = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        frames = src.flatten(0, 1) if src.ndim == 5 else src
        x = self.large(F.interpolate(self.stem(frames), scale_factor=2, mode="bilinear", align_corners=False))
        raw = F.interpolate(self.project(x), scale_factor=2, mode="bilinear", align_corners=False)
        matte = (raw + 0.5).clamp(0, 1)
        matte = matte.unflatten(0, src.shape[:2]) if src.ndim == 5 else matte
        foreground, alpha = matte.split([3, 1], -3)
        return [foreground, alpha]


@pytest.fixture(scope="module")
def network() -> MattingNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = _Enlarging().eval().requires_grad_(False)
        frames = torch.rand(1, 2, 3, 32, 48)
    spec = QuantSpec(
        WeightSpec(8, observer="minmax"), ActivationSpec(8, observer="minmax"), "engine", stores="operations"
    )
    return quantize(found, Partition(("stem", "project")), spec, frames)


def test_floats_stay_with_resize_and_codes_do_not(network: MattingNetwork, tmp_path: Path) -> None:
    target, shape = TARGETS["onnx"](), FrameShape(32, 48)
    kinds = Counter(node.op_type for node in target.graph(network, shape).graph.node)
    # two depthwise convolutions stand for what was upsampled as codes
    assert kinds["Resize"] == 1 and kinds["Conv"] == 2 + 2, kinds
    target.write(network, tmp_path / "a.onnx", shape, {})
    engine = OnnxEngine(tmp_path / "a.onnx", threads=1)
    for frame in moving_portrait((32, 48), 2).frames:
        with torch.no_grad():
            expected = network.matte(frame[None].float() / 255).alpha[0, 0].numpy()
        found = engine.matte(frame.permute(1, 2, 0).contiguous().numpy()).alpha
        assert np.abs(found - expected).max() < 2 / 255


def test_codes_are_told_by_their_type(network: MattingNetwork) -> None:
    editor = Editor(TARGETS["onnx"]().graph(network, FrameShape(32, 48)))
    held = editor.code_tensors()
    for node in editor.graph.node:
        if node.op_type == "QuantizeLinear":
            assert node.output[0] in held
        elif node.op_type in ("DequantizeLinear", "Conv", "Resize"):
            assert held.isdisjoint(node.output)
