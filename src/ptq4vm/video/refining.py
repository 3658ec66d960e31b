"""Mattes that are worked on before they are enlarged: one subject kept, flicker taken out, colours freed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.enlarging import GuidedMatte, WrappedEngine


class Refiner(ABC):
    """Something that changes one matte after another of the same video."""

    @abstractmethod
    def refine(self, frame: NDArray[np.uint8], matte: Matte) -> Matte:
        """The matte of the next frame, changed.

        Args:
            frame: ``(h, w, 3)`` uint8 RGB, at the matte's size.
            matte: The frame's matte, which is not changed itself.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget the frames seen so far."""


class RefinedEngine(WrappedEngine[MattingEngine]):
    """An engine whose mattes go through refiners, at the size at which the network gave them.

    Args:
        engine: What gives the mattes.
        refiners: What changes them, in this order.
    """

    def __init__(self, engine: MattingEngine, refiners: Sequence[Refiner]) -> None:
        super().__init__(engine)
        self._refiners = list(refiners)

    def reset(self) -> None:
        """See :meth:`MattingEngine.reset`."""
        super().reset()
        for refiner in self._refiners:
            refiner.reset()

    def deferred(self, frame: NDArray[np.uint8]) -> Matte | GuidedMatte:
        """See :meth:`MattingEngine.deferred`."""
        found = self.engine.deferred(frame)
        if isinstance(found, GuidedMatte):
            return found.altered(self._refined(found.small, found.matte))
        return self._refined(frame, found)

    def _refined(self, frame: NDArray[np.uint8], matte: Matte) -> Matte:
        for refiner in self._refiners:
            matte = refiner.refine(frame, matte)
        return matte
