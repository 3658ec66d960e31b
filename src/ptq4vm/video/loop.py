"""Matting a whole video: decoding, the networks and encoding side by side, with little waiting between them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.enlarging import GuidedMatte
from ptq4vm.errors import ExportError, PTQ4VMError
from ptq4vm.media.frames import Frame, Reader, Sound
from ptq4vm.media.writers import Writer
from ptq4vm.video.channels import Channel, LiveChannel
from ptq4vm.video.composing import AnyMatte, Compose
from ptq4vm.video.scenes import SceneCuts

_NICE = 10  # what the system calls threads that give way


class Busy:
    """Seconds for which each step of matting worked rather than waited; every step runs in one thread.

    Attributes:
        seconds: By step: ``decode``, ``network``, ``compose`` and ``encode``. They may be read while it works.
    """

    THREADS = (("decode",), ("network",), ("compose", "encode"))
    """Steps that take turns in one thread."""

    def __init__(self) -> None:
        self.seconds = {step: 0.0 for thread in self.THREADS for step in thread}

    def limiting(self, since: Mapping[str, float]) -> str:
        """The step on which the others waited since these :attr:`seconds`; empty where none has worked.

        It is the one that worked longest in the thread that did.
        """
        worked = {step: spent - since.get(step, 0.0) for step, spent in self.seconds.items()}
        busiest = max(self.THREADS, key=lambda thread: sum(worked[step] for step in thread))
        return max(busiest, key=lambda step: worked[step]) if any(worked.values()) else ""

    @contextlib.contextmanager
    def at(self, step: str) -> Iterator[None]:
        """Count what is done inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - began


class Latency:
    """How long frames took from when they came to when they were written, in milliseconds; it takes no more memory."""

    _MOST = 60_000

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Take in one frame's time."""
        self._counts[min(round(1000 * seconds), self._MOST)] += 1

    def percentile(self, share: float) -> int:
        """Milliseconds within which that share of the frames was written, a whole number; 0 without any frame."""
        wanted, so_far = share * self._counts.total(), 0
        for milliseconds, count in sorted(self._counts.items()):
            so_far += count
            if so_far >= wanted:
                return milliseconds
        return 0


class Arrived(NamedTuple):
    """A frame, or a packet of sound, and when it came (:func:`time.perf_counter`)."""

    item: Frame | Sound
    at: float

    @property
    def may_go(self) -> bool:
        """Whether it may be left out where it is late: sound may not."""
        return isinstance(self.item, Frame)


Matted = tuple[Frame, tuple[AnyMatte, ...], float]


@dataclass(frozen=True)
class Outcome:
    """How matting a video ended.

    Attributes:
        seen: Frames that went through the networks.
        stopped: Whether it was asked to stop before the end.
        error: What kept it from coming to the end; what came before it was written.
        busy: Seconds for which each step worked: ``decode``, ``network``, ``compose`` and ``encode``.
        dropped: Frames that were left out since they were late.
        latency: How long frames took.
    """

    seen: int
    stopped: bool
    error: PTQ4VMError | None
    busy: Mapping[str, float] = field(default_factory=dict, compare=False)
    dropped: int = 0
    latency: Latency = field(default_factory=Latency, compare=False)


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
    late: bool = False,
    busy: Busy | None = None,
) -> Outcome:
    """Read frames, matte them with every engine and write what ``compose`` makes of them.

    Reading and writing have a thread each; the engines run in the caller's. Few frames wait on either side
    (:mod:`ptq4vm.video.channels`).

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
        late: Whether frames are left out where the others cannot keep up, so that what is written stays close to what
            comes (:class:`ptq4vm.video.channels.LiveChannel`). Everything then runs once before the first frame is
            asked for.
        busy: Counts for how long each step works, for who looks meanwhile.

    Raises:
        SaveError: It cannot be written.
    """
    stop = stop or threading.Event()
    for engine in engines:
        engine.reset()
    decoded: Channel[Arrived] = LiveChannel(lambda waiting: waiting.may_go) if late else Channel()
    matted: Channel[Matted | Sound] = Channel(1) if late else Channel()
    seen, error, busy, latency = 0, None, busy or Busy(), Latency()
    if late:
        _warm_up(engines, compose, reader.info.size)
    with ThreadPoolExecutor(2, initializer=None if late else _give_way) as pool:
        ahead = () if late else engines  # of a live source no frame waits, and what is done beside the network slows it
        reading = pool.submit(_read, reader, ahead, decoded, start, end, busy)
        writing = pool.submit(_write, writer, matted, compose, busy, latency)
        try:
            for item, came in decoded.take(stop):
                if isinstance(item, Sound):
                    wanted = matted.put(item)
                else:
                    if cuts is not None and cuts.is_cut(item.image):
                        for engine in engines:
                            engine.reset()
                    with busy.at("network"):
                        mattes = tuple(engine.deferred(item.image) for engine in engines)
                    _check_finite(mattes, item.index)
                    wanted = matted.put((item, mattes, came))
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
        error = error or _ending(reading)
        return Outcome(seen, stop.is_set(), error, busy.seconds, decoded.dropped, latency)


def _give_way() -> None:
    """Let the network go before this thread and those that it begins (encoders'): everything else waits for it.

    Linux tells threads' priorities apart; elsewhere all stay as they are.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(_NICE, os.getpriority(os.PRIO_PROCESS, thread)))


def _warm_up(engines: Sequence[MattingEngine], compose: Compose, size: tuple[int, int]) -> None:
    """Matte and compose a black frame: the first time takes long, and a live source does not wait."""
    frame = Frame(0, np.zeros((*size, 3), np.uint8), Fraction(0))
    compose(frame, tuple(engine.deferred(frame.image) for engine in engines))
    for engine in engines:
        engine.reset()


def _check_finite(mattes: Sequence[AnyMatte], index: int) -> None:
    """Refuse mattes that are no numbers: sooner or later they are everywhere, so a part of the pixels will do."""
    known = (matte.matte if isinstance(matte, GuidedMatte) else matte for matte in mattes)
    if not all(np.isfinite(matte.alpha[::8, ::8]).all() for matte in known):
        raise ExportError(
            f"the network gives a matte that is no number at frame {index}: its weights or scales are broken"
        )


def _read(
    reader: Reader, engines: Sequence[MattingEngine], decoded: Channel[Arrived], start: int, end: int | None, busy: Busy
) -> None:  # fmt: skip
    """Hand frames and sound over until the end; of frames, have done what need not wait for the engines' turn."""
    try:
        items = reader.read(start, end)
        wanted = True
        while wanted:
            with busy.at("decode"):
                item = next(items, None)
                came = time.perf_counter()
                if isinstance(item, Frame):
                    for engine in engines:
                        engine.prepare(item.image)
            if item is None:
                break
            wanted = decoded.put(Arrived(item, came))
    finally:
        decoded.finish()


def _write(
    writer: Writer, matted: Channel[Matted | Sound], compose: Compose, busy: Busy, latency: Latency
) -> None:  # fmt: skip
    try:
        for item in matted.take():
            if isinstance(item, Sound):
                writer.sound(item)
            else:
                frame, mattes, came = item
                with busy.at("compose"):
                    picture = compose(frame, mattes, writer.yuv)
                with busy.at("encode"):
                    writer.write(frame, picture)
                latency.add(time.perf_counter() - came)
    finally:
        matted.abandon()


def _ending(reading: Future[None]) -> PTQ4VMError | None:
    """The error of ours that ended reading; any other is raised."""
    try:
        reading.result()
    except PTQ4VMError as error:
        return error
    return None
