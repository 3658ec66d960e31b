"""Writers of videos and image sequences; what is half written is never found under the name that was asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from ptq4vm.errors import DataError, SaveError
from ptq4vm.io import atomic_path, remedy, remove_leftovers
from ptq4vm.media.codecs import Codec, deeper
from ptq4vm.media.frames import CONVERSION, FULL_RANGE, Chapter, Frame, Sound, StreamInfo, Writable, file_url
from ptq4vm.media.yuv import Weights, weights_of

log = logging.getLogger(__name__)

_STREAM_TAGS = ("language", "title")
_CHAPTERED = (".mp4", ".mov", ".mkv", ".webm")
_FORMS = {(1, 3): "rgb24", (1, 4): "rgba", (2, 3): "rgb48le", (2, 4): "rgba64le"}
"""FFmpeg's names of pictures, by bytes a sample and channels."""
_YUV, _FLAT = "yuv420p", 2
"""Its name for pictures as YUV 4:2:0, and how many dimensions these have."""
_AT_ONCE = {"flush_packets": "1"}  # of streams, for which somebody waits
_FINEST_TICK = 10_000  # a second has at least so many in what we write


class Writer(ABC):
    """Takes pictures in order and writes them.

    Attributes:
        written: How many pictures it has written so far.
        yuv: What makes Y, U and V of colours, where it takes pictures as YUV 4:2:0 besides RGB.
    """

    written: int = 0
    yuv: Weights | None = None

    @abstractmethod
    def write(self, frame: Frame, picture: Writable) -> None:
        """Write the picture that was made of a frame. Raises :class:`ptq4vm.errors.SaveError`."""

    def sound(self, sound: Sound) -> None:  # noqa: B027  # images have none
        """Write a packet of sound as it is. Raises :class:`ptq4vm.errors.SaveError`."""


class VideoWriter(Writer):
    """Writes a video file, which :func:`open_video` makes, or a stream (:mod:`ptq4vm.media.streams`).

    Args:
        address: Where it is written to, as FFmpeg takes it; of a file, under a name for the time being.
        target: Name that was asked for, which messages call it.
        info: What the source says of itself: its rate and colours are taken over.
        size: ``(H, W)`` of the pictures, pixels.
        codec: How it is compressed, from :func:`choose_codec`.
        alpha: Whether pictures are RGBA.
        audio: Streams of the source to be taken over.
        container: FFmpeg's name of the container; by the target's suffix when not given.
        tick: Accuracy of the frames' times, seconds; fine enough for any rate when not given.
    """

    def __init__(
        self,
        address: str,
        target: Path | str,
        info: StreamInfo,
        size: tuple[int, int],
        codec: Codec,
        alpha: bool,
        audio: Sequence[av.AudioStream] = (),
        container: str | None = None,
        tick: Fraction | None = None,
    ) -> None:
        self._target = target
        self._suffix = Path(target).suffix.lower() if container is None else ""
        self._look = info.look if codec.full_range else replace(info.look, range=1)
        self._spread = alpha and codec.bleeds
        self._last = -(2**62)
        self._format = codec.form(alpha, info.depth)
        self._pad = [(0, n % 2 if codec.even else 0) for n in size]
        self._is_padded = any(after for _, after in self._pad)
        self.yuv = weights_of(self._look) if self._format == _YUV and not self._is_padded else None
        self._tick = tick or Fraction(1, info.rate.numerator * math.ceil(_FINEST_TICK / info.rate.numerator))
        if self._is_padded:
            log.warning(
                "%s: %dx%d is odd, which %s cannot hold: the last row or column is doubled",
                *(target, size[1], size[0], codec.encoder),
            )
        kept = codec.bits(alpha, info.depth)
        if kept < info.depth:
            use = deeper(alpha, info.depth, kept)
            log.warning("%s: of %d bits a channel %s keeps %d%s", target, info.depth, codec.encoder, kept, use)
        with self._saving():
            self._container = av.open(
                address, "w", format=container, container_options=dict(_AT_ONCE if container else {})
            )
            self._stream = self._video(codec, info, [n + p[1] for n, p in zip(size, self._pad, strict=True)], alpha)
            self._sounds = [self._audio(stream) for stream in audio]
            self._container.metadata.update(info.tags)
            if info.chapters and self._suffix in _CHAPTERED:
                self._container.set_chapters([_chapter(*found) for found in enumerate(info.chapters)])
        lost = [*info.left_out, *(["chapters"] if info.chapters and self._suffix not in _CHAPTERED else [])]
        if lost:
            log.warning("%s: left out of what the source has: %s", target, ", ".join(lost))
        if info.look.aspect != 1 and not codec.aspect:
            log.warning(
                "%s: %s cannot say that pixels are %s wide; use .mp4 or .mov",
                *(target, codec.encoder, info.look.aspect),
            )

    def _video(self, codec: Codec, info: StreamInfo, size: Sequence[int], alpha: bool) -> Any:
        stream: Any = self._container.add_stream(codec.encoder, rate=info.rate)
        stream.height, stream.width = size
        stream.pix_fmt = self._format
        stream.options = dict(codec.options)
        context = stream.codec_context
        context.time_base = self._tick
        context.sample_aspect_ratio = self._look.aspect
        context.colorspace, context.color_range = self._look.matrix, self._look.range
        context.color_primaries, context.color_trc = self._look.primaries, self._look.transfer
        if context.codec.canonical_name == "hevc":
            context.codec_tag = "hvc1" if self._suffix != ".mkv" else context.codec_tag
        if alpha and codec.encoder == "libvpx-vp9":
            stream.metadata["alpha_mode"] = "1"  # what tells a browser that there is alpha
        return stream

    def _audio(self, source: av.AudioStream) -> Any:
        """A stream for the packets of ``source``, or ``None`` where the file cannot hold them."""
        if not _holds(self._container.format.name, source):
            name, where = source.codec_context.codec.canonical_name, self._suffix or self._container.format.name
            log.warning("%s: %s sound does not fit into %s and is left out; use .mkv", self._target, name, where)
            return None
        stream = self._container.add_stream_from_template(source)
        stream.metadata.update({key: text for key, text in source.metadata.items() if key in _STREAM_TAGS})
        stream.disposition = source.disposition
        return stream

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            what = remedy(error, "choose another folder or codec")
            raise SaveError(f"cannot write {self._target} ({reason}): {what}") from error

    def write(self, frame: Frame, picture: Writable) -> None:
        """See :meth:`Writer.write`."""
        with self._saving():
            image = self._converted(picture)
            image.color_primaries, image.color_trc = self._look.primaries, self._look.transfer  # ProRes asks frames
            self._last = max(self._last + 1, round(frame.time / self._tick))  # two frames may not share a time
            image.pts, image.time_base = self._last, self._tick
            self._container.mux(self._stream.encode(image))
        self.written += 1

    def _converted(self, picture: Writable) -> av.VideoFrame:
        """A picture as the encoder takes it."""
        if picture.ndim == _FLAT:
            image = av.VideoFrame.from_ndarray(picture, format=_YUV)
            image.colorspace, image.color_range = self._look.matrix, self._look.range
            return image
        if self._is_padded:
            picture = np.pad(picture, [*self._pad, (0, 0)], mode="edge")
        if self._spread:
            picture = spread_colours(picture)
        image = av.VideoFrame.from_ndarray(picture, format=_FORMS[picture.dtype.itemsize, picture.shape[2]])
        return image.reformat(
            format=self._format,
            src_color_range=FULL_RANGE,
            dst_colorspace=self._look.matrix,
            dst_color_range=self._look.range,
            **CONVERSION,
        )

    def sound(self, sound: Sound) -> None:
        """See :meth:`Writer.sound`."""
        stream = self._sounds[sound.stream]
        if stream is not None:
            sound.packet.stream = stream
            with self._saving():
                self._container.mux(sound.packet)

    def close(self) -> None:
        """Write what the encoder still holds, and the file's index. Raises :class:`SaveError`."""
        with self._saving():
            try:
                if self.written:
                    self._container.mux(self._stream.encode())
            finally:
                self._container.close()


