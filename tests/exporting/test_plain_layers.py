"""A network without sums of layers' results and without curves is shaped for ONNX Runtime like any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import quantize
from ptq4vm import load_method
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import TARGETS
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.junction import Junction
from ptq4vm.quant.spec import Partition


class Plain(MattingNetwork):
    """ReLUs only; ``bent`` puts a curve behind the second convolution."""

    def __init__(self, bent: bool) -> None:
        super().__init__()
        self.image = Junction()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Hardswish() if bent else nn.ReLU())
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        frames = src.flatten(0, 1) if src.ndim == 5 else src
        alpha = self.last(self.second(self.first(self.image(frames)))).sigmoid()
        return [src, alpha.unflatten(0, src.shape[:2]) if src.ndim == 5 else alpha]


@pytest.mark.parametrize(
    ("bent", "stores", "integers"), [(False, "operations", True), (True, "operations", True), (True, "layers", False)]
)
def test_biases_are_integers_where_every_operation_ends_in_codes(bent: bool, stores: str, integers: bool) -> None:
    pytest.importorskip("onnx")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Plain(bent).eval().requires_grad_(False)
    _, spec = load_method("rtn", "w8a8")
    spec = replace(spec, placement="engine", stores=stores)
    frames = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    quantized = quantize(network, Partition(blocks=("first", "second", "last")), spec, frames)
    graph: Any = TARGETS["onnx"]().graph(quantized, FrameShape(32, 32), {}).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    biases = [makers.get(node.input[2]) for node in graph.node if node.op_type == "Conv"]
    assert set(biases) == ({"DequantizeLinear"} if integers else {None})
