"""Frames that go on as they come and become no file: pipes, network streams and virtual cameras.

A pipe is named ``-``, a network stream by its address (``rtmp://host/key``), a virtual camera ``camera`` or by its
device (``/dev/video10``). Nothing here uses the network unless it is said that it may.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.media.codecs import CODECS, Codec, choose_codec
from ptq4vm.media.frames import Frame, Sound, StreamInfo, Writable
from ptq4vm.media.writers import VideoWriter, Writer
from ptq4vm.system.extras import needed

log = logging.getLogger(__name__)

PIPE = "-"
"""Name of the standard input, or output."""
CAMERA = "camera"
"""Name of the first virtual camera."""
_CONTAINERS = {"rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts", "rtsp": "rtsp"}
"""FFmpeg's name of the container that a protocol carries."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+]+)://.", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video\d+")
_LIVE = {"tune": "zerolatency", "g": "50"}
"""Options of H.264 and H.265 for those who watch: no frame waits for a later one; one may join every two seconds."""
_PIPED = {
    "y4m": ("yuv4mpegpipe", Codec("wrapped_avframe", "yuv420p", None, (), even=True, aspect=False)),
    "raw": ("rawvideo", Codec("rawvideo", "rgb24", "rgba", (), aspect=False)),
}
"""What a pipe carries, by the name of the codec: FFmpeg's container, and the pixels in it."""


def protocol(text: str) -> str | None:
    """The protocol of an address, in lower case; ``None`` where the text is none, or a file has that name."""
    found = _ADDRESS.match(text)
    return None if found is None or Path(text).exists() else found[1].lower()


def is_stream(out: str) -> bool:
    """Whether what is written to ``out`` becomes no file or folder."""
    camera = out == CAMERA and not Path(out).exists()
    return out == PIPE or camera or _DEVICE.fullmatch(out) is not None or protocol(out) is not None


def check_network(key: str, text: str, allowed: bool) -> None:
    """Refuse an address that nobody has allowed. Raises :class:`ConfigError`."""
    if protocol(text) is not None and not allowed:
        raise ConfigError(f"{key}={text} is on the network, which is not used unless asked: add allow_network=true")


@dataclass(frozen=True)
class StreamTarget:
    """Where a stream goes, and in which form.

    Attributes:
        name: What was asked for.
        codec: How frames are compressed; ``None`` for a virtual camera, which takes them as they are.
        container: FFmpeg's name of what carries them.
    """

    name: str
    codec: Codec | None = None
    container: str = ""

    @property
    def steady(self) -> bool:
        """Whether frames carry no times, so that every one has to be there."""
        return self.name == PIPE


def choose_stream(out: str, codec: str, alpha: bool, speed: str = "auto") -> StreamTarget:
    """Find out what ``out`` means.

    Args:
        out: A name for which :func:`is_stream` holds.
        codec: ``y4m`` or ``raw`` into a pipe, ``h264`` or ``h265`` into the network, or ``auto``.
        alpha: Whether pictures are RGBA, which only raw frames can be.
        speed: The encoder's preset, for the network; ``auto`` is ``veryfast``.

    Raises:
        ConfigError: It cannot be written as that.
    """
    if out == PIPE:
        name = ("raw" if alpha else "y4m") if codec == "auto" else codec
        if name not in _PIPED or (alpha and name != "raw"):
            raise ConfigError(f"codec={codec} does not go through a pipe: use y4m, or raw, which carries rgba too")
        _check_plain("speed", speed, "a pipe")
        return StreamTarget(out, _PIPED[name][1], _PIPED[name][0])
    kind = protocol(out)
    if alpha:
        raise ConfigError(f"output=rgba does not fit into {out}: use out=- with codec=raw, or a file")
    if kind is None:
        _check_plain("codec", codec, "a camera")
        _check_plain("speed", speed, "a camera")
        return StreamTarget(out)
    if kind not in _CONTAINERS:
        raise ConfigError(f"out={out} is an address that is not known: use {', '.join(f'{k}://' for k in _CONTAINERS)}")
    if codec not in ("auto", "h264", "h265"):
        raise ConfigError(f"codec={codec} does not go through the network: use h264 or h265")
    name = "h264" if codec == "auto" else codec
    chosen = choose_codec(CODECS[name].suffixes[0], name, False, "veryfast" if speed == "auto" else speed)
    return StreamTarget(out, replace(chosen, options={**chosen.options, **_LIVE}), _CONTAINERS[kind])