def _holds(container: str, source: av.AudioStream) -> bool:
    """Whether FFmpeg writes such a stream into such a container: it says so when it begins a file, not before."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(source)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _chapter(number: int, chapter: Chapter) -> Any:  # PyAV's dictionary
    tick = Fraction(1, 1000)
    start, end = (round(moment / tick) for moment in (max(chapter.start, Fraction(0)), chapter.end))
    return {"id": number, "start": start, "end": end, "time_base": tick, "metadata": dict(chapter.tags)}


def spread_colours(picture: Writable) -> Writable:
    """Carry colours on to where alpha is 0, from the nearest pixel that has some: ``(H, W, 4)``, a copy.

    Codecs with colours at half the resolution mix those of neighbours, opaque or not: black would make a dark rim.
    """
    empty = (picture[..., 3] == 0).astype(np.uint8)
    if not empty.any() or empty.all():
        return picture
    _, labels = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.zeros((int(labels.max()) + 1, 3), picture.dtype)
    known = empty == 0
    colours[labels[known]] = picture[known, :3]
    return np.dstack([colours[labels], picture[..., 3]])


@contextlib.contextmanager
def open_video(
    target: Path,
    info: StreamInfo,
    size: tuple[int, int],
    codec: Codec,
    alpha: bool = False,
    audio: Sequence[av.AudioStream] = (),
) -> Iterator[VideoWriter]:
    """A writer of ``target``, which appears, or is replaced, once the block has ended well; see :class:`VideoWriter`.

    Raises:
        DataError: The block has written no frame.
        SaveError: The folder or the file cannot be written.
    """
    remove_leftovers(target.parent, target.stem, target.suffix)
    with atomic_path(target) as temporary:
        writer = VideoWriter(file_url(temporary), target, info, size, codec, alpha, audio)
        try:
            yield writer
        finally:
            writer.close()
        if not writer.written:
            raise DataError(f"no frame was matted, so that {target} was not written")


class ImagesWriter(Writer):
    """Writes one image file for each frame, whole or not at all.

    Args:
        path: From a frame's index to its file.
        first: Index of the first frame to be written; those before it are there.
    """

    def __init__(self, path: Callable[[int], Path], first: int = 0) -> None:
        self._path = path
        self._first = first

    def write(self, frame: Frame, picture: Writable) -> None:
        """See :meth:`Writer.write`."""
        if frame.index < self._first:
            return
        with atomic_path(self._path(frame.index)) as temporary:
            image = Image.fromarray(picture)
            if temporary.suffix.lower() == ".png":
                image.save(temporary, compress_level=3)
            else:
                image.save(temporary, quality=95)
        self.written += 1
