from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ptq4vm.models.rvm.refiner import DeepGuidedFilterRefiner, FastGuidedFilterRefiner


def window_mean(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[1:]
    return sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, 2, 3, 22, 30), (1, 2, 3, 11, 15), (1, 2, 3, 11, 15), (1, 2, 1, 11, 15), (1, 2, 16, 11, 15))
    return tuple(torch.rand(shape, generator=generator) for shape in shapes)


def test_fast_guided_filter_is_least_squares_per_window() -> None:
    fine, base, residual, alpha, hidden = inputs()
    got = torch.cat(FastGuidedFilterRefiner()(fine, base, residual, alpha, hidden), -3)
    for t in range(2):
        small, large = (x[0, t].double().numpy() for x in (base, fine))
        guide, fine_guide = (np.concatenate([x, x.mean(0, keepdims=True)]) for x in (small, large))
        matte = torch.cat([residual, alpha], 2)[0, t].double().numpy()
        mean_g, mean_m = window_mean(guide), window_mean(matte)
        a = (window_mean(guide * matte) - mean_g * mean_m) / (window_mean(guide**2) - mean_g**2 + 1e-5)
        b = mean_m - a * mean_g
        big_a, big_b = (
            F.interpolate(torch.from_numpy(x)[None], fine_guide.shape[1:], mode="bilinear")[0].numpy() for x in (a, b)
        )
        np.testing.assert_allclose(got[0, t].numpy(), big_a * fine_guide + big_b, atol=1e-4)


def test_deep_guided_filter_starts_from_box_means() -> None:
    refiner = DeepGuidedFilterRefiner()
    x = torch.rand(1, 4, 6, 7)
    expected = torch.from_numpy(window_mean(x[0].numpy()))[None]
    torch.testing.assert_close(refiner.box_filter(x), expected)


def test_a_linear_matte_is_carried_over_exactly() -> None:
    """Where alpha is the guide itself, A = 1 and b = 0, and the fine guide comes out."""
    fine, _, residual, _, hidden = inputs()
    grey = fine.mean(2, keepdim=True).expand_as(fine)
    base = F.avg_pool2d(grey[0], 2)[None]
    _, alpha = FastGuidedFilterRefiner(eps=1e-12)(grey, base, residual, base[:, :, :1], hidden)
    torch.testing.assert_close(alpha[..., 2:-2, 2:-2], grey[:, :, :1, 2:-2, 2:-2], rtol=0, atol=1e-3)
