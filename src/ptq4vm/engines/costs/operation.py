"""One operation as an engine ran it, and all of a file together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ptq4vm.engines.base import MattingEngine

Frames = Sequence[NDArray[np.uint8]]
"""Frames ``(H, W, 3)`` uint8, consecutive ones of a video."""


@dataclass(frozen=True)
class Operation:
    """One operation as an engine ran it; what the engine joined is one.

    Attributes:
        name: The layer's path where it is one, otherwise the engine's name for it.
        kind: What the engine calls such operations: ``QLinearConv``, ``Convolution``.
        type: In which type it computes: ``u8``, ``i8``, ``f32``, ``bin``.
        milliseconds: What it took of a frame, on average; 0 where the engine takes no times.
        macs: Products that it sums up for a frame, with weights or of two activations, padding included; 0 where there
            are none, ``None`` where its size is not known.
        reason: Why it computes in float, or is no computation with codes at all; empty where it is one.
        kernel: What the engine calls the code that ran; empty where it does not tell.
    """

    name: str
    kind: str
    type: str
    milliseconds: float
    macs: int | None = 0
    reason: str = ""
    kernel: str = ""

    @property
    def integers(self) -> bool:
        """Whether it computes with integer codes."""
        return not self.reason


@dataclass(frozen=True)
class Costs:
    """What the operations of a file cost.

    Attributes:
        operations: In the order in which they run.
        frame: Milliseconds of a whole frame on average, while its operations were timed: from uint8 to float mattes.
        notes: What is to be known of all of them, a sentence each.
        timed: Whether the engine took their times.
    """

    operations: Sequence[Operation]
    frame: float
    notes: Sequence[str] = field(default_factory=tuple)
    timed: bool = True

    @property
    def milliseconds(self) -> float:
        """Time of all operations."""
        return sum(each.milliseconds for each in self.operations)

    @property
    def integer_time(self) -> float:
        """Share of that time that is spent computing with integers, in [0, 1]."""
        spent = sum(each.milliseconds for each in self.operations if each.integers)
        return spent / max(self.milliseconds, 1e-12)

    @property
    def macs(self) -> int | None:
        """Products that are summed up for a frame; ``None`` where an operation's size is not known."""
        return _sum(self.operations)

    @property
    def integer_macs(self) -> float | None:
        """Share of these that are products of integers, in [0, 1]; ``None`` where it cannot be told."""
        whole, part = _sum(self.operations), _sum([each for each in self.operations if each.integers])
        return None if not whole or part is None else part / whole

    def by_cost(self) -> list[Operation]:
        """The operations, those first that took longest, or sum up most products where no times were taken."""
        return sorted(self.operations, key=lambda each: -self._weight(each))

    def by_reason(self) -> dict[str, list[Operation]]:
        """Reason to the operations that have it (empty for those with integers), in the order of :meth:`by_cost`."""
        found: dict[str, list[Operation]] = {}
        for each in self.operations:
            found.setdefault(each.reason, []).append(each)
        return dict(sorted(found.items(), key=lambda pair: -sum(map(self._weight, pair[1]))))

    def _weight(self, each: Operation) -> float:
        return each.milliseconds if self.timed else each.macs or 0


def _sum(operations: Sequence[Operation]) -> int | None:
    known = [each.macs for each in operations if each.macs is not None]
    return sum(known) if len(known) == len(operations) else None


def matte_all(engine: MattingEngine, frames: Frames, warm_up: int, begin: Callable[[], None] | None = None) -> float:
    """Matte frames for an engine that takes its own times.

    Args:
        engine: Begins a video.
        frames: Frames of the file's size, at least one.
        warm_up: How many of them, over and over, are matted before.
        begin: Called when the warming up is over.

    Returns:
        Milliseconds of a frame after that, on average.

    Raises:
        ConfigError: ``warm_up`` is negative.
        DataError: There are no frames, or they are not of the file's size.
    """
    if warm_up < 0:
        raise ConfigError(f"warm_up={warm_up}: use 0 or more")
    if not len(frames):
        raise DataError("there are no frames to time operations with")
    engine.reset()
    for number in range(warm_up):
        engine.matte(frames[number % len(frames)])
    if begin is not None:
        begin()
    began = time.perf_counter()
    for frame in frames:
        engine.matte(frame)
    return (time.perf_counter() - began) * 1e3 / len(frames)
