"""The arithmetic of quantization, once: pure functions that every observer, quantizer and exported operation uses.

The words and the formulas are ONNX's: ``codes = clamp(round(x / scale) + zero_point, quant_min, quant_max)`` and back
``x = (codes - zero_point) * scale``, where halves round to the even neighbour. Codes are whole numbers in a float
tensor; who stores them casts them. ``scale`` and ``zero_point`` are broadcast against ``x``: ``()`` or ``(1,)`` for one
grid, ``(C_out, 1, 1, 1)`` for one grid an output channel of a weight, ``(C, 1, 1)`` for one a channel of an activation.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-8
"""Of a grid for values that are all 0."""


def quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | int, quant_min: int, quant_max: int, *, shift_first: bool = False
) -> Tensor:
    """Round values to the nearest codes.

    Args:
        x: Values to round, any shape, float.
        scale: Distance between neighbouring values, positive; broadcastable to ``x``.
        zero_point: Code of the value 0; broadcastable to ``x``.
        quant_min: Smallest code of the grid.
        quant_max: Largest code of the grid.
        shift_first: Whether to add the zero point before rounding. The even neighbour of a half is then that of the
            code, and an odd zero point moves it; ranges have been searched so since the first version.

    Returns:
        Shape of ``x``, float, integer-valued, in ``[quant_min, quant_max]``; no gradient.
    """
    codes = x.detach() / scale
    shifted = isinstance(zero_point, Tensor) or zero_point != 0
    if shifted and shift_first:
        return codes.add_(zero_point).round_().clamp_(quant_min, quant_max)
    codes.round_()
    return (codes.add_(zero_point) if shifted else codes).clamp_(quant_min, quant_max)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor | int = 0) -> Tensor:
    """Compute the values that codes stand for.

    Args:
        codes: Any shape, float.
        scale: Broadcastable to ``codes``, positive.
        zero_point: Code of the value 0; broadcastable to ``codes``.

    Returns:
        ``(codes - zero_point) * scale``; gradients reach ``codes`` and ``scale``.
    """
    if not isinstance(zero_point, Tensor) and zero_point == 0:
        return codes * scale
    return (codes - zero_point) * scale


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
    gradient_factor: float = 1.0,
) -> Tensor:
    """Round values to their grid, with gradients as if rounding were the identity (straight-through).

    The gradient of ``x`` is that of the result inside the range and 0 outside; that of ``scale`` is LSQ's (Esser et
    al., ICLR 2020) times ``gradient_factor``. Values halfway between two codes may round otherwise than in
    :func:`quantize`: torch's fused kernels multiply by ``1 / scale``. They take one pass forward and one backward,
    where composing the operations takes six and more.

    Args:
        x: Values to round, any shape, float.
        scale: ``(1,)``, or ``(C,)`` with ``axis``; dtype of ``x``, positive.
        zero_point: Same shape and dtype, integer-valued, in ``[quant_min, quant_max]``.
        quant_min: Smallest code of the grid.
        quant_max: Largest code of the grid.
        axis: Dimension of ``x`` whose positions have grids of their own; ``None`` for one grid.
        gradient_factor: Factor on the gradient of ``scale``, positive.

    Returns:
        Shape and dtype of ``x``.
    """
    if axis is None:
        return torch._fake_quantize_learnable_per_tensor_affine(
            x, scale, zero_point, quant_min, quant_max, gradient_factor
        )
    return torch._fake_quantize_learnable_per_channel_affine(
        x, scale, zero_point, axis, quant_min, quant_max, gradient_factor
    )


def symmetric_range(low: Tensor, high: Tensor, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Ranges widened to be symmetric around 0 where any of them goes below 0; as they are elsewhere.

    Args:
        low: Lower ends, <= 0, any shape.
        high: Upper ends, >= 0, same shape.
        signed: Whether to widen them where none goes below 0 as well.
    """
    if not signed and not bool((low < 0).any()):
        return low, high
    reach = torch.maximum(-low, high)
    return -reach, reach


