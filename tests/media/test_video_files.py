"""Real files: what readers see of them, and what writers keep."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy_media import COUNT, RATE, SIZE, decode, encode, picture, sounds
from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.media.codecs import CODECS, HARDWARE, SPEEDS, choose_codec
from ptq4vm.media.frames import Frame, Look, Reader, Sound, StreamInfo
from ptq4vm.media.readers import CameraReader, ImagesReader, open_input
from ptq4vm.media.video import VideoReader
from ptq4vm.media.writers import open_video


def images(reader: Reader, start: int = 0, stop: int | None = None) -> list[Frame]:
    return [item for item in reader.read(start, stop) if isinstance(item, Frame)]


def alike(frame: NDArray[np.uint8], expected: NDArray[np.uint8]) -> bool:
    """But for what compression takes: edges, above all of colours."""
    error = frame.astype(float) - expected
    return bool(np.abs(error).mean() < 4 and np.abs(error.mean((0, 1))).max() < 4)


def rewrite(source: Path, target: Path, codec: str = "auto", stop: int | None = None) -> None:
    """Through reader and writer, unchanged."""
    reader = VideoReader(source)
    chosen = choose_codec(target.suffix, codec, False)
    with open_video(target, reader.info, reader.info.size, chosen, audio=reader.audio) as writer:
        for item in reader.read(0, stop):
            if isinstance(item, Sound):
                writer.sound(item)
            else:
                writer.write(item, item.image)
    reader.close()


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixels_times_and_colours_are_kept(tmp_path: Path, suffix: str, full_range: bool) -> None:
    source = encode(tmp_path / f"in{suffix}", full_range=full_range)
    rewrite(source, tmp_path / "out.mp4")
    frames, times = decode(tmp_path / "out.mp4")
    assert times == [n / RATE for n in range(COUNT)]
    assert all(alike(frame, picture(n)) for n, frame in enumerate(frames))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.color_range, stream.codec_context.colorspace) == (2 if full_range else 1, 1)
        assert stream.average_rate == RATE and stream.codec_context.name == "h264"


def test_variable_rate_keeps_every_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = [Fraction(n * n, 300) for n in range(8)]
    source = encode(tmp_path / "in.mp4", count=8, times=times)
    rewrite(source, tmp_path / "out.mp4")
    found = decode(tmp_path / "out.mp4")[1]
    assert max(abs(a - b) for a, b in zip(found, times, strict=True)) < Fraction(1, 5000)
    assert [r.message for r in caplog.records] == [
        f"{source} has a variable frame rate: every frame keeps its own time where the output can"
    ]


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, angle: int) -> None:
    reader = VideoReader(encode(tmp_path / "in.mp4", rotation=angle))
    expected = np.rot90(picture(0), angle // 90)
    assert reader.info.size == expected.shape[:2]
    assert alike(images(reader)[0].image, expected)


def test_ten_bits_become_eight(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = VideoReader(encode(tmp_path / "in.mp4", pix_fmt="yuv420p10le"))
    assert alike(images(reader)[3].image, picture(3))
    assert [r.message for r in caplog.records] == [
        f"{tmp_path / 'in.mp4'} has 10 bits a channel: matted and written with 8"
    ]


@pytest.mark.parametrize(("name", "codec"), [("in.mp4", "aac"), ("in.mkv", "libopus")])
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_sound_is_copied(tmp_path: Path, name: str, codec: str, target: str) -> None:
    source = encode(tmp_path / name, sound=codec)
    rewrite(source, tmp_path / target)
    packets = sounds(source)
    assert len(packets) > 10 and sounds(tmp_path / target) == packets


def test_sound_ends_with_the_frames(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", sound="aac", count=30)
    rewrite(source, tmp_path / "out.mp4", stop=10)
    assert 0.25 < len(sounds(tmp_path / "out.mp4")) / len(sounds(source)) < 0.45
    assert len(decode(tmp_path / "out.mp4")[0]) == 10


def test_sound_that_does_not_fit_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(encode(tmp_path / "in.mp4", sound="aac"), tmp_path / "out.webm")
    assert len(decode(tmp_path / "out.webm")[0]) == COUNT
    assert len(caplog.records) == 1 and "aac sound does not fit into .webm and is left out" in caplog.text


@pytest.mark.parametrize("name", ["out.mp4", "out.webm", "out.mov"])
def test_odd_sizes(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    size = (47, 63)
    codec = choose_codec(Path(name).suffix, "prores" if name == "out.mov" else "auto", False)
    with open_video(tmp_path / name, StreamInfo(size, RATE), size, codec) as writer:
        for n in range(3):
            writer.write(Frame(n, picture(n, size), n / RATE), picture(n, size))
    frame = decode(tmp_path / name)[0][1]
    assert frame.shape[:2] == ((48, 64) if name == "out.mp4" else size)
    assert alike(frame[: size[0], : size[1]], picture(1, size))
    assert ("is odd" in caplog.text) == (name == "out.mp4")


@pytest.mark.parametrize(
    ("name", "decoder"), [("out.mov", None), ("out.webm", "libvpx-vp9"), ("out.mkv", "libvpx-vp9")]
)
@pytest.mark.parametrize("size", [SIZE, (47, 65)])
def test_rgba_round_trip(tmp_path: Path, name: str, decoder: str | None, size: tuple[int, int]) -> None:
    rgba = np.concatenate([np.full((*size, 3), (200, 60, 30)), np.zeros((*size, 1))], 2).astype(np.uint8)
    rgba[..., 3] = np.arange(size[1]) * 3
    codec = choose_codec(Path(name).suffix, "auto", True)
    with open_video(tmp_path / name, StreamInfo(size, RATE), size, codec, alpha=True) as writer:
        for n in range(20):
            writer.write(Frame(n, rgba[..., :3], n / RATE), rgba)
    frames = decode(tmp_path / name, decoder, "rgba")[0]
    assert len(frames) == 20
    assert max(np.abs(frame.astype(int) - rgba).max() for frame in frames) <= 3


def truncated(tmp_path: Path, name: str, options: dict[str, str], part: float) -> Path:
    source = encode(tmp_path / name, count=40, options=options, draw=noise)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * part)])
    return source


def noise(index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "options"), [("in.mp4", {"movflags": "faststart"}), ("in.mkv", {})])
def test_truncated_video_gives_what_there_is(
    tmp_path: Path, name: str, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    reader = VideoReader(truncated(tmp_path, name, options, 0.5))
    assert 15 <= len(images(reader)) <= 22
    assert len(caplog.records) == 1 and f"{name} is truncated" in caplog.text


def test_damage_in_the_middle_is_stepped_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = encode(tmp_path / "in.mkv", count=40, draw=noise)
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    source.write_bytes(content)
    assert 30 <= len(images(VideoReader(source))) <= 40


def no_video(path: Path) -> Path:
    path.write_text("a text")
    return path


def only_sound(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        voice = out.add_stream("aac", rate=48000, layout="mono")
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts = 48000, 0
        out.mux(voice.encode(chunk))
        out.mux(voice.encode())
    return path


def no_frames(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_video, "is no video that can be read (Invalid data"),
        (only_sound, "has no video in it"),
        (no_frames, ""),
        (lambda path: path, "does not exist"),
        (lambda path: truncated(path.parent, path.name, {}, 0.5), "is no video that can be read"),
    ],
)
def test_what_is_no_video(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "in.mp4")
    with pytest.raises(DataError) as error:
        open_input(str(tmp_path / "in.mp4"))
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_frames_that_came_at_once(tmp_path: Path) -> None:
    codec = choose_codec(".mp4", "auto", False)
    with open_video(tmp_path / "out.mp4", StreamInfo(SIZE, RATE), SIZE, codec) as writer:
        for n in range(6):
            writer.write(Frame(n, picture(n), Fraction(n // 2)), picture(n))
    times = decode(tmp_path / "out.mp4")[1]
    assert [round(time) for time in times] == [0, 0, 1, 1, 2, 2] and len(set(times)) == 6


def test_start_skips(tmp_path: Path) -> None:
    frames = images(VideoReader(encode(tmp_path / "in.mp4")), 4, 7)
    assert [frame.index for frame in frames] == [4, 5, 6]
    assert alike(frames[0].image, picture(4))


def test_images_in_natural_order_upright(tmp_path: Path) -> None:
    for index in (10, 9, 2):
        exif = Image.Exif()
        exif[0x0112] = 6 if index == 9 else 1
        Image.fromarray(picture(index)).save(tmp_path / f"f{index}.png", exif=exif)
    reader = open_input(str(tmp_path))
    assert isinstance(reader, ImagesReader) and reader.info.names == ("f2", "f9", "f10")
    frames = [frame.image for frame in images(reader)]
    assert np.array_equal(frames[0], picture(2)) and np.array_equal(frames[1], np.rot90(picture(9), 3))


def test_damaged_image_names_its_file(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png"):
        images(open_input(str(tmp_path)))


class FakeCamera:
    """What ``cv2.VideoCapture`` does."""

    def __init__(self, number: int) -> None:
        self.left = 5 if number == 0 else 0

    def isOpened(self) -> bool:
        return self.left > 0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.left -= 1
        return (True, picture(0)[..., ::-1]) if self.left >= 0 else (False, None)

    def get(self, key: int) -> float:
        return 0.0

    def release(self) -> None:
        self.left = 0


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.VideoCapture", FakeCamera)
    reader = open_input("0")
    assert isinstance(reader, CameraReader) and reader.info.count is None
    frames = images(reader, 0, 3)
    assert len(frames) == 3 and np.array_equal(frames[0].image, picture(0))
    assert frames[0].time <= frames[1].time <= frames[2].time
    with pytest.raises(DataError, match="camera 1 gives no picture"):
        open_input("1")


@pytest.mark.parametrize(
    ("suffix", "name", "alpha", "words"),
    [
        (".avi", "auto", False, "out=*.avi"),
        (".mp4", "divx", False, "codec=divx is unknown"),
        (".mp4", "prores", False, "does not fit into .mp4"),
        (".mp4", "auto", True, "rgba does not fit into .mp4"),
        (".mov", "h264", True, "carries no alpha"),
    ],
)
def test_codecs_that_do_not_suit(suffix: str, name: str, alpha: bool, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        choose_codec(suffix, name, alpha)
    assert words in str(error.value)


@pytest.mark.parametrize("name", HARDWARE)
def test_a_device_that_does_not_answer_is_named_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match=r"does not fit into \.webm"):
        choose_codec(".webm", name, False)
    try:
        chosen = choose_codec(".mp4", name, False)
    except ConfigError as error:
        usual, _, kind = name.partition("_")
        assert f"codec={name}: the encoder does not answer on this machine (" in str(error)
        assert str(error).endswith(f"; use codec={usual}") and kind in HARDWARE[name].encoder
    else:  # a machine that has one
        assert chosen == HARDWARE[name]


def test_an_encoder_that_answers_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(HARDWARE["h264_nvenc"], encoder="libx264", options=CODECS["h264"].options)
    monkeypatch.setitem(HARDWARE, "h264_nvenc", here)
    chosen = choose_codec(".mp4", "h264_nvenc", False, "ultrafast")
    assert chosen.options["preset"] == "p1" and chosen.encoder == "libx264"
    usual = choose_codec(".mp4", "h264_nvenc", False)
    with open_video(tmp_path / "o.mp4", StreamInfo(SIZE, RATE, look=Look()), SIZE, usual) as writer:
        writer.write(Frame(0, picture(0), Fraction(0)), picture(0))
    assert alike(decode(tmp_path / "o.mp4")[0][0], picture(0))


def test_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("old")
    info = StreamInfo(SIZE, RATE, look=Look())
    with pytest.raises(DataError), open_video(tmp_path / "out.mp4", info, SIZE, choose_codec(".mp4", "auto", False)):
        pass
    with (
        pytest.raises(SaveError),
        open_video(tmp_path / "out.mp4", info, SIZE, choose_codec(".mp4", "auto", False)) as writer,
    ):
        writer.write(Frame(0, picture(0), Fraction(0)), picture(0))
        raise OSError(28, "No space left on device")
    assert (tmp_path / "out.mp4").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("suffix", "name"), [(".mp4", "h264"), (".mp4", "h265"), (".webm", "vp9")])
def test_faster_presets_keep_the_aim_for_quality(suffix: str, name: str) -> None:
    usual = choose_codec(suffix, name, False)
    found = [choose_codec(suffix, name, False, speed).options for speed in SPEEDS]
    assert usual.options in found
    assert len({str(options) for options in found}) == len(SPEEDS)
    assert {options["crf"] for options in found} == {usual.options["crf"]}


@pytest.mark.parametrize(("suffix", "name", "speed"), [(".mp4", "auto", "warp"), (".mov", "prores", "fast")])
def test_speeds_that_a_codec_does_not_know(suffix: str, name: str, speed: str) -> None:
    with pytest.raises(ConfigError, match=f"speed={speed} is unknown to codec="):
        choose_codec(suffix, name, False, speed)
