"""States of a network whose sizes are not RVM's, in a file that takes frames of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import toy_family  # noqa: F401  # registers the family whose name the file has
from networks import tiny_matting
from ptq4vm.engines.pytorch import PyTorchEngine
from ptq4vm.errors import ExportError
from ptq4vm.exporting.metadata import describe_float
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.verify import open_engine
from ptq4vm.models.base import MattingNetwork

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TOY = {"family": "toy", "arguments": {}}


class Coarse(MattingNetwork):
    """One state, at a quarter of the picture's size."""

    num_states = 1
    state_strides = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(7, 4, 3, padding=1)

    def forward(self, src: Tensor, state: Tensor | None = None, downsample_ratio: float = 1.0) -> list[Tensor]:
        base = src if downsample_ratio == 1 else F.interpolate(src, scale_factor=downsample_ratio)
        small = F.avg_pool2d(base, 4, 4, ceil_mode=True, count_include_pad=False)
        state = small.new_zeros(1, 4, *small.shape[-2:]) if state is None else state
        state = torch.tanh(self.mix(torch.cat([small, state], 1)))
        residual, alpha = F.interpolate(state, (src.shape[-2], src.shape[-1])).split([3, 1], 1)
        return [(src + residual).clamp(0, 1), alpha.clamp(0, 1), state]


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_first_states_are_as_large_as_the_network_says(ratio: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Coarse().eval()
    shape = FrameShape(64, 96, dynamic=True, downsample_ratio=ratio)
    metadata = describe_float(TOY, network, "none", shape, "1")
    assert metadata["state_strides"] == "4"
    file = tmp_path / "a.onnx"
    file.write_bytes(TARGETS["onnx"]().graph(network, shape, metadata).SerializeToString())
    engine, expected = open_engine(file, threads=1), PyTorchEngine(network, ratio)
    for size in ((64, 96), (52, 76)):
        for frame in np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8):
            np.testing.assert_allclose(engine.matte(frame).alpha, expected.matte(frame).alpha, atol=1e-4)


def test_usual_sizes_are_not_written() -> None:
    metadata = describe_float(TOY, tiny_matting(), "none", FrameShape(64, 96), "1")
    assert tiny_matting().state_strides == (2,) and "state_strides" not in metadata


def test_metadata_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    network, shape = Coarse().eval(), FrameShape(64, 96)
    metadata = describe_float(TOY, network, "none", shape, "1") | {"licence": "ABCD"}
    found = TARGETS["onnx"]().graph(network, shape, metadata).SerializeToString()
    assert found.count(b"ABCD") == 1
    file = tmp_path / "a.onnx"
    file.write_bytes(found.replace(b"ABCD", b"\xff\xff\xff\xff"))
    with pytest.raises(ExportError, match=r"a\.onnx is damaged: its metadata is no text"):
        open_engine(file, threads=1)
