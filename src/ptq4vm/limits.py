"""What numbers may be, by the last part of their key: what is beyond would hang, fill the memory or end in a traceback.

The bounds are far beyond what makes sense; what a value means is checked where it is used.
"""

from __future__ import annotations

import math

from ptq4vm.errors import ConfigError

SIDE = 16384
"""Largest width or height of a picture, pixels."""
PIXELS = 2**28
"""Most pixels of a picture."""

BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "downsample_ratio": (1 / 64, 1),
    "fps": (1 / 1000, 1000),
    "memory_mib": (0, 2**30),
    "flow_cache_mib": (0, 2**30),
    "clips": (1, 10**6),
    "clip_length": (1, 10**5),
    "crop": (1, SIDE),
    "size": (1, SIDE),
    "batch_size": (1, 10**5),
    "zoom": (1, 100),
    "frames": (1, 10**9),
    "steps": (1, 10**8),
    "epochs": (1, 10**6),
    "num_workers": (0, 1024),
    "threads": (1, 1024),
    "pairs_per_clip": (1, 10**6),
}
"""Smallest and largest value."""
_RATES = (0, 1000)
_ANY = (-1e15, 1e15)


def check_number(key: str, value: float) -> None:
    """Refuse a number that is not finite or out of all reason.

    Args:
        key: Where it was given, for the message; its last part says which bounds hold.
        value: The number that was given.

    Raises:
        ConfigError: It is out of bounds.
    """
    name = key.rpartition(".")[2].partition("[")[0]
    low, high = BOUNDS.get(name, _RATES if name.endswith("_lr") else _ANY)
    if not math.isfinite(value):
        raise ConfigError(f"{key}={value} is no finite number")
    if not low <= value <= high:
        raise ConfigError(f"{key}={value:g} is out of range: use {low:g} to {high:g}")


def check_size(key: str, size: tuple[int, int]) -> None:
    """Refuse a picture of ``(H, W)`` pixels that no memory holds. Raises :class:`ConfigError`."""
    if not (min(size) >= 1 and max(size) <= SIDE and size[0] * size[1] <= PIXELS):
        raise ConfigError(
            f"{key}={size[1]}x{size[0]} is out of range: use sides of 1 to {SIDE}, {PIXELS} pixels at most"
        )
