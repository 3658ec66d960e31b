"""Runs the operations of a ``.bits`` program: one compiled call a frame and thread, strips of rows that stay in cache.

Threads take strips one after the other, so that one that the system holds up does less; they wait for each other only
between groups. A group is a list of operations with as many rows each, of which all but what was computed before the
group is read row by row: a strip of its rows goes through all of them while it is in the cache. Importing this needs
Numba (the extra ``fast``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.bits import kernels
from ptq4vm.engines.bits.rows import exactly
from ptq4vm.engines.bits.tiles import give_way, look, nanoseconds, numbers_at, take
from ptq4vm.system.cpu import usable_cpus

LINE = 64  # bytes that threads share at once
PATIENCE = 200  # looks at a counter before another thread may have the CPU
STRIP = 2048
"""Pixels of a channel that a strip has at least, where there are as many."""


@exactly
def run(
    records: int, size: int, groups: int, first: int, last: int, threads: int, shared: int, times: int, thread: int
) -> None:
    """Run groups ``first:last``, as one of several threads that all call this.

    Args:
        records: Address of the operations' records.
        size: Bytes of one.
        groups: Address of four int64 for each group: first operation, the one after the last, rows, rows of a strip.
        first: The first group.
        last: The group after the last.
        threads: How many threads call this.
        shared: Address of counters, all 0: of threads that arrived, then one of strips for each group.
        times: Address of nanoseconds for each thread and operation, to which the time is added; 0 for none.
        thread: Which of them this is, from 0.
    """
    for number in range(first, last):
        group, counter = numbers_at(groups + number * 32), shared + (number + 1) * LINE
        while True:
            start = take(counter) * group[3]
            if start >= group[2]:
                break
            stop = min(start + group[3], group[2])
            for op in range(group[0], group[1]):
                if times == 0:
                    kernels.work(records + op * size, start, stop)
                else:
                    began = nanoseconds()
                    kernels.work(records + op * size, start, stop)
                    spent = numbers_at(times + (op * threads + thread) * LINE)
                    spent[0] = spent[0] + nanoseconds() - began
        if threads > 1:
            take(shared)
            looked = 0
            while look(shared) < threads * (number - first + 1):
                looked += 1
                if looked % PATIENCE == 0:
                    give_way()


@dataclass
class Operation:
    """One operation of a frame, as the compiled call reads it.

    Attributes:
        rows: Rows of its result.
        pixels: Pixels of a row.
        record: Numbers of the operation, as :mod:`~ptq4vm.engines.bits.kernels` names them.
        nodes: Numbers of the program's nodes that it begins with.
        around: Memory of which other rows are read too.
        written: Memory that is written.
        kept: Arrays that only the record knows of.
    """

    rows: int
    pixels: int
    record: dict[str, int]
    nodes: tuple[int, ...]
    around: set[int]
    written: set[int]
    kept: list[NDArray[Any]] = field(default_factory=list)


def memory(array: NDArray[Any]) -> int:
    """Which memory an array is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.ctypes.data


def record_of(fields: Mapping[str, int]) -> NDArray[np.int64]:
    """Fields by name as a record."""
    return np.array([fields.get(name, 0) for name in kernels.FIELDS], np.int64)


def grouped(operations: Sequence[Operation], threads: int) -> list[tuple[int, int, int, int]]:
    """Groups of neighbouring operations; see :func:`run`."""
    found: list[tuple[int, int, int, int]] = []
    first = 0
    while first < len(operations):
        written, rows, last = set(operations[first].written), operations[first].rows, first + 1
        while last < len(operations):
            following = operations[last]
            if following.rows != rows or following.around & written:
                break
            written |= following.written
            last += 1
        strips = max(1, rows * operations[first].pixels // STRIP)
        strips = min(rows, -(-strips // threads) * threads)
        found.append((first, last, rows, -(-rows // strips)))
        first = last
    return found


class Machine:
    """Operations in the order in which they run.

    Args:
        threads: CPU threads; all that the process may use when not given.

    Attributes:
        operations: What was added; a function is called by one thread, between groups.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads or usable_cpus()
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._parts: list[tuple[Callable[[], object] | None, int, int]] = []
        self._pending: list[Operation] = []
        self.operations: list[Operation] = []
        self._groups: list[tuple[int, int, int, int]] = []
        self._times: NDArray[np.int64] | None = None
        self._called: list[tuple[int, tuple[NDArray[Any], ...]]] = []

    def add(self, operation: Operation) -> None:
        """Put an operation behind the others."""
        self._pending.append(operation)

    def call(self, function: Callable[[], object], *arrays: NDArray[Any]) -> None:
        """Put a call of a function, which reads and writes these arrays, behind the operations so far."""
        self._flush()
        self._called.append((len(self._groups), arrays))
        self._parts.append((function, 0, 0))

    def _flush(self) -> None:
        if not self._pending:
            return
        start, ahead = len(self.operations), len(self._groups)
        for first, last, rows, strip in grouped(self._pending, self._threads):
            self._groups.append((start + first, start + last, rows, strip))
        self.operations += self._pending
        self._pending = []
        self._parts.append((None, ahead, len(self._groups)))

    def finish(self) -> None:
        """Lay out what was added; nothing can be added behind it."""
        self._flush()
        self._records = np.zeros((len(self.operations), len(kernels.FIELDS)), np.int64)
        for record, operation in zip(self._records, self.operations, strict=True):
            record[:] = record_of(operation.record)
        self._table = np.array(self._groups, np.int64).reshape(-1, 4)
        self._shared = np.zeros((len(self._groups) + 1, LINE // 8), np.int64)

    def lives(self) -> dict[int, tuple[int, int]]:
        """The first and the last group that needs each memory; what is called between two counts to both."""
        found: dict[int, tuple[int, int]] = {}
        users = [
            (number, array)
            for number, (first, last, _, _) in enumerate(self._groups)
            for operation in self.operations[first:last]
            for array in operation.kept
        ]
        users += [(at - before, array) for at, arrays in self._called for array in arrays for before in (0, 1)]
        for number, array in users:
            born, last = found.get(memory(array), (number, number))
            found[memory(array)] = (min(born, number), max(last, number))
        return found

    def take_times(self) -> None:
        """Take the time of every operation from now on."""
        self._times = np.zeros((len(self.operations), self._threads, LINE // 8), np.int64)

    @property
    def spent(self) -> Iterable[float]:
        """Seconds that each operation took since :meth:`take_times`, of all threads together by their number."""
        assert self._times is not None
        return (self._times[:, :, 0].sum(1) / (1e9 * self._threads)).tolist()

    def run(self) -> None:
        """Run everything once."""
        for function, first, last in self._parts:
            if function is not None:
                function()
            else:
                self._run(first, last)

    def _run(self, first: int, last: int) -> None:
        self._shared[:] = 0
        fixed = (
            self._records.ctypes.data,
            self._records.strides[0],
            self._table.ctypes.data,
            first,
            last,
            self._threads,
            self._shared.ctypes.data,
            0 if self._times is None else self._times.ctypes.data,
        )
        if self._pool is None:
            run(*fixed, 0)
            return
        others = [self._pool.submit(run, *fixed, number) for number in range(1, self._threads)]
        run(*fixed, 0)
        wait(others)
        for other in others:
            other.result()
