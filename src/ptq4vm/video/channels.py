"""Queues between the steps of matting: short, and of a live source's frames no longer than they need be."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

QUEUE = 3
"""Items that wait between two steps at most: what bounds the memory, whatever the length of the video."""
BACKLOG = 3
"""Frames of a live source that wait at most, for as long as a halt of the others takes."""
PATIENCE = 0.25
"""Seconds after which frames that wait are no halt any more."""
_LOOK_UP = 0.1  # seconds after which a waiting step looks whether it is still wanted
_PACKETS = 16  # of sound, for each frame that may wait


class Channel(Generic[T]):
    """A queue of few items from one thread to another that either side can end.

    Args:
        size: Items that it holds at most.

    Attributes:
        most: How many have waited at once so far.
        dropped: How many were left out.
    """

    def __init__(self, size: int = QUEUE) -> None:
        self._items: queue.Queue[T] = queue.Queue(size)
        self._finished = threading.Event()
        self._abandoned = threading.Event()
        self.most = 0
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Wait for room and add an item; False, at once, when nobody takes any more."""
        while not self._abandoned.is_set():
            try:
                self._items.put(item, timeout=_LOOK_UP)
            except queue.Full:
                continue
            self.most = max(self.most, self._items.qsize())
            return True
        return False

    def finish(self) -> None:
        """Say that nothing more is put."""
        self._finished.set()

    def abandon(self) -> None:
        """Say that nothing more is taken."""
        self._abandoned.set()

    def take(self, stop: threading.Event | None = None) -> Iterator[T]:
        """Items until the other side finishes, or ``stop`` is set."""
        while stop is None or not stop.is_set():
            finished = self._finished.is_set()  # looked up first: what was put before it is in the queue
            try:
                yield self._items.get(timeout=0 if finished else _LOOK_UP)
            except queue.Empty:
                if finished:
                    return


class LiveChannel(Channel[T]):
    """Leaves items out where the other side is too slow for them, and none for a short halt of it.

    A halt (another program, a disk) is over soon, and what it held up is made good: up to :data:`BACKLOG` frames wait.
    Where some have waited for :data:`PATIENCE` without a break, the other side cannot keep up, and nothing but the
    newest waits until it has found none waiting for as long. It is CoDel's thought (Nichols and Jacobson, "Controlling
    Queue Delay", 2012): not how long a queue is tells whether it is too long, but how long it has not been empty.

    Args:
        may_go: Whether an item may be left out: frames may, sound may not.
        clock: Seconds of a clock that does not go back.
    """

    def __init__(self, may_go: Callable[[T], bool], clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(BACKLOG * _PACKETS)
        self._may_go = may_go
        self._clock = clock
        self._put = self._taken = 0  # items that may go; each is counted by one thread
        self._behind = False
        self._since = clock()  # the moment at which something was last found that speaks for the state it is in

    def put(self, item: T) -> bool:
        """See :meth:`Channel.put`; makes room for an item that may go, in place of the oldest that do."""
        if self._may_go(item):
            self._judge(self.waiting())
            self._keep(0 if self._behind else BACKLOG - 1)
            self._put += 1
        return super().put(item)

    def take(self, stop: threading.Event | None = None) -> Iterator[T]:
        """See :meth:`Channel.take`."""
        for item in super().take(stop):
            self._taken += self._may_go(item)
            yield item

    def waiting(self) -> int:
        """How many wait that may go; one more for a moment in which one is taken."""
        return self._put - self._taken - self.dropped

    def _judge(self, waiting: int) -> None:
        """See whether the other side keeps up, from how many wait when the next one comes."""
        now = self._clock()
        if (waiting > 0) == self._behind:
            self._since = now
        elif now - self._since >= PATIENCE:
            self._behind, self._since = waiting > 0, now

    def _keep(self, most: int) -> None:
        """Leave out the oldest until so many wait, in this, the only thread that puts."""
        too_many = self.waiting() - most
        if too_many <= 0:
            return
        held: list[T] = []
        while not self._items.empty():
            try:
                held.append(self._items.get_nowait())
            except queue.Empty:  # it has just been taken
                break
        for item in held:
            if too_many > 0 and self._may_go(item):
                too_many -= 1
                self.dropped += 1
            else:
                super().put(item)
