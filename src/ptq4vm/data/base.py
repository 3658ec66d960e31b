"""What a data set gives to the data module, two lists of clips, and the register of all data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.media.tensors import Box
from ptq4vm.system.registry import Registry
from ptq4vm.types import Clip, ClipSource


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


DATASETS: Registry[Callable[..., ClipDataset]] = Registry("data", "ptq4vm.data.datasets", "ptq4vm.datasets")
"""Classes of data sets. A configuration names one by its ``_target_``; a run folder can name these only. A package
from outside decorates its class with ``DATASETS.register(name)``, and names it in the entry point group
``ptq4vm.datasets`` so that it is known wherever that package is installed. Arguments that say where it writes are named
in its attribute ``writes_to``: those of somebody's run folder are not taken."""


@runtime_checkable
class LayeredClip(Protocol):
    """A clip that is composited when read, so that its foreground and its background can be had apart."""

    def read_foreground(self, times: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Colours ``(n, 3, H, W)`` and alpha ``(n, 1, H, W)``, uint8, of frames of the clip in any order."""
        ...

    def read_background(self, times: Sequence[int]) -> Tensor:
        """Colours ``(n, 3, H, W)`` uint8 of the background; ``times`` may go beyond the clip's end."""
        ...


@runtime_checkable
class BoxedClip(Protocol):
    """A clip of which a part of the picture can be had for less than the whole."""

    def read_box(self, start: int, stop: int, box: Box) -> Clip:
        """Frames ``start:stop``, cut to ``box``; the foreground may be left out.

        Raises:
            DataError: As :meth:`ptq4vm.types.ClipSource.read`.
        """
        ...


def frame_window(source: ClipSource, start: int, stop: int | None) -> slice:
    """Frames ``start:stop`` of a clip, to its end where ``stop`` is ``None``.

    Raises:
        DataError: They are not all inside the clip, or there is none.
    """
    stop = source.num_frames if stop is None else stop
    if not 0 <= start < stop <= source.num_frames:
        raise DataError(f"clip {source.name} has {source.num_frames} frames; frames {start}:{stop} were asked for")
    return slice(start, stop)


Predictor = Callable[[Iterator[Tensor]], Iterator[Tensor]]
"""From the consecutive chunks of one clip, ``(t, 3, H, W)`` uint8, to their alphas, ``(t, 1, H, W)`` uint8."""


@runtime_checkable
class NeedsTruth(Protocol):
    """A data set without true alphas: what the float network predicts is written once, before its clips are listed."""

    @property
    def truth(self) -> str:
        """What stands for the truth, in a few words for tables."""
        ...

    def make_truth(self, predict: Predictor, key: str) -> None:
        """Write the alphas of all clips that have none yet.

        Args:
            predict: Gives the alphas that the network predicts for the frames of a clip.
            key: Text that names the network and everything that changes what it predicts.

        Raises:
            DataError: A clip is missing or damaged.
            SaveError: The alphas cannot be written.
        """
        ...
