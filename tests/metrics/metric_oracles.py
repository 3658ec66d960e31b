"""The definitions once more, written plainly with scipy: slow, and sharing nothing with the code under test."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def mad(p, t):
    return 1e3 * np.abs(p - t).mean()


def mse(p, t):
    return 1e3 * ((p - t) ** 2).mean()


def gradient(image, sigma):
    radius = int(np.ceil(sigma * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * sigma * 0.01))))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    kernel = -x * np.exp(-(x**2 + y**2) / (2 * sigma**2))
    kernel /= np.sqrt((kernel**2).sum())
    spread = image.max() - image.min()
    image = (image - image.min()) / spread if spread > 0 else np.zeros_like(image)
    gx, gy = (ndimage.correlate(image, k, mode="nearest") for k in (kernel, kernel.T))
    return np.sqrt(gx**2 + gy**2)


def grad(p, t, sigma=1.4):
    return ((gradient(p, sigma) - gradient(t, sigma)) ** 2).sum() / 1e3


def largest(mask):
    labels, count = ndimage.label(mask)  # 4-connected
    if count == 0:
        return np.zeros_like(mask)
    sizes = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
    return labels == 1 + int(np.argmax(sizes))


def connected_levels(levels):
    """Thresholds that each pixel survives without a gap."""
    alive, survived = np.ones(levels.shape, bool), np.zeros(levels.shape, int)
    for level in range(1, 11):
        alive &= largest(levels >= level)
        survived += alive
    return survived


def conn(p, t):
    thresholds = (np.arange(1, 11) / 10).astype(p.dtype)
    reached = (np.minimum(p, t)[..., None] >= thresholds).sum(-1)
    floor = connected_levels(reached) / 10
    phi = [1 - (a - floor) * ((a - floor) >= 0.15) for a in (p, t)]
    return np.abs(phi[0] - phi[1]).sum() / 1e3


def dtssd(p, t, p_before, t_before):
    return 1e2 * np.sqrt((((p - p_before) - (t - t_before)) ** 2).mean())


def clip(pred, true):
    """``(T, H, W)`` in [0, 1] to ``{metric: (T,)}``."""
    values = {"mad": [], "mse": [], "grad": [], "conn": [], "dtssd": []}
    for i, (p, t) in enumerate(zip(pred, true, strict=True)):
        for name, function in (("mad", mad), ("mse", mse), ("grad", grad), ("conn", conn)):
            values[name].append(function(p, t))
        values["dtssd"].append(dtssd(p, t, pred[i - 1], true[i - 1]) if i else 0.0)
    return {name: np.array(v) for name, v in values.items()}
