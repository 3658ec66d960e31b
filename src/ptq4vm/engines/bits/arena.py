"""Memory of a ``.bits`` program: tensors that are not needed at the same time lie in the same place.

A frame at 512x288 writes 126 MB of tensors, of which 10 to 20 are needed at a time: these stay in the last-level cache.
Importing this needs Numba (the extra ``fast``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.bits.layout import Floats, rounded, shaped, space
from ptq4vm.engines.bits.machine import Machine, memory

ALIGNED = 4096  # bytes


class Arena:
    """Gives tensors their place, in the order in which they are asked for.

    A program is laid out twice: first every tensor has memory of its own, then that of a plan.

    Args:
        plan: Where the tensors begin, in bytes, and -1 for memory of their own; ``None`` for that of all.

    Attributes:
        made: The memory of each tensor that could lie elsewhere, and how many bytes it takes.
    """

    def __init__(self, plan: Sequence[int] | None = None, size: int = 0) -> None:
        self.made: list[tuple[int, int]] = []
        self._plan = plan
        self._whole = np.zeros(size + ALIGNED, np.uint8)
        self._start = -self._whole.ctypes.data % ALIGNED

    def room(self, size: Sequence[int], edge: int = 0) -> Floats:
        """As :func:`~ptq4vm.engines.bits.layout.room`; zeros are there only where an edge is asked for."""
        shape = space(size, edge)
        bytes_ = 4 * shape[0] * shape[1]
        planned = -1 if self._plan is None or edge else self._plan[len(self.made)]
        if planned < 0:
            flat = np.zeros(shape, np.float32)
        else:  # through a memoryview, so that it counts as memory of its own
            start = self._start + planned
            flat = np.frombuffer(self._whole[start : start + bytes_].data, np.float32).reshape(shape)
        if not edge:
            self.made.append((memory(flat), bytes_))
        return shaped(flat, size, edge)

    def plan(self, machine: Machine, pinned: set[int]) -> tuple[list[int], int]:
        """Where each tensor can lie, and how many bytes all take; ``pinned`` memory is needed from frame to frame."""
        lives = machine.lives()
        found = [-1] * len(self.made)
        placed: list[tuple[int, int, tuple[int, int]]] = []
        for number in sorted(range(len(self.made)), key=lambda n: -self.made[n][1]):
            where, size = self.made[number]
            if where in pinned or where not in lives:
                continue
            found[number] = start = _lowest(placed, rounded(size, ALIGNED), lives[where])
            placed.append((start, start + rounded(size, ALIGNED), lives[where]))
        return found, max((end for _, end, _ in placed), default=0)


def _lowest(placed: Sequence[tuple[int, int, tuple[int, int]]], size: int, life: tuple[int, int]) -> int:
    """The lowest place with room beside all that lives at the same time."""
    start = 0
    for begin, end, (born, last) in sorted(placed):
        if last < life[0] or born > life[1]:
            continue
        if begin - start >= size:
            break
        start = max(start, end)
    return start


def roots(arrays: Sequence[NDArray[Any]]) -> set[int]:
    """Memory that arrays are views of."""
    return {memory(array) for array in arrays}
