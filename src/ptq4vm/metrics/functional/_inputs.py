"""What every metric checks about its input, and how frames are flattened and reduced."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptq4vm.errors import ConfigError, DataError

Reduction = Literal["mean", "sum", "none"]


def check_alphas(pred: Tensor, true: Tensor) -> None:
    """Raise :class:`DataError` unless both are alphas of one shape, uint8 or floating in [0, 1]."""
    if pred.shape != true.shape:
        raise DataError(
            f"alpha of shape {tuple(pred.shape)} cannot be compared with truth of shape {tuple(true.shape)}; "
            "give both the same shape"
        )
    if pred.ndim not in (4, 5) or pred.shape[-3] != 1 or pred.numel() == 0:
        raise DataError(f"expected alpha of shape (T, 1, H, W) or (B, T, 1, H, W), not {tuple(pred.shape)}")
    for name, alpha in (("predicted", pred), ("true", true)):
        if alpha.dtype == torch.uint8:
            continue
        if not alpha.is_floating_point():
            raise DataError(f"{name} alpha is {alpha.dtype}; give uint8 in [0, 255] or floating point in [0, 1]")
        low, high = (bound.item() for bound in torch.aminmax(alpha.detach()))
        if not (low >= 0.0 and high <= 1.0):  # also false for NaN
            raise DataError(f"{name} alpha spans [{low:g}, {high:g}]; it must be finite and in [0, 1]")


def unit(alpha: Tensor) -> Tensor:
    """``alpha`` as float32 in [0, 1] (float64 stays), without gradient."""
    alpha = alpha.detach()
    if alpha.dtype == torch.uint8:
        return alpha.float() / 255.0
    return alpha if alpha.dtype == torch.float64 else alpha.float()


def images(alpha: Tensor) -> NDArray[np.uint8] | NDArray[np.float32]:
    """``(..., 1, H, W)`` to a NumPy array ``(N, H, W)``: uint8 stays uint8, everything else becomes float32."""
    alpha = alpha.detach().cpu()
    alpha = alpha if alpha.dtype == torch.uint8 else alpha.float()
    array: NDArray = alpha.reshape(-1, *alpha.shape[-2:]).contiguous().numpy()
    return array


def per_frame(values: list[float], like: Tensor) -> Tensor:
    """Values of ``N`` frames as float64 of shape ``(T,)`` or ``(B, T)``, on the device of ``like``."""
    return torch.tensor(values, dtype=torch.float64, device=like.device).reshape(like.shape[:-3])


def reduce_frames(values: Tensor, reduction: Reduction) -> Tensor:
    """Reduce per-frame values over every dimension. Raises :class:`ConfigError` for an unknown reduction."""
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ConfigError(f"unknown reduction {reduction!r}; use mean, sum or none")
