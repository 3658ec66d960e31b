"""For tests of matting: small videos made on the spot, and engines that need no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.media.frames import CONVERSION

SIZE = (48, 64)
COUNT = 10
RATE = Fraction(30000, 1001)


def picture(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A bright disc that moves right over a smooth dark ground."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows * 60 / size[0], columns * 60 / size[1], np.full(size, 40)], -1)
    image[np.hypot(rows - size[0] / 2, columns - size[1] / 4 - 2 * index) < size[0] / 4] = (200, 160, 120)
    return image.astype(np.uint8)


def encode(
    path: Path,
    *,
    count: int = COUNT,
    size: tuple[int, int] = SIZE,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    rate: Fraction = RATE,
    times: Sequence[Fraction] | None = None,
    rotation: int = 0,
    full_range: bool = False,
    matrix: int = 1,
    aspect: Fraction = Fraction(1),
    sound: str | None = None,
    options: dict[str, str] | None = None,
    draw: Callable[[int, tuple[int, int]], NDArray[np.uint8]] = picture,
) -> Path:
    """Write a video of moving discs; ``times`` in seconds, where they are not even; ``sound`` names a codec."""
    with av.open(str(path), "w", options=options or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "8", "preset": "ultrafast", "g": "4"}
        stream.codec_context.time_base = Fraction(1, 30000)
        spread = 2 if full_range else 1
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, spread
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        voice = None if sound is None else out.add_stream(sound, rate=48000, layout="mono")
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(draw(index, size), format="rgb24")
            frame = frame.reformat(
                format=pix_fmt, src_color_range=2, dst_colorspace=matrix, dst_color_range=spread, **CONVERSION
            )
            time = index / rate if times is None else times[index]
            frame.pts, frame.time_base = round(time * 30000), Fraction(1, 30000)
            out.mux(stream.encode(frame))
            if voice is not None:
                for chunk in _tone(index, rate):
                    out.mux(voice.encode(chunk))
        out.mux(stream.encode())
        if voice is not None:
            out.mux(voice.encode())
    return path


def _tone(index: int, rate: Fraction) -> Iterator[av.AudioFrame]:
    """The part of a 440 Hz tone that belongs to a frame."""
    first, last = (round(n / rate * 48000) for n in (index, index + 1))
    wave = np.sin(np.arange(first, last) * 2 * np.pi * 440 / 48000).astype(np.float32)
    chunk = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    chunk.sample_rate, chunk.pts, chunk.time_base = 48000, first, Fraction(1, 48000)
    yield chunk


def decode(
    path: Path, decoder: str | None = None, form: str = "rgb24"
) -> tuple[list[NDArray[np.uint8]], list[Fraction]]:
    """All frames as a player shows them, and their times in seconds."""
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = None if decoder is None else av.CodecContext.create(decoder, "r")
        for packet in container.demux(stream):
            if context is not None and not packet.size:
                continue
            for frame in packet.decode() if context is None else context.decode(packet):
                full = {"src_colorspace": frame.colorspace, "src_color_range": frame.color_range, "dst_color_range": 2}
                frames.append(frame.reformat(format=form, **full, **CONVERSION).to_ndarray())
                base = frame.time_base or stream.time_base
                times.append(frame.pts * Fraction(base))
    return frames, times


def sounds(path: Path) -> list[bytes]:
    """The packets of the first audio stream."""
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


class BrightEngine(MattingEngine):
    """Alpha is how red a pixel is; remembers what it was asked. ``fault`` is added to alpha."""

    def __init__(self, fault: float = 0.0) -> None:
        self.seen: list[NDArray[np.uint8]] = []
        self.resets = 0
        self._fault = np.float32(fault)

    def reset(self) -> None:
        self.resets += 1

    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        self.seen.append(frame)
        values = frame.astype(np.float32) / np.float32(255)
        alpha = np.clip((values[..., 0] > 0.5).astype(np.float32) + self._fault, 0, 1)
        return Matte(alpha, values)
