"""Losses of binary training against their formulas written plainly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ptq4vm.methods.binary import losses


def clip(channels: int = 1, frames: int = 3, seed: int = 0, size: int = 16) -> Tensor:
    return torch.rand(2, frames, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_nothing_is_lost_where_nothing_differs() -> None:
    a, f = clip(), clip(3)
    assert float(losses.alpha_loss(a, a)) == 0 and float(losses.foreground_loss(f, f, a)) == 0
    assert float(losses.coherence_loss(a[:, :1], a[:, :1] + 1)) == 0, "one frame has no motion"


def test_coherence_is_blind_to_what_stays() -> None:
    a = clip()
    assert float(losses.coherence_loss(a + 0.3, a)) == pytest.approx(0, abs=1e-12)
    b = clip(seed=1)
    expected = (((b[:, 1:] - b[:, :-1]) - (a[:, 1:] - a[:, :-1])) ** 2).mean()
    torch.testing.assert_close(losses.coherence_loss(b, a), expected)


def test_a_pyramid_of_one_level_of_even_pictures_is_empty_but_for_the_rest() -> None:
    """Of even pictures, every level but the last is 0; the last is the picture itself, with the weight 2^4 / 5."""
    a, b = torch.full((1, 1, 64, 64), 0.25), torch.full((1, 1, 64, 64), 0.75)
    assert float(losses.pyramid_loss(a, b)) == pytest.approx(2**4 / 5 * 0.5, rel=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 30)])
def test_a_pyramid_takes_any_size(size: tuple[int, int]) -> None:
    assert bool(torch.isfinite(losses.pyramid_loss(torch.rand(1, 1, *size), torch.rand(1, 1, *size))))


def test_the_foreground_counts_only_where_there_is_some() -> None:
    f, g = clip(3), clip(3, seed=1)
    a = torch.zeros(2, 3, 1, 16, 16)
    assert float(losses.foreground_loss(f, g, a)) == 0
    a[..., :8] = 0.5
    inside = (f - g).abs()[..., :8].sum() / f.numel()
    moved = ((f.diff(dim=1) - g.diff(dim=1)) ** 2)[..., :8].sum() / f.diff(dim=1).numel()
    torch.testing.assert_close(losses.foreground_loss(f, g, a), inside + 5 * moved)


def test_segmentation_is_cross_entropy_against_the_halves_of_alpha() -> None:
    logits, alpha = clip(size=8) * 4 - 2, clip(seed=3)
    truth = (F.avg_pool2d(alpha.flatten(0, 1), 2) > 0.5).float()
    p = logits.flatten(0, 1).sigmoid()
    expected = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.segmentation_loss(logits, alpha), expected)


def test_mimicking_compares_directions_inside_the_mask() -> None:
    found, wanted = clip(4, 2), clip(4, 2, seed=5)
    mask = torch.zeros(4, 1, 4, 4)
    mask[:, :, 1:3, 2] = 1
    where = mask.repeat_interleave(4, -1).repeat_interleave(4, -2)
    total, count = 0.0, 0
    for f, w, m in zip(found.flatten(0, 1), wanted.flatten(0, 1), where[:, 0], strict=True):
        for row, column in m.nonzero().tolist():
            ours, theirs = f[:, row, column], w[:, row, column]
            total += float(((ours / ours.norm() - theirs / theirs.norm()) ** 2).sum())
            count += 1
    assert float(losses.mimicking_loss([found], [wanted], mask)) == pytest.approx(total / count, rel=1e-5)
    assert float(losses.mimicking_loss([7 * wanted], [wanted], mask)) == pytest.approx(0, abs=1e-6)
    assert float(losses.mimicking_loss([found], [wanted], 0 * mask)) == 0
