"""What a dataset gives to the data module: two lists of clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ptq4vm.types import ClipSource


@dataclass(frozen=True)
class ClipSets:
    """Clips to calibrate on and clips to measure on; either may be empty.

    Attributes:
        calibration: Clips from which calibration samples are drawn.
        evaluation: Clips that are streamed whole, in this order, when a network is measured.
    """

    calibration: tuple[ClipSource, ...]
    evaluation: tuple[ClipSource, ...]


@runtime_checkable
class ClipDataset(Protocol):
    """A named collection of clips. Building one is free; :meth:`clips` looks at the disk."""

    def clips(self) -> ClipSets:
        """List the clips. Raises :class:`ptq4vm.errors.DataError` for a missing, empty or inconsistent folder."""
        ...
