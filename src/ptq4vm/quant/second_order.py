"""Rounding in closed form, from second moments of what a layer reads: pure functions, no network, no gradient step.

Every function takes one layer as ``G`` groups of ``R`` rows with ``K`` weights each: a convolution with ``groups = G``
has ``R = C_out / G`` and ``K = C_in / G * kh * kw``. A row's output error is ``d^T H d`` with the error ``d`` of its
weights and the second moments ``H`` of its inputs. Rounding follows GPTQ (Frantar et al., ICLR 2023): one weight at a
time, the rest of the row takes over what it could not express. The target is not the float weight but what serves
best on the inputs that the quantized layers before give (the asymmetric form of GPTAQ, Li et al., ICML 2025), held
near the float weight where the data say nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-3
"""Share of the mean second moment by which every weight is held, also one whose input is always 0."""
_TINY = 1e-12


class Moments(NamedTuple):
    """What a layer reads, on average over samples, in units of its weight quantizer's columns.

    Attributes:
        quantized: Second moments of the inputs in the quantized network, ``(G, K, K)``.
        difference: Mean of ``(x - x') x'^T``, ``(G, K, K)``: ``x`` in the float network, ``x'`` in the quantized one.
        energy: Mean square of every quantized input, ``(G, K)``, about 0 even where moments are about the mean.
        mean: Mean of the quantized inputs, ``(G, K)``.
        float_mean: Mean of the float network's inputs, ``(G, K)``.
    """

    quantized: Tensor
    difference: Tensor
    energy: Tensor
    mean: Tensor
    float_mean: Tensor


def moments(quantized: Tensor, floating: Tensor) -> Moments:
    """Moments about the mean of samples ``(G, N, K)`` from both networks, taken at the same places.

    A bias takes care of the mean, so that weights need not.
    """
    count = quantized.shape[1]
    mean, float_mean = quantized.mean(1), floating.mean(1)
    energy = quantized.square().mean(1)
    centred = quantized - mean[:, None]
    rest = floating - float_mean[:, None] - centred
    return Moments(centred.mT @ centred / count, rest.mT @ centred / count, energy, mean, float_mean)


def held(matrix: Tensor, energy: Tensor, strength: float) -> Tensor:
    """Second moments ``(G, K, K)`` with ``strength`` times the inputs' energy ``(G, K)`` added to the diagonal."""
    return matrix + torch.diag_embed(strength * (energy + FLOOR * energy.mean(-1, keepdim=True)) + _TINY)


def compensated(weight: Tensor, seen: Moments, ridge: float) -> Tensor:
    """Weights that give the float layer's output, as nearly as they can, from the quantized inputs.

    The least squares of ``|w* x' - w x|^2 + ridge |w* - w|^2``, where every weight counts by its input's energy: an
    input that is always 0 leaves its weights as they are.

    Args:
        weight: Float weights, ``(G, R, K)``.
        seen: Moments of the layer's inputs.
        ridge: How strongly weights are held at their float values, relative to the data; positive.

    Returns:
        ``(G, R, K)``, dtype of ``weight``.
    """
    pull = (weight @ seen.difference).double()
    change = torch.linalg.solve(held(seen.quantized, seen.energy, ridge).double(), pull.mT).mT
    return weight + change.to(weight.dtype)


def round_in_order(target: Tensor, moment: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """Round weight by weight, the largest moments first; what is left over goes to the weights that are still free.

    Args:
        target: Weights, ``(G, R, K)``.
        moment: Positive definite second moments, ``(G, K, K)``.
        scale: Step of every row, ``(G, R)``, positive.
        quant_min: Smallest code of the grid.
        quant_max: Largest code of the grid.

    Returns:
        Whole numbers in ``[quant_min, quant_max]``, ``(G, R, K)``, dtype of ``target``.
    """
    order = moment.diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
    sorted_moment = moment.gather(1, order[..., None].expand_as(moment)).gather(2, order[:, None].expand_as(moment))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(sorted_moment.double()))
    upper = torch.linalg.cholesky(inverse, upper=True).to(target.dtype)
    places = order[:, None].expand_as(target)
    left = target.gather(2, places)
    codes = torch.empty_like(left)
    for k in range(left.shape[-1]):
        codes[..., k] = (left[..., k] / scale).round().clamp(quant_min, quant_max)
        miss = (left[..., k] - codes[..., k] * scale) / upper[:, k, k, None]
        left[..., k + 1 :] -= miss[..., None] * upper[:, k, None, k + 1 :]
    return torch.empty_like(codes).scatter_(2, places, codes)


def descend(target: Tensor, moment: Tensor, codes: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """Go through the weights once more, each taking the code that is best beside all others' codes.

    No row's error grows. Arguments as in :func:`round_in_order`, with the codes to begin from.
    """
    codes = codes.clone()
    gradient = (target - codes * scale[..., None]) @ moment
    curvature = moment.diagonal(dim1=-2, dim2=-1)
    for k in range(codes.shape[-1]):
        wish = codes[..., k] + gradient[..., k] / (curvature[:, k, None] * scale)
        better = wish.round().clamp(quant_min, quant_max)
        change = (better - codes[..., k]) * scale
        gradient -= change[..., None] * moment[:, None, k]
        codes[..., k] = better
    return codes


def row_errors(target: Tensor, moment: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Output error ``d^T H d`` of every row, ``(G, R)``."""
    error = target - codes * scale[..., None]
    return ((error @ moment) * error).sum(-1)


def best_scale(target: Tensor, moment: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Scale ``(G, R)`` with which given codes have the least error; ``scale`` where that is not near it."""
    pulled = codes @ moment
    found = (pulled * target).sum(-1) / (pulled * codes).sum(-1).clamp_min(_TINY)
    return torch.where((found > scale / 2) & (found < scale * 2), found, scale)


def solve(
    target: Tensor, moment: Tensor, quant_min: int, quant_max: int, candidates: int = 6, sweeps: int = 2
) -> tuple[Tensor, Tensor]:
    """Codes and a scale for every row, by the output error.

    Args:
        target: Weights, ``(G, R, K)``.
        moment: Positive definite second moments, ``(G, K, K)``.
        quant_min: Smallest code of the grid.
        quant_max: Largest code of the grid.
        candidates: Scales that are tried for every row, from one that clips nothing down to 0.45 of it.
        sweeps: How often the scale is fitted to the codes and the codes to the scale.

    Returns:
        Codes ``(G, R, K)``, whole numbers, and scales ``(G, R)``.
    """
    groups, rows, width = target.shape
    full = (target.abs().amax(-1) / quant_max).clamp_min(1e-8)
    scales = full[:, None] * torch.linspace(1.05, 0.45, candidates, device=target.device)[:, None]
    tried = target[:, None].expand(-1, candidates, -1, -1).reshape(groups, -1, width)
    flat = scales.reshape(groups, -1)
    codes = round_in_order(tried, moment, flat, quant_min, quant_max)
    errors = row_errors(tried, moment, codes, flat).view(groups, candidates, rows)
    best = errors.argmin(1, keepdim=True)
    scale = scales.gather(1, best)[:, 0]
    codes = codes.view(groups, candidates, rows, width).gather(1, best[..., None].expand(-1, -1, -1, width))[:, 0]
    for _ in range(sweeps):
        scale = best_scale(target, moment, codes, scale)
        codes = descend(target, moment, codes, scale, quant_min, quant_max)
    return codes, scale
