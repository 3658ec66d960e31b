"""Errors of structure: Grad (how far the edges of two alphas differ) and Conn (how much hangs loose)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptq4vm.errors import ConfigError
from ptq4vm.metrics.functional.inputs import MEASURES, AlphaPair, Reduction, measure_images, reduce_frames

Bytes: TypeAlias = NDArray[np.uint8]

_TAIL = 1e-2  # the kernel reaches as far as the Gaussian density stays above this
_LEVELS = 10  # thresholds 0.1, 0.2 ... 1.0
_FORGIVEN = float(np.nextafter(np.float32(0.15), np.float32(0)))  # cv2 keeps what is strictly above
_LEVEL_OF_BYTE = (np.arange(256) * _LEVELS // 255).astype(np.uint8)


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

    Example:
        >>> import numpy as np
        >>> edge = np.repeat(np.uint8([[0, 0, 0, 255, 255, 255]]), 6, axis=0)
        >>> gradient_magnitude(edge)[3].round(1).tolist() == gradient_magnitude(edge // 2)[3].round(1).tolist()
        True
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


@MEASURES.register("grad")
def _grad(pair: AlphaPair, sigma: float = 1.4) -> Tensor:
    def error(pred: NDArray, true: NDArray) -> float:
        return cv2.norm(gradient_magnitude(pred, sigma), gradient_magnitude(true, sigma), cv2.NORM_L2SQR)

    return measure_images(pair, error) / 1e3


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
    return reduce_frames(_grad(AlphaPair(pred, true), sigma), reduction)


def _levels(alpha: NDArray) -> Bytes:
    """Number of thresholds that each pixel reaches, 0..10, in the shape of ``alpha`` (uint8 or float32)."""
    if alpha.dtype == np.uint8:
        return np.asarray(cv2.LUT(alpha, _LEVEL_OF_BYTE))
    # In float32, floor(10 a) equals the count of thresholds i/10 <= a: a test walks through the values around each.
    return (torch.from_numpy(alpha) * float(_LEVELS)).to(torch.uint8).numpy()


def _largest_component(mask: Bytes) -> Bytes:
    """Largest 4-connected component (0/1) of a non-empty mask, the first in reading order among equals."""
    _, labels = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (labels == sizes.argmax()).view(np.uint8)


def _highest_pixel(levels: Bytes) -> tuple[int, int]:
    """``(x, y)`` inside the largest component of the highest level that occurs."""
    y, x = divmod(int(_largest_component((levels == levels.max()).view(np.uint8)).argmax()), levels.shape[1])
    return x, y


def connected_levels(levels: Bytes) -> Bytes:
    """Up to which threshold each pixel belongs, without a gap, to the largest component of its threshold.

    Args:
        levels: ``(H, W)`` uint8, thresholds reached by both alphas. With ``S_i = {levels >= i}`` and ``C_i`` the
            largest 4-connected component of ``S_i``, the result at a pixel is the largest ``n`` with the pixel in
            ``C_1, ..., C_n``.

    Returns:
        ``(H, W)`` uint8 in 0..10.

    Example:
        >>> import numpy as np
        >>> connected_levels(np.uint8([[9, 9, 0, 4]])).tolist()
        [[9, 9, 0, 0]]

    Every component of ``S_i`` lies inside one of ``S_{i-1}``, so ``C_i`` is a part of ``C_{i-1}`` or does not touch it.
    A pixel of the highest component usually belongs to every ``C_i``: filling from it, within the bounding box of
    ``C_{i-1}``, costs a fraction of labelling everything, and what holds more than half of ``S_i`` is its largest
    component for certain. Only otherwise all of ``S_i`` is labelled; once ``C_i`` does not touch ``C_{i-1}``, no pixel
    can be in both and the search ends.
    """
    result = np.zeros_like(levels)
    counts = cv2.calcHist([levels], [0], None, [_LEVELS + 1], [0, _LEVELS + 1]).ravel()
    reaching = counts[::-1].cumsum()[::-1]  # [i]: size of S_i
    x, y = _highest_pixel(levels)
    inside, out = levels, result  # views of the bounding box of C_{i-1}; `inside` is 0 outside C_{i-1}
    for level in range(1, _LEVELS + 1):
        if reaching[level] == 0:
            break
        component = (inside >= level).view(np.uint8)
        area = 0
        if component[y, x]:
            area, _, _, (left, top, width, height) = cv2.floodFill(component, None, (x, y), 2, flags=4)
            np.right_shift(component, 1, out=component)
        if 2 * area <= reaching[level]:
            found = _largest_component((levels >= level).view(np.uint8))
            if level > 1:
                found &= result >= level - 1  # C_{i-1} is where the search has come as far as i-1
                if not found.any():
                    break
            inside, out, component = levels, result, found
            x, y = _highest_pixel(levels * found)
            left, top, width, height = cv2.boundingRect(found)
        box = (slice(top, top + height), slice(left, left + width))
        component = component[box]
        x, y, out = x - left, y - top, out[box]
        out += component
        inside = inside[box] * component
    return result


def _frame_error(pred: NDArray, true: NDArray) -> float:
    """Sum over one frame of ``|phi(pred) - phi(true)|``, ``phi(a) = 1 - d [d >= 0.15]``, ``d = a - floor``."""
    connected = connected_levels(np.minimum(_levels(pred), _levels(true)))
    floor = np.divide(connected, np.float32(_LEVELS), dtype=np.float32)
    loose = []
    for alpha in (pred, true):
        alpha = alpha if alpha.dtype == np.float32 else np.divide(alpha, np.float32(255), dtype=np.float32)
        loose.append(cv2.threshold(alpha - floor, _FORGIVEN, 0.0, cv2.THRESH_TOZERO)[1])
    return cv2.norm(loose[0], loose[1], cv2.NORM_L1)


@MEASURES.register("conn")
def _conn(pair: AlphaPair) -> Tensor:
    return measure_images(pair, _frame_error) / 1e3


def connectivity_error(pred: Tensor, true: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Conn of alpha, ``sum |phi(pred) - phi(true)| / 1000`` over the pixels of a frame.

    For each pixel, ``l`` is the highest threshold (step 0.1) up to which it stays in the largest connected component
    of the pixels where both alphas reach the threshold, and ``phi(a) = 1 - (a - l)`` where ``a - l >= 0.15``, else 1.
    The definition of the evaluation of Robust Video Matting. Computed on the CPU whatever the device.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Returns:
        float64, at least 0: a scalar, or ``(T,)`` / ``(B, T)`` for ``none``.

    Raises:
        DataError: The alphas differ in shape, have none of the two shapes above, or hold a value outside [0, 1].
        ConfigError: The reduction is none of the three.

    Example:
        >>> import torch
        >>> true = torch.zeros(1, 1, 20, 50)
        >>> true[..., :20] = 1.0
        >>> pred = true.clone()
        >>> pred[..., 30:40] = 1.0  # 200 pixels of an island that is not in the truth
        >>> round(connectivity_error(pred, true).item(), 4)
        0.2
    """
    return reduce_frames(_conn(AlphaPair(pred, true)), reduction)
