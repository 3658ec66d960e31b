"""What integer arithmetic without VNNI can hold: products of unsigned activations and signed weights, added in pairs.

CPUs with AVX2 or AVX-512 but without VNNI multiply u8 by s8 with ``vpmaddubsw``, which adds two neighbouring products
and cuts their sum off at 16 bits. Weights within 7 bits keep every sum inside; what is then computed is exact, with and
without VNNI. Which two products meet is up to an engine's kernels, so bounds hold for any two of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAIR_MIN, PAIR_MAX = -(2**15), 2**15 - 1
"""Range of a sum of two products."""


def pair_bounds(codes: Tensor, activation_max: int) -> tuple[int, int]:
    """Smallest and largest sum of two products that a layer's arithmetic can meet.

    Args:
        codes: ``(C_out, ...)`` integer weight codes; products of one row are added.
        activation_max: Largest activation code; the smallest is 0.

    Returns:
        ``(low, high)``: over all activations, all orders of the inputs and all rows.
    """
    rows = codes.detach().flatten(1).to(torch.int64)
    count = min(2, rows.shape[1])
    high = rows.clamp_min(0).topk(count, 1).values.sum(1).max()
    low = rows.clamp_max(0).topk(count, 1, largest=False).values.sum(1).min()
    return int(low) * activation_max, int(high) * activation_max


def outside(bounds: tuple[int, int]) -> bool:
    """Whether some activations could make a sum of two products leave its 16 bits; of :func:`pair_bounds`."""
    return bounds[0] < PAIR_MIN or bounds[1] > PAIR_MAX


def grid_may_saturate(weight_min: int, weight_max: int, activation_max: int) -> bool:
    """Whether weight codes in ``[weight_min, weight_max]`` could make a pair of products leave its 16 bits."""
    return outside((2 * weight_min * activation_max, 2 * weight_max * activation_max))
