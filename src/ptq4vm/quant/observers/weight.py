"""Scales of symmetric weight grids."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.quant.spec import WeightSpec


def weight_scale(weight: Tensor, spec: WeightSpec, steps: int = 80) -> Tensor:
    """Scale of a symmetric grid for a layer's weight.

    Args:
        weight: ``(C_out, ...)`` float.
        spec: Bits, granularity and observer (``minmax`` or ``mse``: the scale with the least squared error).
        steps: Candidates of the search, from the full range down to 1/5 of it.

    Returns:
        ``(C_out,)`` for granularity ``channel``, ``(1,)`` for ``tensor``; positive float32.
    """
    rows = weight.detach().float().flatten(1) if spec.granularity == "channel" else weight.detach().reshape(1, -1)
    low, high = spec.code_range
    # the grid reaches one code further down than up: the larger of the two needs decides
    full = torch.maximum(rows.amax(1) / high, rows.amin(1) / low).clamp_min(1e-8)
    if spec.observer == "minmax":
        return full
    best, best_error = full, torch.full_like(full, torch.inf)
    for shrink in torch.linspace(1.0, 0.2, steps).tolist():
        scale = full * shrink
        codes = (rows / scale[:, None]).round_().clamp_(low, high)
        error = (codes * scale[:, None] - rows).square_().sum(1)
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return best
