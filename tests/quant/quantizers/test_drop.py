from __future__ import annotations

import pytest
import torch

from ptq4vm.quant.quantizers.drop import random_keep


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_share_is_right(probability: float) -> None:
    torch.manual_seed(0)
    mask = random_keep(torch.empty(40_000), probability)
    assert mask.dtype == torch.bool
    assert float(mask.float().mean()) == pytest.approx(probability, abs=0.01)
    if probability in (0.0, 1.0):
        assert bool((mask == bool(probability)).all())


def test_every_element_is_drawn_on_its_own() -> None:
    torch.manual_seed(0)
    masks = torch.stack([random_keep(torch.empty(64), 0.5) for _ in range(4000)]).float() - 0.5
    correlation = masks.T @ masks / len(masks) * 4
    assert float((correlation - torch.eye(64)).abs().max()) < 0.1


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), (2, 3, 4, 5, 6), (0, 3), (1, 1, 1, 1)])
def test_shape_and_layout_follow(shape: tuple[int, ...]) -> None:
    like = torch.empty(shape)
    assert random_keep(like, 0.5).shape == like.shape
    if len(shape) == 4:
        like = like.to(memory_format=torch.channels_last)
        mask = random_keep(like, 0.5)
        assert mask.shape == like.shape and mask.is_contiguous(memory_format=torch.channels_last)


def test_masks_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = random_keep(torch.empty(1000), 0.5)
    second = random_keep(torch.empty(1000), 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, random_keep(torch.empty(1000), 0.5))
    assert not torch.equal(first, second)
