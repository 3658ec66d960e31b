"""Reading video files: all in the order of the file, past what is damaged, or frames by their numbers."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import DataError
from ptq4vm.media.clocks import Clock
from ptq4vm.media.decoding import (
    look_of,
    open_video_stream,
    quarters_of,
    upright_codes,
    upright_rgb,
    upright_size,
)
from ptq4vm.media.deinterlacing import Deinterlacer
from ptq4vm.media.frames import BT709, QUICK_CONVERSION, Chapter, Frame, Look, Reader, Sample, Sound, StreamInfo, cover
from ptq4vm.media.grading import Deep, Grade
from ptq4vm.media.images import one_line

log = logging.getLogger(__name__)


_MICROSECOND = Fraction(1, 1_000_000)  # the unit of a container's duration
_DEPTH = 8
_MATROSKA = "matroska,webm"
_JUMPING = ("mpegts", "mpeg", "ogg", "asf")
"""Formats whose clock may jump ahead in the middle."""
_TECHNICAL = ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time")
"""What a file says of itself that is not true of another one made of it."""
_KINDS = {"subtitle": "subtitle track", "data": "data track", "attachment": "attachment", "video": "further picture"}
"""Streams that are not handed out, in words."""
_MOST_DAMAGED = 100  # packets in a row; nothing good comes after these
_LOOK_BACK = 24  # frames; more than codecs reorder


class VideoReader(Reader):
    """A video file, decoded as it is read.

    Warns, in one line each, of what cannot be kept as it is: more than 8 bits, a variable frame rate, a size that
    changes, and damaged or missing parts (which are left out).

    Args:
        path: The video file; text for an address, or ``-`` for the standard input, whose frames do not wait for those
            after them.
        deep: Whether frames shall bring all their bits, where there are more than 8.

    Raises:
        DataError: It is no video, or no frame of it can be decoded.
    """

    def __init__(self, path: Path | str, deep: bool = False) -> None:
        self._path = path
        self._container, self._stream = open_video_stream(path, "AUTO" if isinstance(path, Path) else "SLICE")
        self._begins = max(Fraction(0), (self._container.start_time or 0) * _MICROSECOND)
        self._clock = Clock(self._begins, self._rate(), self._container.format.name in _JUMPING)
        self._deinterlacer = Deinterlacer(self._stream)
        self._damaged = 0
        self._cut_off = 0
        self._by_all = False  # whether the count is that of the longest stream, which may be sound
        self._warned: set[str] = set()
        self._ended: set[int] = set()
        self._origin = Fraction(0)
        self._early: list[Sound] = []
        self.audio = tuple(self._container.streams.audio)
        self._items = self._decode()
        first = next((item for item in self._sounds_kept(self._items) if isinstance(item, av.VideoFrame)), None)
        if first is None:
            self.close()
            raise DataError(f"{path} holds no frame that can be decoded: give another video")
        self._first = first
        self._look = look_of(first, self._stream.sample_aspect_ratio)
        depth = max((c.bits for c in first.format.components), default=_DEPTH)
        self._grade = Grade(self._look.transfer, self._look.primaries) if depth > _DEPTH else None
        self._depth = depth if deep else _DEPTH
        if self._grade is not None and not deep:
            tones = ", PQ as ordinary tones" if self._grade.mapped else ""
            self._warn(f"{path} has {depth} bits a channel: matted and written with {_DEPTH}{tones}")
        if self._deinterlacer.used:
            self._warn(f"{path} is interlaced: its fields are made whole frames (bwdif)")
        self.info = self._describe(upright_size(first))

    def _sounds_kept(self, items: Iterator[av.VideoFrame | Sound]) -> Iterator[av.VideoFrame | Sound]:
        """Items, with the sound that comes before the first frame kept for :meth:`read`."""
        for item in items:
            if isinstance(item, Sound):
                self._early.append(item)
            yield item

    def _rate(self) -> Fraction:
        stream = self._stream
        return Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 30)

    def _describe(self, size: tuple[int, int]) -> StreamInfo:
        stream, rate = self._stream, self._rate()
        count: int | None = stream.frames or None
        if count is None and stream.duration and stream.time_base:
            count = round(stream.duration * stream.time_base * rate)
        elif count is None and self._container.duration:
            seconds = self._container.duration * _MICROSECOND
            late = self._begins if self._container.format.name == _MATROSKA else 0  # which counts from 0
            count = round((seconds - late) * rate)
            self._by_all = True
        toned = self._grade is not None and self._grade.mapped and self._depth == _DEPTH
        return StreamInfo(
            size,
            rate,
            count,
            replace(self._look, transfer=BT709) if toned else self._look,
            Fraction(stream.time_base or 0),
            tags={key: text for key, text in self._container.metadata.items() if key.lower() not in _TECHNICAL},
            chapters=tuple(self._chapters()),
            left_out=tuple(self._others()),
            depth=self._depth,
        )

    def _chapters(self) -> Iterator[Chapter]:
        for found in self._container.chapters():
            tick = Fraction(found["time_base"] or 1)
            start, end = (found[key] * tick - self._begins for key in ("start", "end"))
            yield Chapter(start, end, dict(found["metadata"]))

    def _others(self) -> Iterator[str]:
        """Streams that are not handed out, in words."""
        taken = {self._stream.index, *(stream.index for stream in self.audio)}
        kinds = Counter(str(stream.type) for stream in self._container.streams if stream.index not in taken)
        if self._container.chapters():  # which QuickTime also keeps as a track
            kinds["data"] = 0
        for kind, name in _KINDS.items():
            if kinds[kind]:
                yield f"{kinds[kind]} {name}{'s' if kinds[kind] > 1 else ''}"

    def _warn(self, line: str) -> None:
        """Say something once."""
        if line not in self._warned:
            self._warned.add(line)
            log.warning("%s", line)

    def _decode(self) -> Iterator[av.VideoFrame | Sound]:
        """Decoded frames, and packets of sound that are not decoded."""
        number = {stream.index: place for place, stream in enumerate(self.audio)}
        packets = self._container.demux(self._stream, *self.audio)
        in_a_row = 0
        while in_a_row < _MOST_DAMAGED:
            try:
                packet = next(packets, None)
                if packet is None:
                    yield from self._deinterlacer.rest()
                    return
                if not self._clock.mend(packet):
                    continue
                if packet.stream.index in number:
                    if packet.dts is not None:  # without: the flush at the end
                        yield Sound(number[packet.stream.index], packet)
                    continue
                self._cut_off += packet.is_discard
                frames = self._stream.decode(packet)
                in_a_row = 0
            except av.FFmpegError:
                self._damaged += 1
                in_a_row += 1
                continue
            for frame in frames:
                yield from self._deinterlacer.frames(frame)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame | Sound]:
        """See :meth:`Reader.read`. Frames before ``start`` are decoded too, but not converted."""
        yield from self._early
        index, last, end = 0, Fraction(-1), None
        for item in self._all():
            if isinstance(item, Sound):
                if end is None or _time(item.packet) < end:
                    yield item
                elif self._past(item):
                    break
                continue
            if end is not None:
                continue
            moment = self._moment(item, index, last)
            if index >= start:
                yield Frame(index, *self._pictures(item, moment))
            index, last = index + 1, moment
            if index == stop:
                end = moment + 1 / self.info.rate
                if not self.audio:
                    break
        if stop is None or index < stop:
            self._tell_what_is_missing(index)

    def _all(self) -> Iterator[av.VideoFrame | Sound]:
        yield self._first
        yield from self._items

    def _past(self, item: Sound) -> bool:
        """Note that a stream's sound goes past the last frame; whether that of every stream does."""
        self._ended.add(item.stream)
        return len(self._ended) == len(self.audio)

    def _moment(self, frame: av.VideoFrame, index: int, last: Fraction) -> Fraction:
        """Time of a frame: after that of the frame before it, and exact where the file had to round it."""
        rate, tick = self.info.rate, self.info.tick
        if frame.pts is None or frame.time_base is None:
            return last + 1 / rate if index else Fraction(0)
        moment = frame.pts * Fraction(frame.time_base)
        if index == 0:
            self._origin = moment
            return moment
        even = self._origin + round((moment - self._origin) * rate) / rate
        moment = even if abs(even - moment) <= tick else moment
        gap = moment - last
        if not self._damaged and abs(gap * rate - 1) > Fraction(1, 4) + tick * rate:
            self._warn(f"{self._path} has a variable frame rate: every frame keeps its own time where the output can")
        return moment if gap > 0 else last + 1 / rate / 100

    def _pictures(self, frame: av.VideoFrame, moment: Fraction) -> tuple[NDArray[np.uint8], Fraction, Deep | None]:
        """What is seen of a frame, its time, and all its bits where they are wanted."""
        grade = self._grade
        if grade is None or (self._depth == _DEPTH and not grade.mapped):
            return self._sized(upright_rgb(frame, self._look)), moment, None
        codes = self._sized(upright_codes(frame, self._look))
        image = grade.view(codes) if grade.mapped else self._sized(upright_rgb(frame, self._look))
        return image, moment, None if self._depth == _DEPTH else Deep(codes, grade)

    def _sized(self, image: NDArray[Sample]) -> NDArray[Sample]:
        if image.shape[:2] != self.info.size:
            was, now = (f"{s[1]}x{s[0]}" for s in (self.info.size, image.shape[:2]))
            self._warn(f"{self._path} changes its size from {was} to {now}: scaled to the first")
            image = cover(image, self.info.size)
        return image

    def _tell_what_is_missing(self, read: int) -> None:
        count, read_all = self.info.count, read
        if self._by_all:
            read_all = max(read, round(self._clock.end * self.info.rate))
        enough = 0 if count is None else count * 0.98 - 1  # lengths that are not counted are rounded
        if read_all + self._cut_off < enough:
            self._warn(f"{self._path} is truncated: {read} of {count} frames could be read and were kept")
        elif self._damaged:
            self._warn(f"{self._path} is damaged: {self._damaged} packets were left out, {read} frames kept")

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class Survey(NamedTuple):
    """What a file says of its frames before they are decoded.

    Attributes:
        size: ``(H, W)`` of the upright frames, pixels.
        look: How its pixels are to be understood.
        quarters: By how many quarters a player turns them, counterclockwise.
        stamps: Times of the frames that are shown, in that order, in the stream's own unit of time.
    """

    size: tuple[int, int]
    look: Look
    quarters: int
    stamps: tuple[int, ...]


