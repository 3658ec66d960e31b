"""What metrics take and give: pairs of alphas, checked once, and a value for every frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptq4vm.errors import ConfigError, DataError
from ptq4vm.system.registry import Registry

Reduction = Literal["mean", "sum", "none"]

FramePair = tuple[Tensor, Tensor]
"""Predicted and true alpha of the frame before a chunk, ``(1, H, W)`` or ``(B, 1, H, W)`` each."""


@dataclass(frozen=True)
class AlphaPair:
    """Predicted and true alpha of consecutive frames, checked when it is made.

    Attributes:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        previous: The frame before these when they continue a clip.

    Raises:
        DataError: The shapes differ or are not those above, or a value is not in [0, 1].
    """

    pred: Tensor
    true: Tensor
    previous: FramePair | None = None

    def __post_init__(self) -> None:
        _check_alphas(self.pred, self.true)
        expected = (*self.pred.shape[:-4], *self.pred.shape[-3:])
        for frame in self.previous or ():
            if frame.shape != expected:
                raise DataError(
                    f"previous frame of shape {tuple(frame.shape)} does not continue in a chunk of shape "
                    f"{tuple(self.pred.shape)}; it must be {expected}: reset at the start of a clip"
                )

    @cached_property
    def units(self) -> tuple[Tensor, Tensor]:
        """Both alphas as floating point in [0, 1], converted once for all metrics that want that; not to be changed."""
        return unit(self.pred), unit(self.true)


Measure = Callable[[AlphaPair], Tensor]
"""A metric's function: from alphas to a value for every frame, float64 ``(T,)`` or ``(B, T)``."""

MEASURES: Registry[Measure] = Registry("metric", "ptq4vm.metrics.functional")
"""Name of a metric to its function."""


def last_frames(pred: Tensor, true: Tensor) -> FramePair:
    """The pair to hand to the next chunk as ``previous``; copies, so that the chunk itself can be freed.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``.
        true: True alpha, same shape.

    Returns:
        The last frame of each, ``(1, H, W)`` or ``(B, 1, H, W)``, in its own dtype.

    Example:
        >>> import torch
        >>> clip = torch.arange(3.0).reshape(3, 1, 1, 1)
        >>> [frame.item() for frame in last_frames(clip, clip / 2)]
        [2.0, 1.0]
    """
    return pred.detach().select(-4, -1).clone(), true.detach().select(-4, -1).clone()


def _check_alphas(pred: Tensor, true: Tensor) -> None:
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


def unit(image: Tensor) -> Tensor:
    """An image of any shape as float32 in [0, 1] (float64 stays), without gradient.

    Args:
        image: uint8 in [0, 255] or floating point in [0, 1].

    Example:
        >>> import torch
        >>> unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist()
        [0.0, 0.20000000298023224, 1.0]
    """
    image = image.detach()
    if image.dtype == torch.uint8:
        return image.float() / 255.0
    return image if image.dtype == torch.float64 else image.float()


def images(alpha: Tensor) -> NDArray[np.uint8] | NDArray[np.float32]:
    """The frames of an alpha as one NumPy array.

    Args:
        alpha: ``(..., 1, H, W)``, uint8 or floating point, on any device.

    Returns:
        ``(N, H, W)``, uint8 for uint8 and float32 for everything else.

    Example:
        >>> import torch
        >>> images(torch.zeros(2, 3, 1, 4, 5)).shape
        (6, 4, 5)
    """
    alpha = alpha.detach().cpu()
    alpha = alpha if alpha.dtype == torch.uint8 else alpha.float()
    array: NDArray = alpha.reshape(-1, *alpha.shape[-2:]).contiguous().numpy()
    return array


def measure_images(pair: AlphaPair, error: Callable[[NDArray, NDArray], float]) -> Tensor:
    """Apply a function of two NumPy images to every frame, on the CPU.

    Args:
        pair: Predicted and true alphas, checked.
        error: Function of the prediction and the truth of one frame, ``(H, W)`` each, uint8 or float32.

    Returns:
        float64 ``(T,)`` or ``(B, T)``, on the device of the prediction.

    Example:
        >>> import torch
        >>> pair = AlphaPair(torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
        >>> measure_images(pair, lambda pred, true: pred.max() - true.max()).tolist()
        [1.0, 1.0]
    """
    values = [error(pred, true) for pred, true in zip(images(pair.pred), images(pair.true), strict=True)]
    return torch.tensor(values, dtype=torch.float64, device=pair.pred.device).reshape(pair.pred.shape[:-3])


def reduce_frames(values: Tensor, reduction: Reduction) -> Tensor:
    """Reduce the values of frames over every dimension.

    Args:
        values: One value a frame, of any shape.
        reduction: ``mean``, ``sum``, or ``none`` for the values as they are.

    Raises:
        ConfigError: The reduction is unknown.

    Example:
        >>> import torch
        >>> reduce_frames(torch.tensor([1.0, 3.0]), "mean").item()
        2.0
    """
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ConfigError(f"unknown reduction {reduction!r}; use mean, sum or none")
