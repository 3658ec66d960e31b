"""Zeros around a picture: codes stay codes, and in an exported graph the convolution puts them there itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import quantize
from ptq4vm import load_method
from ptq4vm.engines.registry import open_engine
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import TARGETS
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.junction import Junction
from ptq4vm.quant.placement.wiring import Segment, trace
from ptq4vm.quant.spec import Partition

PARTITION = Partition(blocks=("first", "second", "last"))


class Padded(MattingNetwork):
    """Two strided convolutions, padded as TensorFlow pads: below and on the right; ``value`` is what with."""

    def __init__(self, value: float = 0) -> None:
        super().__init__()
        self.value = value
        self.image = Junction()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, groups=8), nn.ReLU())
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        frames = src.flatten(0, 1) if src.ndim == 5 else src
        x = self.first(F.pad(self.image(frames), (0, 1, 0, 1), value=self.value))
        x = self.last(self.second(F.pad(x, (1, 2, 1, 2), "constant", 0)))
        alpha = F.interpolate(x, (frames.shape[-2], frames.shape[-1])).sigmoid()
        return [src, alpha.unflatten(0, src.shape[:2]) if src.ndim == 5 else alpha]


def padded(value: float = 0) -> Padded:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Padded(value).eval().requires_grad_(False)


def test_a_layer_reads_the_tensor_that_zeros_were_put_around() -> None:
    assert trace(padded()).inputs == {
        "first.0": (Segment("image", 0, 3),),
        "second.0": (Segment("first.1", 0, 8),),
        "last": (Segment("second.1", 0, 8),),
    }
    assert "first.0" not in trace(padded(0.5)).inputs, "a half need not be a code"


@pytest.mark.parametrize("value", [0, 0.5])
@pytest.mark.parametrize(
    ("target", "granularity", "stores"),
    [("onnx", "tensor", "operations"), ("onnx", "mixed", "layers"), ("openvino", "mixed", "layers")],
)
def test_convolutions_pad_by_themselves(
    target: str, granularity: str, stores: str, value: float, tmp_path: Path
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    _, spec = load_method("rtn", "w8a8")
    activation = replace(spec.activation, granularity=granularity)
    spec = replace(spec, placement="engine", stores=stores, activation=activation)
    frames = torch.rand(1, 2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    network = quantize(padded(value), PARTITION, spec, frames)
    shape, maker = FrameShape(32, 48), TARGETS[target]()
    kinds = Counter(node.op_type for node in maker.graph(network, shape, {}).graph.node)
    assert kinds["Pad"] == (0 if value == 0 else 1), kinds
    file = tmp_path / f"a{maker.suffix}"
    maker.write(network, file, shape, {})
    picture = (frames[0, 0].permute(1, 2, 0).contiguous() * 255).byte()
    expected = network.matte(picture.permute(2, 0, 1)[None].float() / 255).alpha[0, 0]
    found = torch.from_numpy(open_engine(file, threads=1).matte(picture.numpy()).alpha)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)
