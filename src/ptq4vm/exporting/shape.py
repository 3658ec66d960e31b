"""What frames an exported graph takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_size

SMALLEST = 16
"""Pixels: the coarsest state of a smaller picture would be a single pixel or none."""


@dataclass(frozen=True)
class FrameShape:
    """Frames that an exported graph takes: their size, and the ratio at which the network runs.

    Attributes:
        height: Rows of a frame.
        width: Columns of a frame.
        dynamic: True lets the graph take any size; the given one is only what it is traced with.
        downsample_ratio: Fixed in the graph: the network runs at this fraction of the size, in (0, 1].

    Raises:
        ConfigError: Out of range.
    """

    height: int
    width: int
    dynamic: bool = False
    downsample_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.downsample_ratio <= 1:
            raise ConfigError(f"downsample_ratio={self.downsample_ratio}: use a fraction in (0, 1]")
        check_size("size", (self.height, self.width))
        least = math.ceil(SMALLEST / self.downsample_ratio)
        if min(self.height, self.width) < least:
            raise ConfigError(f"size={self.width}x{self.height}: use {least} pixels or more on both sides")
