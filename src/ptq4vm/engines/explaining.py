"""An exported file explained: which of its operations run with integers on this CPU, which do not and why, and what
each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.costs.operation import Costs
from ptq4vm.engines.registry import engine_class, open_engine
from ptq4vm.system.cpu import Cpu, this_cpu


@dataclass(frozen=True)
class Explanation:
    """What the operations of a file cost, and where that was measured.

    Attributes:
        file: The exported file.
        engine: The engine's name for people.
        cpu: The CPU as that engine uses it.
        size: ``(H, W)`` of the frames, pixels.
        frames: How many were timed.
        threads: CPU threads; ``None`` for as many as the engine likes.
        costs: What was found.
    """

    file: Path
    engine: str
    cpu: Cpu
    size: tuple[int, int]
    frames: int
    threads: int | None
    costs: Costs

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of all operations, a sentence each."""
        if self.cpu.exact or not self.costs.integer_time:
            return tuple(self.costs.notes)
        slow = "this CPU has no VNNI: products of 8 bits are added in pairs of 16 bits, which takes longer"
        return (*self.costs.notes, f"{slow}, and is exact for files with overflow=safe alone")


def frame_size(file: Path, engine: str = "auto") -> tuple[int, int] | None:
    """``(H, W)`` that a file was made for; ``None`` for any. Raises as :func:`ptq4vm.engines.registry.open_engine`."""
    return open_engine(file, 1, engine).frame_size


def explain(
    file: Path,
    frames: Sequence[NDArray[np.uint8]],
    threads: int | None = None,
    warm_up: int = 5,
    engine: str = "auto",
) -> Explanation:
    """Matte frames of a file while its engine times its operations.

    Args:
        file: The exported file.
        frames: ``(H, W, 3)`` uint8 of its size, consecutive frames of a video.
        threads: CPU threads; as many as the engine likes when not given.
        warm_up: Frames before those that count.
        engine: A name of :data:`ptq4vm.engines.registry.ENGINES`, or ``auto``: the usual one for the file.

    Raises:
        PTQ4VMError: See :meth:`ptq4vm.engines.step.StepEngine.costs`.
    """
    chosen = engine_class(file, engine)
    costs = chosen.costs(file, frames, threads, warm_up)
    height, width = frames[0].shape[:2]
    cpu = this_cpu(chosen.uses_onednn)
    return Explanation(file, chosen.title, cpu, (height, width), len(frames), threads, costs)
