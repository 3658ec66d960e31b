"""Films as people have them: clocks that begin late or again, sound, chapters, interlacing, and what codecs carry."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_media import SIZE, decode, encode, picture, sounds
from ptq4vm.errors import SaveError
from ptq4vm.io import remedy
from ptq4vm.media.clocks import Clock
from ptq4vm.media.codecs import CODECS, choose_codec
from ptq4vm.media.frames import Chapter, Frame, Look, Sound, StreamInfo
from ptq4vm.media.video import VideoReader, survey
from ptq4vm.media.writers import open_video, spread_colours

COUNT = 6


def through(source: Path, target: Path, codec: str = "auto", alpha: bool = False, stop: int | None = None) -> None:
    """Through reader and writer, unchanged; opaque where there is alpha."""
    reader = VideoReader(source)
    info = reader.info.until(stop)
    chosen = choose_codec(target.suffix, codec, alpha)
    with open_video(target, info, info.size, chosen, alpha, reader.audio) as writer:
        for item in reader.read(0, stop):
            if isinstance(item, Sound):
                writer.sound(item)
            else:
                opaque = np.full((*item.image.shape[:2], 1), 255, np.uint8)
                writer.write(item, np.concatenate([item.image, opaque], 2) if alpha else item.image)
    reader.close()


def packet(stream: int, time: float, length: float = 0.04) -> Any:
    tick = Fraction(1, 1000)
    stamp = round(time * 1000)
    base = {"time_base": tick, "duration": round(length * 1000)}
    return SimpleNamespace(stream=SimpleNamespace(index=stream), dts=stamp, pts=stamp, **base)


def mended(clock: Clock, packets: Iterable[Any]) -> list[tuple[int, int]]:
    """Stream and time, milliseconds, of the packets that can be used."""
    return [(each.stream.index, each.pts) for each in packets if clock.mend(each)]


def test_a_clock_begins_at_zero() -> None:
    clock = Clock(Fraction(101), Fraction(25), jumps=True)
    assert mended(clock, [packet(0, 101.0), packet(1, 101.02), packet(0, 101.04)]) == [(0, 0), (1, 20), (0, 40)]
    early = Clock(Fraction(-1, 50), Fraction(25), jumps=False)
    assert mended(early, [packet(1, -0.02), packet(0, 0.0)]) == [(1, -20), (0, 0)], "sound that codecs begin with"


@settings(max_examples=25)
@given(st.lists(st.sampled_from([0.0, 20.0, 3600.0]), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_sound_stays_with_its_pictures_where_films_were_joined(starts: list[float], random: Any) -> None:
    """Each part begins after the end of all of the one before, whichever of its streams comes first."""
    clock, found = Clock(Fraction(starts[0]), Fraction(25), jumps=True), []
    for start in starts:
        streams = [[packet(stream, start + n / 25) for n in range(10)] for stream in (0, 1)]
        order = [0] * 10 + [1] * 10
        random.shuffle(order)
        found += mended(clock, [streams[stream].pop(0) for stream in order])
    for stream in (0, 1):
        assert [time for which, time in found if which == stream] == [40 * n for n in range(10 * len(starts))]


def test_a_long_gap_is_a_gap_where_clocks_do_not_jump() -> None:
    slides = [packet(0, 0.0), packet(0, 60.0)]
    assert mended(Clock(Fraction(0), Fraction(25), jumps=False), slides) == [(0, 0), (0, 60000)]


def transport(path: Path, count: int, sound: bool) -> bytes:
    return encode(path, count=count, rate=Fraction(25), sound="aac" if sound else None).read_bytes()


@pytest.mark.parametrize("sound", [False, True])
def test_joined_transport_streams_go_on(tmp_path: Path, sound: bool) -> None:
    source = tmp_path / "in.ts"
    source.write_bytes(transport(tmp_path / "1.ts", 20, sound) + transport(tmp_path / "2.ts", 20, sound))
    through(source, tmp_path / "out.mp4")
    frames, times = decode(tmp_path / "out.mp4")
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(frames) == 40 and times[0] < Fraction(1, 10)
    assert max(gaps) < Fraction(1, 5) and sum(gap == Fraction(1, 25) for gap in gaps) >= 38
    if sound:
        assert len(sounds(tmp_path / "out.mp4")) >= 0.9 * 2 * len(sounds(tmp_path / "1.ts"))


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_a_film_begins_when_its_file_does(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    options = {"output_ts_offset": "100"}
    source = encode(tmp_path / f"in{suffix}", count=20, rate=Fraction(25), sound="aac", options=options)
    through(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert out.duration is not None and 0.7 < out.duration / 1e6 < 1.0
    assert len(decode(tmp_path / "out.mp4")[0]) == 20
    assert "truncated" not in caplog.text, "its length is not counted from 0"


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [("in.webm", "libopus", "out.mov"), ("in.mkv", "flac", "out.mov"), ("in.mp4", "aac", "out.webm")],
)
def test_sound_that_does_not_fit_costs_the_sound_alone(
    tmp_path: Path, source: str, codec: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    film = tmp_path / source
    video = "libvpx-vp9" if source.endswith("webm") else "libx264"
    encode(film, codec=video, count=COUNT, sound=codec)
    through(film, tmp_path / target)
    assert len(decode(tmp_path / target)[0]) == COUNT
    name = codec.removeprefix("lib")
    assert f"{name} sound does not fit into {Path(target).suffix} and is left out; use .mkv" in caplog.text


def test_what_is_said_of_a_film_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        out.metadata["title"] = "Film"
        video = out.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        voices = [out.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        for voice, language in zip(voices, ("eng", "deu"), strict=True):
            voice.metadata["language"] = language
        voices[0].disposition, voices[1].disposition = av.stream.Disposition(0), av.stream.Disposition.default
        tick = Fraction(1, 1000)
        times = ((0, 80), (80, 400))
        out.set_chapters(
            [
                {"id": n, "start": start, "end": end, "time_base": tick, "metadata": {"title": f"Part {n}"}}
                for n, (start, end) in enumerate(times)
            ]
        )
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 19200), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        for n in range(10):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture(n), format="rgb24")))
        for voice in voices:
            silence.pts = 0
            out.mux([*voice.encode(silence), *voice.encode()])
        out.mux(video.encode())
    for name in ("out.mkv", "out.mp4"):
        through(source, tmp_path / name, stop=5)
        with av.open(str(tmp_path / name)) as out:
            assert out.metadata["title"] == "Film"
            assert [stream.language for stream in out.streams.audio] == ["eng", "deu"]
            default = [bool(s.disposition & av.stream.Disposition.default) for s in out.streams.audio]
            assert default == [False, True]
            chapters = [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in out.chapters()]
            assert chapters == [(0, "Part 0"), (Fraction(2, 25), "Part 1")]
    assert not [r for r in caplog.records if "left out" in r.message]


def test_chapters_end_with_the_film() -> None:
    parts = tuple(Chapter(Fraction(n), Fraction(n + 1), {}) for n in range(4))
    info = StreamInfo(SIZE, Fraction(25), chapters=parts)
    assert [(c.start, c.end) for c in info.until(60).chapters] == [(0, 1), (1, 2), (2, Fraction(12, 5))]
    assert info.until(None) is info


def test_an_interlaced_film_is_made_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disc that moves by 4 pixels a field is a comb in every frame as it is stored."""

    def woven(index: int, size: tuple[int, int]) -> np.ndarray:
        rows = [picture(2 * index + field, size)[field::2] for field in (0, 1)]
        return np.stack(rows, 1).reshape(*size, 3)

    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        video.options = {"flags": "+ilme+ildct", "x264-params": "tff=1", "crf": "8"}
        for n in range(COUNT):
            out.mux(video.encode(av.VideoFrame.from_ndarray(woven(n, SIZE), format="rgb24")))
        out.mux(video.encode())
    reader = VideoReader(source)
    frames = [item for item in reader.read() if isinstance(item, Frame)]
    assert [frame.time for frame in frames] == [Fraction(n, 25) for n in range(COUNT)]
    assert "in.mp4 is interlaced: its fields are made whole frames" in caplog.text
    assert len(survey(source).stamps) == COUNT
    assert "in.mp4 is interlaced: its frames are taken as they are" in caplog.text, "data sets read by number"

    def comb(image: np.ndarray) -> float:
        lines = image[..., 0].astype(float)
        return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())

    assert comb(frames[3].image) < 0.6 * comb(woven(3, SIZE))


