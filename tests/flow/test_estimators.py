from __future__ import annotations

import copy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ptq4vm.errors import ConfigError, WeightsError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.base import FlowEstimator, SourceFlow
from ptq4vm.flow.consistency import visible_mask
from ptq4vm.flow.dis import DISFlow
from ptq4vm.flow.raft import RAFTFlow
from ptq4vm.ops.warp import warp
from ptq4vm.types import Clip, FlowPair


def shifted_texture(shift: tuple[int, int]) -> Tensor:
    """Two frames: the second shows the first, moved by ``shift`` = (x, y) pixels."""
    noise = np.random.default_rng(0).random((160, 200, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = ((texture - texture.min()) / (texture.max() - texture.min()) * 255).astype(np.uint8)
    first = texture[20:140, 20:180]
    second = texture[20 - shift[1] : 140 - shift[1], 20 - shift[0] : 180 - shift[0]]
    return torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (5, 2)])
def test_dis_finds_a_shift_and_points_backward(shift: tuple[int, int]) -> None:
    frames = shifted_texture(shift)
    flow = DISFlow("medium").estimate(frames)
    inner = (..., slice(16, -16), slice(16, -16))
    expected = torch.tensor(shift, dtype=torch.float32).view(1, 2, 1, 1)
    assert (flow.backward + expected)[inner].abs().mean() < 0.1
    assert (flow.forward - expected)[inner].abs().mean() < 0.1
    first, second = frames.float()
    assert (warp(first[None], flow.backward) - second)[inner].abs().mean() < 2


def test_dis_repeats_itself_and_can_be_copied() -> None:
    frames = shifted_texture((2, 1))
    once = DISFlow("fast").estimate(frames)
    again = copy.deepcopy(DISFlow("fast")).estimate(torch.cat([frames, frames]))
    assert torch.equal(once.backward[0], again.backward[0])


def test_names_tell_settings_apart() -> None:
    assert len({DISFlow(preset).name for preset in ("ultrafast", "fast", "medium")}) == 3
    with pytest.raises(ConfigError, match=r"ultrafst.*ultrafast"):
        DISFlow("ultrafst")


def test_mask_is_true_where_flows_cancel_and_stay_inside() -> None:
    backward = torch.zeros(1, 2, 10, 20)
    backward[:, 0] = -3
    assert visible_mask(backward, -backward)[0, 0].sum(0).tolist() == [0] * 3 + [10] * 17
    occluded = -backward
    occluded[..., 8:12] = 0  # another motion lives there in the earlier frame
    assert visible_mask(backward, occluded)[0, 0, 0].tolist() == [x >= 3 and not 11 <= x < 15 for x in range(20)]


def test_mask_formula_at_its_threshold() -> None:
    backward, forward = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    forward[:, 1] = 0.6
    limit = 0.6**2 - 0.01 * 0.6**2
    assert not visible_mask(backward, forward, 0.01, limit - 1e-4).any()
    assert visible_mask(backward, forward, 0.01, limit + 1e-4).all()


class KnowsFlow:
    name, num_frames, size = "made", 3, (4, 6)

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        raise AssertionError("analytic flow needs no pixels")

    def read_flow(self, start: int = 0, stop: int | None = None) -> FlowPair:
        count = (3 if stop is None else stop) - start - 1
        return FlowPair(torch.full((count, 2, 4, 6), 1.5), torch.ones(count, 1, 4, 6, dtype=torch.bool))


class KnowsNothing:
    name, num_frames, size = "filmed", 3, (4, 6)

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        raise NotImplementedError


def test_analytic_flow_comes_from_the_source() -> None:
    pair = AnalyticFlow().from_source(KnowsFlow(), 0, 2)
    assert pair.backward.shape == (1, 2, 4, 6) and pair.backward.eq(1.5).all()
    with pytest.raises(ConfigError, match=r"filmed.*flow=dis"):
        AnalyticFlow().from_source(KnowsNothing(), 0, 2)


def test_protocols() -> None:
    assert isinstance(DISFlow(), FlowEstimator) and not isinstance(DISFlow(), SourceFlow)
    assert isinstance(AnalyticFlow(), SourceFlow) and not isinstance(AnalyticFlow(), FlowEstimator)


class StubRAFT(nn.Module):
    """Answers as torchvision's network does: a list of refinements. Its flow is the first image's red, in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, first: Tensor, second: Tensor, num_flow_updates: int = 12) -> list[Tensor]:
        self.shapes.append(tuple(first.shape))
        assert first.min() >= -1 and first.max() <= 1
        return [torch.full_like(first[:, :2], float("nan"))] * (num_flow_updates - 1) + [
            first[:, :1].repeat(1, 2, 1, 1)
        ]


def test_raft_wrapping_with_a_stub_network() -> None:
    network = StubRAFT()
    frames = torch.zeros(3, 3, 130, 141, dtype=torch.uint8)
    frames[1] = 255
    flow = RAFTFlow(iterations=4, build=lambda: network).estimate(frames)
    assert network.shapes[0] == (1, 3, 136, 144)
    assert flow.backward.shape == flow.forward.shape == (2, 2, 130, 141)
    assert flow.backward.mean((1, 2, 3)).tolist() == [1, -1]  # on the grid of the later frame
    assert flow.forward.mean((1, 2, 3)).tolist() == [-1, 1]


def test_raft_pads_small_frames() -> None:
    network = StubRAFT()
    flow = RAFTFlow(build=lambda: network).estimate(torch.zeros(2, 3, 20, 40, dtype=torch.uint8))
    assert network.shapes[0] == (1, 3, 128, 128) and flow.backward.shape == (1, 2, 20, 40)


def test_raft_without_torchvision_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match=r"torchvision.*ptq4vm\[raft\] or use flow=dis") as caught:
        RAFTFlow()
    assert "\n" not in str(caught.value)


def test_raft_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="raft_medium"):
        RAFTFlow("raft_medium")
    with pytest.raises(WeightsError, match=r"nothing\.pth"):
        RAFTFlow(weights=tmp_path / "nothing.pth", build=StubRAFT)
    names = set()
    for folder, content in (("a", b"1"), ("b", b"2")):
        path = tmp_path / folder / "raft.pth"
        path.parent.mkdir()
        path.write_bytes(content)
        names.add(RAFTFlow(weights=path, build=StubRAFT).name)
    assert len(names) == 2, "weights of one name but other content must not share cache entries"
