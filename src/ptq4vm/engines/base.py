"""The interface that every engine has: a frame in, its matte out, recurrent states inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ptq4vm.engines.enlarging import GuidedMatte

AUTOMATIC_SIDE = 512
"""Pixels that the longer side of a frame is brought to where no ratio is given; RVM's authors recommend it."""


def automatic_ratio(size: tuple[int, int]) -> float:
    """Fraction of ``size`` = ``(H, W)`` at which the longer side has at most 512 pixels; never above 1."""
    return min(AUTOMATIC_SIDE / max(size), 1.0)


class Matte(NamedTuple):
    """What an engine predicts for one frame.

    Attributes:
        alpha: ``(H, W)`` float32 in [0, 1].
        foreground: ``(H, W, 3)`` float32 RGB in [0, 1].
    """

    alpha: NDArray[np.float32]
    foreground: NDArray[np.float32]


class MattingEngine(ABC):
    """A matting network that is fed one frame after another of the same video.

    The recurrent states are kept inside. They are reset when a frame has another size than the one before it.
    An engine serves one video at a time and one thread at a time.
    """

    @abstractmethod
    def reset(self) -> None:
        """Forget the frames seen so far: the next one begins a video."""

    @abstractmethod
    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        """Matte the next frame.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB.

        Returns:
            Alpha ``(H, W)`` and foreground ``(H, W, 3)``, of the frame's own size.
        """

    def deferred(self, frame: NDArray[np.uint8]) -> Matte | GuidedMatte:
        """The matte of the next frame, where an engine can at full size only once it is asked for.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB.
        """
        return self.matte(frame)

    def prepare(self, frame: NDArray[np.uint8]) -> None:  # noqa: B027  # most have nothing to do ahead
        """Do ahead what can be done for a frame without those before it; another thread than :meth:`matte`'s may.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB, the very array that :meth:`matte` or :meth:`deferred` is given later. Frames
                may be left out then, but keep their order.
        """

    def executed_types(self) -> Mapping[tuple[str, str], int] | None:
        """How many operations run in each type, as ``(kind, type)``: ``("Convolution", "u8")``, ...

        ``None`` where the engine does not tell. Convolutions are of the kind ``Convolution``.
        """
        return None