GREY = (0, 32, 128, 224, 255)


def greys(index: int, size: tuple[int, int]) -> np.ndarray:
    columns = np.repeat(np.array(GREY, np.uint8), -(-size[1] // len(GREY)))[: size[1]]
    return np.repeat(np.repeat(columns[None, :, None], size[0], 0), 3, 2)


def seen(image: np.ndarray) -> list[int]:
    width = image.shape[1] / len(GREY)
    return [int(image[image.shape[0] // 2, int((n + 0.5) * width), 1]) for n in range(len(GREY))]


CONTAINERS = [
    (name, suffix, alpha)
    for name, codec in CODECS.items()
    for suffix in codec.suffixes
    for alpha in ((False, True) if codec.alpha else (False,))
]


@pytest.mark.parametrize("full_range", [False, True], ids=("limited", "full"))
@pytest.mark.parametrize(("name", "suffix", "alpha"), CONTAINERS)
def test_every_codec_in_every_container(
    tmp_path: Path, name: str, suffix: str, alpha: bool, full_range: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Greys to 3 levels, aspect and colours to the number, as FFmpeg decodes what was written."""
    size = (32, 80)
    aspect = Fraction(4, 3)
    look = Look(matrix=1, range=2 if full_range else 1, primaries=9, transfer=18, aspect=aspect)
    info = StreamInfo(size, Fraction(25), look=look)
    target = tmp_path / f"out{suffix}"
    image = greys(0, size)
    written = np.concatenate([image, np.full((*size, 1), 255, np.uint8)], 2) if alpha else image
    with open_video(target, info, size, choose_codec(suffix, name, alpha), alpha) as writer:
        for n in range(3):
            writer.write(Frame(n, image, n / info.rate), written)
    found, times = decode(target)
    assert np.abs(np.subtract(seen(found[1]), GREY)).max() <= 3 and times == [Fraction(n, 25) for n in range(3)]
    with av.open(str(target)) as out:
        stream = out.streams.video[0]
        frame = next(out.decode(stream))
        assert (stream.sample_aspect_ratio == aspect) == CODECS[name].aspect
        assert ("cannot say that pixels are 4/3 wide" in caplog.text) != CODECS[name].aspect
        colours = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        assert colours == (1, 9, 18)
        limited = 1 if not full_range or not CODECS[name].full_range else 2
        assert int(frame.color_range) == limited


@pytest.mark.parametrize(("name", "suffix"), [("vp9", ".webm"), ("prores", ".mov")])
def test_colours_reach_the_last_opaque_pixel(tmp_path: Path, name: str, suffix: str) -> None:
    picture = np.zeros((*SIZE, 4), np.uint8)
    picture[:, :31] = (220, 40, 40, 255)
    info = StreamInfo(SIZE, Fraction(25))
    target = tmp_path / f"out{suffix}"
    with open_video(target, info, SIZE, choose_codec(suffix, name, True), True) as writer:
        for n in range(3):
            writer.write(Frame(n, picture[..., :3], n / info.rate), picture)
    frame = decode(target, "libvpx-vp9" if name == "vp9" else None, "rgba")[0][1]
    assert np.abs(frame[24, 8:31, :3].astype(int) - (220, 40, 40)).max() <= 4
    assert frame[24, 30, 3] > 250 and frame[24, 34, 3] < 5


def test_colours_are_spread_from_the_nearest() -> None:
    picture = np.zeros((5, 9, 4), np.uint8)
    picture[2, 1], picture[2, 7] = (200, 0, 0, 255), (0, 0, 200, 1)
    found = spread_colours(picture)
    assert np.array_equal(found[..., 3], picture[..., 3])
    assert tuple(found[2, 0, :3]) == tuple(found[0, 2, :3]) == (200, 0, 0) and tuple(found[4, 8, :3]) == (0, 0, 200)
    assert np.array_equal(spread_colours(np.zeros_like(picture)), np.zeros_like(picture))


@pytest.mark.parametrize("name", ["12:30:00.mp4", "take-1:2.mov", "http:x.mkv"])
def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "in.mp4", count=3)
    through(Path("in.mp4"), Path(name))
    assert sum(isinstance(item, Frame) for item in VideoReader(Path(name)).read()) == 3


def test_space_is_asked_for_where_there_is_none(tmp_path: Path) -> None:
    assert remedy(OSError(28, "No space left on device"), "go") == "free some space or go"
    assert remedy(OSError(13, "Permission denied"), "go") == "go"
    nothing, codec = (0, 0), choose_codec(".mp4", "auto", False)
    info = StreamInfo(nothing, Fraction(25))
    with pytest.raises(SaveError) as caught, open_video(tmp_path / "o.mp4", info, nothing, codec) as writer:
        writer.write(Frame(0, picture(0), Fraction(0)), picture(0))
    assert "free some space" not in str(caught.value)


def test_sound_that_is_longer_than_the_pictures_is_no_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Matroska says how long all is, not each stream: a film cut off ends early in both."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video, voice = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=48000, layout="mono")
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        for n in range(10):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture(n), format="rgb24")))
        out.mux(video.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 96000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 48000, 0
        out.mux([*voice.encode(silence), *voice.encode()])
    through(source, tmp_path / "out.mkv")
    assert len(decode(tmp_path / "out.mkv")[0]) == 10 and "truncated" not in caplog.text


def test_subtitles_are_named_as_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = StreamInfo(SIZE, Fraction(25), left_out=("1 subtitle track", "2 data tracks"))
    with open_video(tmp_path / "o.mp4", info, SIZE, choose_codec(".mp4", "auto", False)) as writer:
        writer.write(Frame(0, picture(0), Fraction(0)), picture(0))
    assert "o.mp4: left out of what the source has: 1 subtitle track, 2 data tracks" in caplog.text