def survey(path: Path) -> Survey:
    """Count the frames that a player shows: not those that an edit list cuts off. Only the first is decoded.

    Raises:
        DataError: It is no video, or its first frame cannot be decoded.
    """
    container, stream = open_video_stream(path, "SLICE")
    first: av.VideoFrame | None = None
    stamps = []
    with container:
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard and packet.pts is not None:
                    stamps.append(packet.pts)
                if first is None:
                    first = next(iter(stream.decode(packet)), None)
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"video {path} cannot be read ({one_line(error)}); replace it") from error
        if first is None or not stamps:
            raise DataError(f"video {path} has no frames; remove it")
        if first.interlaced_frame:
            log.warning("%s is interlaced: its frames are taken as they are; deinterlace it for data sets", path)
        look = look_of(first, stream.sample_aspect_ratio)
    shown = itertools.dropwhile(lambda stamp: first.pts is not None and stamp < first.pts, sorted(stamps))
    return Survey(upright_size(first), look, quarters_of(first), tuple(shown))


def numbered_frames(path: Path, known: Survey, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
    """Decode frames ``start:stop`` of a video from the key frame before ``start``: ``(H, W, 3)`` uint8 RGB, upright.

    Args:
        path: The video file.
        known: What :func:`survey` gives for the file.
        start: Number of the first frame, from 0.
        stop: Number after the last.

    Raises:
        DataError: The file is damaged, or ends early.
    """
    number = start
    try:
        for frame in _decoded_from(path, known.stamps, start):
            if frame.pts == known.stamps[number]:
                yield upright_rgb(frame, known.look, QUICK_CONVERSION)
                number += 1
                if number == stop:
                    return
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"video {path} cannot be decoded ({one_line(error)}); replace it") from error
    raise DataError(f"video {path} lacks its frame {number}; replace it")


def _decoded_from(path: Path, stamps: tuple[int, ...], start: int) -> Iterator[av.VideoFrame]:
    """Decoded frames, from one at or before ``start`` on.

    Containers seek by the order of decoding: with frames that look ahead, the key frame found may be shown after the
    one that is wanted. Then the one before it is tried, and in the end the file is read from its beginning.
    """
    for anchor in dict.fromkeys((start, max(0, start - _LOOK_BACK), 0)):
        container, stream = open_video_stream(path, "SLICE")
        with container:
            if anchor:
                container.seek(stamps[anchor], stream=stream)
            packets = container.demux(stream)
            first = next(packets)
            early = first.is_keyframe and first.pts is not None and first.pts <= stamps[start]
            if early or not anchor:
                for packet in itertools.chain([first], packets):
                    yield from stream.decode(packet)
                return


def _time(packet: av.Packet) -> Fraction:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return (stamp or 0) * Fraction(packet.time_base or 0)
