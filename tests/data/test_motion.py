from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq4vm.data.augmentation.motion import Motion, Wave, frame_points, random_wobble
from ptq4vm.ops.warp import in_frame, warp

SIZE = (60, 90)


def make_motion(seed: int, **changes: object) -> Motion:
    generator = torch.Generator().manual_seed(seed)
    options = {
        "frame_anchor": (45.0, 59.0),
        "layer_anchor": (50.0, 70.0),
        "velocity": (0.7, -0.3),
        "sway": (6.0, 3.0),
        "sway_phase": (0.4, 1.9),
        "tilt": 0.05,
        "zoom": 0.04,
        "waves": random_wobble(generator, 2.0, 60),
        **changes,
    }
    return Motion(**options)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), time=st.integers(1, 40))
def test_flow_leads_to_the_same_point_of_the_picture(seed: int, time: int) -> None:
    motion, points = make_motion(seed), frame_points(SIZE)
    flow = motion.backward_flow(time, SIZE)
    gap = motion(time - 1, points + flow) - motion(time, points)
    assert gap.norm(dim=0).max() < 1e-5
    assert 0.1 < flow.norm(dim=0).mean() < 10


def test_inverse() -> None:
    motion, points = make_motion(3), frame_points(SIZE)
    assert (motion.inverse(7, motion(7, points)) - points).abs().max() < 1e-5


def test_a_drift_is_its_velocity() -> None:
    still = {"sway": (0.0, 0.0), "tilt": 0.0, "zoom": 0.0, "waves": ()}
    flow = make_motion(0, **still).backward_flow(5, SIZE)
    expected = torch.tensor([-0.7, 0.3], dtype=torch.float64).view(2, 1, 1)
    assert (flow - expected).abs().max() < 1e-9


@pytest.mark.parametrize("time", [1, 9, 20])
def test_warping_a_smooth_image_by_the_flow(time: int) -> None:
    size = (144, 256)
    motion = make_motion(1, waves=random_wobble(torch.Generator().manual_seed(1), 2.0, 140))

    def shown(at: int) -> torch.Tensor:
        x, y = motion(at, frame_points(size)).float()
        colours = [torch.sin(x / 17) * torch.cos(y / 23), torch.cos(x / 29 + y / 19), torch.sin(y / 13)]
        return torch.stack(colours)[None] * 0.5 + 0.5

    flow = motion.backward_flow(time, size).float()[None]
    seen = in_frame(flow)
    error = ((warp(shown(time - 1), flow) - shown(time)).abs() * seen).sum() / seen.sum() / 3
    assert seen.float().mean() > 0.85
    assert error < 1 / 255
    assert error < 0.2 * (shown(time - 1) - shown(time)).abs().mean()


def test_wobble_is_bounded_and_gentle() -> None:
    for seed in range(20):
        waves = random_wobble(torch.Generator().manual_seed(seed), 1.8, 140)
        assert sum(math.hypot(*wave.amplitude) for wave in waves) <= 1.8 + 1e-9
        assert all(1 / 280 - 1e-9 <= math.hypot(*wave.frequency) <= 1 / 140 + 1e-9 for wave in waves)


def test_folding_wobbles_are_refused() -> None:
    with pytest.raises(ValueError, match="fold"):
        make_motion(0, waves=(Wave((5.0, 0.0), (0.05, 0.0), 0.0, 0.0),))
