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
    "fps": (1 / 1000, math.inf),
    "memory_mib": (0, 2**30),
    "flow_cache_mib": (0, 2**30),
    "clips": (-math.inf, 10**6),
    "clip_length": (-math.inf, 10**5),
    "crop": (-math.inf, SIDE),
    "size": (-math.inf, SIDE),
    "batch_size": (-math.inf, 10**5),
    "zoom": (-math.inf, 100),
    "frames": (-math.inf, 10**9),
    "steps": (-math.inf, 10**8),
    "epochs": (-math.inf, 10**6),
    "num_workers": (-math.inf, 1024),
    "threads": (-math.inf, 1024),
    "pairs_per_clip": (-math.inf, 10**6),
    "port": (0, 65535),
}
"""Smallest and largest value; infinite where the place that uses it says more."""
_RATES = (-math.inf, 1000)
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
    if value > high:
        raise ConfigError(f"{key}={value:g} is out of range: use {high:g} at most")
    if value < low:
        raise ConfigError(f"{key}={value:g} is out of range: use {low:g} or more")


def check_size(key: str, size: tuple[int, int]) -> None:
    """Refuse a picture of ``(H, W)`` pixels that no memory holds. Raises :class:`ConfigError`."""
    if not (min(size) >= 1 and max(size) <= SIDE and size[0] * size[1] <= PIXELS):
        raise ConfigError(
            f"{key}={size[1]}x{size[0]} is out of range: use sides of 1 to {SIDE}, {PIXELS} pixels at most"
        )


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads below 1; ``None`` leaves it open. Raises :class:`ConfigError`."""
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads}: use 1 or more")
