"""Gradient error (Grad) of alpha: how far the edges of two alphas differ."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptq4vm.errors import ConfigError
from ptq4vm.metrics.functional._inputs import Reduction, check_alphas, images, per_frame, reduce_frames

_TAIL = 1e-2  # the kernel reaches as far as the Gaussian density stays above this


@lru_cache(maxsize=8)
def _kernels(sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gaussian and its derivative, ``(2r+1,)`` each with unit L2 norm, so that their outer product has norm 1 too."""
    peak = math.sqrt(2.0 * math.pi) * sigma
    if sigma <= 0 or peak * _TAIL >= 1:
        raise ConfigError(f"sigma {sigma} of the gradient error is out of range; use a value in (0, 39]")
    radius = math.ceil(sigma * math.sqrt(-2.0 * math.log(peak * _TAIL)))
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2.0 * sigma**2))
    slope = x * smooth
    return (
        (smooth / np.linalg.norm(smooth)).astype(np.float32),
        (slope / np.linalg.norm(slope)).astype(np.float32),
    )


def gradient_magnitude(image: NDArray[np.uint8] | NDArray[np.float32], sigma: float = 1.4) -> NDArray[np.float32]:
    """Magnitude of the Gaussian-derivative gradient of one image stretched to [0, 1], borders replicated.

    The stretch ``(image - min) / (max - min)`` is linear and a derivative ignores offsets, so it is applied to the
    kernel rather than to the pixels; both directions are separable.

    Args:
        image: ``(H, W)``, uint8 or float32.
        sigma: Standard deviation in pixels.

    Returns:
        ``(H, W)`` float32; all zero for a constant image.

    Raises:
        ConfigError: ``sigma`` is out of range.
    """
    low, high, _, _ = cv2.minMaxLoc(image)
    smooth, slope = _kernels(float(sigma))
    if high <= low:
        return np.zeros(image.shape, np.float32)
    scaled = slope / np.float32(high - low)
    x = _filter(image, scaled, smooth)
    y = _filter(image, smooth, scaled)
    # Not cv2.magnitude: its last bit depends on where in memory the arrays lie, and equal runs must give equal files.
    np.multiply(x, x, out=x)
    np.multiply(y, y, out=y)
    np.add(x, y, out=x)
    return np.sqrt(x, out=x)


def _filter(image: NDArray, along_x: NDArray[np.float32], along_y: NDArray[np.float32]) -> NDArray[np.float32]:
    filtered = cv2.sepFilter2D(image, cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(filtered, dtype=np.float32)


def _grad_update(pred: Tensor, true: Tensor, sigma: float = 1.4) -> Tensor:
    values = [
        cv2.norm(gradient_magnitude(p, sigma), gradient_magnitude(t, sigma), cv2.NORM_L2SQR)
        for p, t in zip(images(pred), images(true), strict=True)
    ]
    return per_frame(values, pred)


def _grad_compute(values: Tensor, reduction: Reduction) -> Tensor:
    return reduce_frames(values / 1e3, reduction)


def gradient_error(pred: Tensor, true: Tensor, sigma: float = 1.4, reduction: Reduction = "mean") -> Tensor:
    """Grad of alpha, ``sum (|grad pred| - |grad true|)^2 / 1000`` over the pixels of a frame.

    Gradients are Gaussian derivatives of each alpha stretched to [0, 1] (:func:`gradient_magnitude`), as in the
    evaluation of Robust Video Matting. Computed on the CPU whatever the device.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        sigma: Standard deviation of the derivative in pixels, in (0, 39].
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Returns:
        float64, at least 0: a scalar, or ``(T,)`` / ``(B, T)`` for ``none``.

    Raises:
        DataError: The shapes differ or are not those above, or a value is not in [0, 1].
        ConfigError: The reduction is unknown or sigma out of range.

    Example:
        >>> import torch
        >>> true = torch.zeros(1, 1, 16, 16)
        >>> true[..., 8:] = 1.0
        >>> gradient_error(true, true).item()
        0.0
        >>> round(gradient_error(torch.zeros_like(true), true).item(), 4)
        0.3135
    """
    check_alphas(pred, true)
    return _grad_compute(_grad_update(pred, true, sigma), reduction)
