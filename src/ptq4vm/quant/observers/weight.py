"""Scales of symmetric weight grids."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.quant.functional import covering_scale, search_scale
from ptq4vm.quant.registries import WEIGHT_OBSERVERS
from ptq4vm.quant.spec import WeightSpec

STEPS = 80
"""Candidates of the search, from the full range down to 1/5 of it."""


@WEIGHT_OBSERVERS.register("minmax")
def full_scale(rows: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """Scale ``(G,)`` with which nothing of the rows ``(G, N)`` is clipped.

    The grid reaches one code further down than up: the larger of the two needs decides.
    """
    return covering_scale(rows.amin(1), rows.amax(1), quant_min, quant_max)


@WEIGHT_OBSERVERS.register("mse")
def least_error_scale(rows: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """Scale ``(G,)`` with which the squared error of the rows ``(G, N)`` is least."""
    scale = full_scale(rows, quant_min, quant_max) * torch.linspace(1.0, 0.2, STEPS, device=rows.device)[:, None]
    best, _ = search_scale(rows, scale, 0, quant_min, quant_max, reduction="sum")
    return scale.gather(0, best[None])[0]


def weight_scale(weight: Tensor, spec: WeightSpec) -> Tensor:
    """Scale of a symmetric grid for a layer's weight.

    Args:
        weight: ``(C_out, ...)`` float.
        spec: Bits, granularity and observer.

    Returns:
        ``(C_out,)`` for granularity ``channel``, ``(1,)`` for ``tensor``; positive float32.
    """
    rows = weight.detach().float().flatten(1) if spec.granularity == "channel" else weight.detach().reshape(1, -1)
    return WEIGHT_OBSERVERS[spec.observer](rows, *spec.code_range)
