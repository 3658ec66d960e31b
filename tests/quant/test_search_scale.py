"""Weighing errors while a scale is searched for: by what a value stands for, and by whether it is clipped."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq4vm.quant import functional as Q


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    bits=st.integers(2, 8),
    groups=st.integers(1, 4),
    clipped=st.sampled_from([1.0, 4.0, 16.0]),
)
def test_what_is_clipped_counts_more_and_values_by_their_shares(
    seed: int, bits: int, groups: int, clipped: float
) -> None:
    x, top = 5 * torch.randn(groups, 50, generator=torch.Generator().manual_seed(seed)), 2**bits - 1
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.rand(9, groups, generator=generator) + 0.01
    shares = torch.rand(50, generator=generator)
    shares /= shares.sum()
    best, error = Q.search_scale(x, candidates, 1, 0, top, shares=shares, clipped=clipped)
    for g in range(groups):
        errors = []
        for s in candidates[:, g]:
            steps = x[g] / s + 1
            squares = (Q.dequantize(Q.quantize(x[g], s, 1, 0, top), s, 1) - x[g]).square()
            outside = (steps < -0.5) | (steps > top + 0.5)
            errors.append((squares * torch.where(outside, clipped, 1.0) * shares).sum())
        torch.testing.assert_close(error[g], torch.stack(errors).min())
        torch.testing.assert_close(errors[int(best[g])], torch.stack(errors).min())
