"""Loops over rows, one after another, each shared by threads: what a program of a ``.bits`` file does for a frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ptq4vm.system.cpu import usable_cpus

Rows = Callable[[int, int], None]
"""Computes rows ``start:stop`` of a result."""
_ALONE = 8  # rows that are not worth a second thread


class Task(NamedTuple):
    """A loop over the rows of a result, which threads may share.

    Attributes:
        rows: How many there are to share.
        work: Computes some of them.
        node: Number of the program's node that it begins with.
    """

    rows: int
    work: Rows
    node: int


class Tasks:
    """Loops in the order in which they run.

    Args:
        threads: CPU threads; all that the process may use when not given.

    Attributes:
        all: The loops that were added, in their order.
        spent: Seconds that each took since :meth:`take_times`; empty before.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads or usable_cpus()
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self.all: list[Task] = []
        self.spent: list[float] = []

    def add(self, rows: int, work: Rows, node: int) -> None:
        """Put a loop after the others."""
        self.all.append(Task(rows, work, node))

    def take_times(self) -> None:
        """Take the time of every loop from now on."""
        self.spent = [0.0] * len(self.all)

    def run(self) -> None:
        """Run all loops."""
        for number, task in enumerate(self.all):
            began = time.perf_counter()
            self._do(task)
            if self.spent:
                self.spent[number] += time.perf_counter() - began

    def _do(self, task: Task) -> None:
        if self._pool is None or task.rows < _ALONE:
            task.work(0, task.rows)
            return
        ends = [task.rows * number // self._threads for number in range(self._threads + 1)]
        list(self._pool.map(task.work, ends[:-1], ends[1:]))
