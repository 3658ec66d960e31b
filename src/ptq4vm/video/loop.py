"""Matting a whole video: decoding, the networks and encoding side by side, with little waiting between them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.enlarging import GuidedMatte
from ptq4vm.errors import ExportError, PTQ4VMError
from ptq4vm.media.frames import Frame, Reader, Sound
from ptq4vm.media.writers import Writer
from ptq4vm.video.composing import AnyMatte, Compose
from ptq4vm.video.scenes import SceneCuts

T = TypeVar("T")

QUEUE = 3
"""Items that wait between two steps at most: what bounds the memory, whatever the length of the video."""
_LOOK_UP = 0.1  # seconds after which a waiting step looks whether it is still wanted


class Channel(Generic[T]):
    """A queue of few items from one thread to another that either side can end.

    Args:
        size: Items that it holds at most.
    """

    def __init__(self, size: int = QUEUE) -> None:
        self._items: queue.Queue[T] = queue.Queue(size)
        self._finished = threading.Event()
        self._abandoned = threading.Event()
        self.most = 0

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


class Busy:
    """Seconds for which each step of matting worked rather than waited; every step runs in one thread."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("decode", "network", "compose", "encode"), 0.0)

    @contextmanager
    def at(self, step: str) -> Iterator[None]:
        """Count what is done inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - began


Matted = tuple[Frame, tuple[AnyMatte, ...]]


@dataclass(frozen=True)
class Outcome:
    """How matting a video ended.

    Attributes:
        seen: Frames that went through the networks.
        stopped: Whether it was asked to stop before the end.
        error: What kept it from coming to the end; what came before it was written.
        busy: Seconds for which each step worked: ``decode``, ``network``, ``compose`` and ``encode``.
    """

    seen: int
    stopped: bool
    error: PTQ4VMError | None
    busy: Mapping[str, float] = field(default_factory=dict, compare=False)


def matte_video(
    reader: Reader,
    engines: Sequence[MattingEngine],
    compose: Compose,
    writer: Writer,
    *,
    start: int = 0,
    end: int | None = None,
    cuts: SceneCuts | None = None,
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> Outcome:
    """Read frames, matte them with every engine and write what ``compose`` makes of them.

    Reading and writing have a thread each; the engines run in the caller's. At most :data:`QUEUE` frames wait on
    either side.

    Args:
        reader: Reader of the source, which gives frames and sound.
        engines: Each is reset first and gets every frame, in order.
        compose: Makes a picture of a frame and the engines' mattes; called in the writing thread.
        writer: Gets the pictures, and the sound untouched.
        start: Index of the first frame.
        end: Index of the frame after the last; ``None``: all that there are.
        cuts: Tells where a scene begins, at which the engines are reset; ``None`` for one scene.
        stop: Once it is set, what has been matted is written and the rest is not begun.
        on_frame: Called with the frame's index + 1 after each.

    Raises:
        SaveError: It cannot be written.
    """
    stop = stop or threading.Event()
    for engine in engines:
        engine.reset()
    decoded: Channel[Frame | Sound] = Channel()
    matted: Channel[Matted | Sound] = Channel()
    seen, error, busy = 0, None, Busy()
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(_read, reader, decoded, start, end, busy)
        writing = pool.submit(_write, writer, matted, compose, busy)
        try:
            for item in decoded.take(stop):
                if isinstance(item, Sound):
                    wanted = matted.put(item)
                else:
                    if cuts is not None and cuts.is_cut(item.image):
                        for engine in engines:
                            engine.reset()
                    with busy.at("network"):
                        mattes = tuple(engine.deferred(item.image) for engine in engines)
                    _check_finite(mattes, item.index)
                    wanted = matted.put((item, mattes))
                    seen += 1
                    if on_frame is not None:
                        on_frame(item.index + 1)
                if not wanted:
                    break
        except PTQ4VMError as failed:
            error = failed
        finally:
            decoded.abandon()
            matted.finish()
        writing.result()
        return Outcome(seen, stop.is_set(), error or _failure(reading), busy.seconds)


def _check_finite(mattes: Sequence[AnyMatte], index: int) -> None:
    """Refuse mattes that are no numbers: sooner or later they are everywhere, so a part of the pixels will do."""
    known = (matte.matte if isinstance(matte, GuidedMatte) else matte for matte in mattes)
    if not all(np.isfinite(matte.alpha[::8, ::8]).all() for matte in known):
        raise ExportError(
            f"the network gives a matte that is no number at frame {index}: its weights or scales are broken"
        )


def _read(reader: Reader, decoded: Channel[Frame | Sound], start: int, end: int | None, busy: Busy) -> None:
    try:
        items = reader.read(start, end)
        while True:
            with busy.at("decode"):
                item = next(items, None)
            if item is None or not decoded.put(item):
                break
    finally:
        decoded.finish()


def _write(writer: Writer, matted: Channel[Matted | Sound], compose: Compose, busy: Busy) -> None:
    try:
        for item in matted.take():
            if isinstance(item, Sound):
                writer.sound(item)
            else:
                frame, mattes = item
                with busy.at("compose"):
                    picture = compose(frame, mattes)
                with busy.at("encode"):
                    writer.write(frame, picture)
    finally:
        matted.abandon()


def _failure(reading: Future[None]) -> PTQ4VMError | None:
    """The error of ours that ended reading; any other is raised."""
    try:
        reading.result()
    except PTQ4VMError as error:
        return error
    return None
