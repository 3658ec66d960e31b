"""Every codec in every container that holds it, from every kind of film, against what FFmpeg decodes of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deploy_media import decode, encode
from ptq4vm.media.codecs import CODECS, choose_codec
from ptq4vm.media.frames import Frame, Sound
from ptq4vm.media.video import VideoReader
from ptq4vm.media.writers import open_video

SIZE, COUNT, RATE = (32, 80), 4, Fraction(25)
BARS = np.array([(200, 40, 40), (40, 180, 60), (30, 60, 200), (32, 32, 32), (224, 224, 224)], np.uint8)
NEAR = 4
"""Levels of 255 by which the middle of a bar may differ: two lossy codecs, and colours at half the resolution."""


@dataclass(frozen=True)
class Kind:
    """A kind of film, and what has to be true of one made of it."""

    name: str = "in.mp4"
    made: Mapping[str, Any] = field(default_factory=dict)
    quarters: int = 0
    aspect: Fraction = Fraction(1)
    depth: int = 8
    sound: bool = False


WIDE = Fraction(4, 3)
KINDS = {
    "BT.601": Kind(made={"matrix": 6}),
    "BT.709, full range": Kind(made={"full_range": True}),
    "BT.601, full range": Kind(made={"matrix": 5, "full_range": True}),
    "BT.2020": Kind(made={"matrix": 9}),
    "turned": Kind(made={"rotation": 90}, quarters=1),
    "turned, wide pixels": Kind(made={"rotation": -90, "aspect": WIDE}, quarters=-1, aspect=1 / WIDE),
    "wide pixels": Kind(made={"aspect": WIDE}, aspect=WIDE),
    "10 bits": Kind(made={"pix_fmt": "yuv420p10le"}, depth=10),
    "10 bits, full range": Kind(made={"pix_fmt": "yuv420p10le", "full_range": True}, depth=10),
    "12 bits": Kind("in.mkv", {"codec": "ffv1", "pix_fmt": "yuv444p12le"}, depth=12),
    "4:4:4": Kind(made={"pix_fmt": "yuv444p"}),
    "sound": Kind(made={"sound": "aac"}, sound=True),
    "late": Kind("in.ts", {"options": {"output_ts_offset": "100"}}),
    "a browser's": Kind("in.webm", {"codec": "libvpx-vp9"}),
    "transparent": Kind("in.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}, depth=12),
    "late, with sound": Kind("in.ts", {"sound": "aac", "options": {"output_ts_offset": "100"}}, sound=True),
}
TARGETS = [
    (codec, suffix, alpha)
    for codec, found in CODECS.items()
    for suffix in found.suffixes
    for alpha in ((False, True) if found.alpha else (False,))
]


def bars(index: int, size: tuple[int, int]) -> np.ndarray:
    return np.repeat(BARS, size[1] // len(BARS), 0)[None].repeat(size[0], 0)


def middles(image: np.ndarray, quarters: int) -> np.ndarray:
    """Mean colour around the middle of every bar, ``(5, 3)``."""
    level = np.rot90(image, -quarters)
    width = level.shape[1] // len(BARS)
    return np.array([level[8:-8, n * width + 6 : (n + 1) * width - 6, :3].mean((0, 1)) for n in range(len(BARS))])


def rewrite(source: Path, target: Path, codec: str, alpha: bool) -> None:
    reader = VideoReader(source, deep=True)
    chosen = choose_codec(target.suffix, codec, alpha)
    with open_video(target, reader.info, reader.info.size, chosen, alpha, reader.audio) as writer:
        for item in reader.read():
            if isinstance(item, Sound):
                writer.sound(item)
                continue
            codes = item.image if item.deep is None else item.deep.codes
            opaque = np.full((*codes.shape[:2], 1), np.iinfo(codes.dtype).max, codes.dtype)
            writer.write(item, np.concatenate([codes, opaque], 2) if alpha else codes)
    reader.close()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("name", "suffix", "alpha"), TARGETS)
def test_a_film_stays_what_it_is(
    tmp_path: Path, kind: Kind, name: str, suffix: str, alpha: bool, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = tmp_path / kind.name, tmp_path / f"out{suffix}"
    encode(source, count=COUNT, size=SIZE, rate=RATE, draw=bars, **kind.made)
    rewrite(source, target, name, alpha)
    codec = CODECS[name]
    before, after = decode(source)[0], decode(target)
    assert len(after[0]) == len(before) == COUNT
    assert after[1] == [n / RATE for n in range(COUNT)] or kind.sound
    assert after[1][0] < Fraction(1, 10) and after[1][-1] - after[1][0] == (COUNT - 1) / RATE
    for old, new in zip(before, after[0], strict=True):
        assert new.shape[:2] == np.rot90(old, kind.quarters).shape[:2]
        assert np.abs(middles(new, kind.quarters) - middles(old, 0)).max() <= NEAR
        assert np.abs(middles(new, kind.quarters) - BARS).max() <= NEAR + 2
    with av.open(str(target)) as out:
        stream, frame = out.streams.video[0], next(out.decode(video=0))
        if codec.aspect:
            assert (stream.sample_aspect_ratio or 1) == kind.aspect
        kept = codec.bits(alpha, kind.depth)
        assert frame.format.components[0].bits >= kept
        assert (f"of {kind.depth} bits a channel {codec.encoder} keeps {kept}" in caplog.text) == (kept < kind.depth)
        assert len(out.streams.audio) == (kind.sound and suffix != ".webm")
        assert ("sound does not fit" in caplog.text) == (kind.sound and suffix == ".webm")
    reader = VideoReader(target)
    assert sum(isinstance(item, Frame) for item in reader.read()) == COUNT
    reader.close()