def _check_plain(key: str, value: str, where: str) -> None:
    if value != "auto":
        raise ConfigError(f"{key}={value} is for files and the network, and out is {where}: leave it out")


class StreamWriter(VideoWriter):
    """Writes frames at once to where they are waited for.

    Where they carry no times, the picture before stands for a frame that was left out.

    Args:
        target: From :func:`choose_stream`.
        info: What the source says of itself.
        size: ``(H, W)`` of the pictures, pixels.
        alpha: Whether pictures are RGBA.
        audio: Streams of the source to be taken over; a pipe has none.
    """

    def __init__(
        self,
        target: StreamTarget,
        info: StreamInfo,
        size: tuple[int, int],
        alpha: bool,
        audio: Sequence[av.AudioStream] = (),
    ) -> None:
        assert target.codec is not None
        self._steady, self._next = target.steady, 0
        self._before: Writable | None = None
        address = "pipe:1" if self._steady else target.name
        tick = 1 / info.rate if self._steady else None
        taken = () if self._steady else audio
        super().__init__(address, target.name, info, size, target.codec, alpha, taken, target.container, tick)
        if audio and self._steady:
            log.warning("out=%s carries no sound: it is left out", target.name)

    def write(self, frame: Frame, picture: Writable) -> None:
        """See :meth:`Writer.write`."""
        if self._steady:
            if self._before is not None:
                for index in range(self._next, frame.index):
                    super().write(frame._replace(time=index * self._tick), self._before)
            self._before, self._next = picture, frame.index + 1
            frame = frame._replace(time=frame.index * self._tick)
        super().write(frame, picture)

    def sound(self, sound: Sound) -> None:
        """See :meth:`Writer.sound`."""
        if not self._steady:
            super().sound(sound)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            with super()._saving():
                yield
        except SaveError as error:
            if self._target == PIPE and isinstance(error.__cause__, BrokenPipeError):
                raise BrokenPipeError(*error.__cause__.args[:2]) from error  # nobody reads: no fault of anybody
            raise


class CameraWriter(Writer):
    """Shows pictures as those of a virtual camera; needs ``pyvirtualcam`` (extra ``live``) and, on Linux, v4l2loopback.

    Args:
        name: ``camera`` for the first that there is, or its device.
        info: What the source says of itself.
        size: ``(H, W)`` of the pictures, pixels.

    Raises:
        ConfigError: pyvirtualcam is not installed.
        SaveError: There is no such camera.
    """

    def __init__(self, name: str, info: StreamInfo, size: tuple[int, int]) -> None:
        device = None if name == CAMERA else name
        try:
            self._camera: Any = needed("pyvirtualcam", "live").Camera(size[1], size[0], float(info.rate), device=device)
        except (RuntimeError, ValueError, OSError) as error:
            line = " ".join(str(error).split())
            raise SaveError(f"out={name} cannot be opened ({line}): load v4l2loopback, or name its device") from error

    def write(self, frame: Frame, picture: Writable) -> None:
        """See :meth:`Writer.write`."""
        self._camera.send(np.ascontiguousarray(picture))
        self.written += 1

    def close(self) -> None:
        """Switch the camera off."""
        self._camera.close()


@contextmanager
def open_stream(
    target: StreamTarget,
    info: StreamInfo,
    size: tuple[int, int],
    alpha: bool,
    audio: Sequence[av.AudioStream] = (),
) -> Iterator[StreamWriter | CameraWriter]:
    """A writer of a stream, closed in the end.

    Raises:
        ConfigError: What it needs is not installed.
        DataError: The block has written no frame.
        SaveError: It cannot be opened.
    """
    if target.codec is None:
        writer: StreamWriter | CameraWriter = CameraWriter(target.name, info, size)
    else:
        writer = StreamWriter(target, info, size, alpha, audio)
    try:
        yield writer
    except BaseException:
        with suppress(SaveError, OSError, av.FFmpegError):  # what went wrong first is what is told
            writer.close()
        raise
    writer.close()
    if not writer.written:
        raise DataError(f"no frame was matted, so that nothing went to {target.name}")


def is_source(text: str) -> bool:
    """Whether frames are read from a pipe or an address. Raises :class:`ConfigError` for an address not known."""
    kind = protocol(text)
    known = (*_CONTAINERS, "http", "https")
    if kind is not None and kind not in known:
        raise ConfigError(f"input={text} is an address that is not known: use {', '.join(f'{k}://' for k in known)}")
    return kind is not None or text == PIPE