def choose_qparams(
    low: Tensor, high: Tensor, quant_min: int, quant_max: int, symmetric: bool = False, signed: bool = False
) -> tuple[Tensor, Tensor]:
    """Choose grids whose ends lie at the ends of ranges.

    Args:
        low: Lower ends, <= 0, any shape.
        high: Upper ends, >= 0, same shape.
        quant_min: Smallest code of the grids.
        quant_max: Largest code of the grids.
        symmetric: Widen the ranges by :func:`symmetric_range`, with 0 exactly on the code in the middle, where any
            goes below 0.
        signed: With ``symmetric``: where none does as well.

    Returns:
        ``scale`` (> 0) and ``zero_point`` (integer-valued, in ``[quant_min, quant_max]``), shape and dtype of ``low``.
    """
    centred = symmetric and (signed or bool((low < 0).any()))
    if centred:
        low, high = symmetric_range(low, high, signed)
    scale = ((high - low) / (quant_max - quant_min)).clamp_min(SMALLEST_SCALE)
    if centred:  # exactly halfway: not left to rounding
        return scale, torch.full_like(scale, (quant_min + quant_max + 1) // 2)
    return scale, (quant_min - low / scale).round().clamp(quant_min, quant_max)


def covering_scale(
    low: Tensor, high: Tensor, quant_min: Tensor | int, quant_max: Tensor | int, zero_point: Tensor | int = 0
) -> Tensor:
    """Find the smallest scales with which grids of a given zero point reach both ends of ranges.

    Args:
        low: Lower ends, any shape.
        high: Upper ends, same shape.
        quant_min: Smallest code of the grids.
        quant_max: Largest code of the grids.
        zero_point: Code of the value 0; ranges and codes are broadcast.

    Returns:
        Positive; infinite where the range goes to a side of 0 on which there are no codes.
    """
    up = torch.where(high == 0, 0.0, high / (quant_max - zero_point))
    down = torch.where(low == 0, 0.0, -low / (zero_point - quant_min))
    return torch.maximum(up, down).clamp_min(SMALLEST_SCALE)


def choose_shared_qparams(
    low: Tensor, high: Tensor, quant_max: int, symmetric: bool = False, signed: bool = False
) -> tuple[Tensor, int]:
    """Choose grids with codes from 0 that reach both ends of ranges and share their zero point.

    That is taken which coarsens the grids least: the mean square of the factors, by which the scales have to grow
    beyond what each range alone would need, is smallest there.

    Args:
        low: Lower ends, ``(G,)``, <= 0.
        high: Upper ends, ``(G,)``, >= 0.
        quant_max: Largest code of the grids.
        symmetric: See :func:`choose_qparams`.
        signed: See :func:`choose_qparams`.

    Returns:
        ``scale`` ``(G,)`` in the dtype of ``low``, positive, and the zero point in ``[0, quant_max]``.
    """
    scale, zero = choose_qparams(low, high, 0, quant_max, symmetric, signed)
    if len(zero) == 1 or (symmetric and signed):
        return scale, int(zero[0])
    if symmetric:
        low, high = symmetric_range(low, high)
    zeros = torch.arange(quant_max + 1, dtype=low.dtype)[:, None]
    needed = covering_scale(low, high, 0, quant_max, zeros)
    shared = int((needed / scale).square().mean(1).argmin())
    return needed[shared], shared


def search_scale(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | int,
    quant_min: int,
    quant_max: int,
    *,
    reduction: str = "mean",
    divisor: Tensor | None = None,
    shift_first: bool = False,
    shares: Tensor | None = None,
    clipped: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Try grids on values, and say for each group of values which has the least squared error.

    Args:
        x: ``(*G, N)`` float; ``G`` may be empty, for one group.
        scale: ``(K, *G)``: the candidates, positive.
        zero_point: One integer, or ``(K, *G)``.
        quant_min: Smallest code of the grids.
        quant_max: Largest code of the grids.
        reduction: Errors of a group are averaged (``mean``) or added up (``sum``).
        divisor: Positive, broadcastable to ``G``: what a group's error is divided by.
        shift_first: See :func:`quantize`.
        shares: ``(N,)``, adding up to 1: what part of a group each value stands for. Its errors are then averaged so.
        clipped: By how much the squared error counts where a value lies beyond the grid's ends.

    Returns:
        Number of the best candidate, the first of equals, ``(*G,)`` int64, and its error, ``(*G,)``.
    """
    best = torch.zeros(x.shape[:-1], dtype=torch.int64, device=x.device)
    least = torch.full(x.shape[:-1], torch.inf, dtype=x.dtype, device=x.device)
    for number in range(len(scale)):
        step = scale[number, ..., None]
        zero = zero_point[number, ..., None] if isinstance(zero_point, Tensor) else zero_point
        codes = quantize(x, step, zero, quant_min, quant_max, shift_first=shift_first)
        squares = dequantize(codes, step, zero).sub_(x).square_()
        if clipped != 1:
            beyond = ((codes == quant_min) | (codes == quant_max)) & (squares > (step / 2).square())
            squares = torch.where(beyond, squares * clipped, squares)
        parts = squares if shares is None else squares * shares
        error = parts.mean(-1) if reduction == "mean" and shares is None else parts.sum(-1)
        if divisor is not None:
            error = error / divisor
        best = torch.where(error < least, number, best)
        least = torch.minimum(error, least)
    return best, least
