"""Video files as data sets read them: frames by number, as a player shows them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy_media import encode, picture
from layouts import write_video
from ptq4vm.errors import DataError
from ptq4vm.media.frames import Frame
from ptq4vm.media.images import image_header, image_size, open_rgb
from ptq4vm.media.readers import ImagesReader
from ptq4vm.media.tensors import read_rgb
from ptq4vm.media.video import VideoReader
from ptq4vm.media.video_file import VideoFile


@pytest.mark.parametrize("ahead", [0, 2])
def test_frames_by_number_are_those_of_the_whole(tmp_path: Path, ahead: int) -> None:
    video = VideoFile(write_video(tmp_path / "ein film.mp4", frames=11, ahead=ahead))
    whole = [np.asarray(image) for image in video.images(0, 11)]
    assert len(video) == 11 and video.size == (64, 96) and whole[0].shape == (64, 96, 3)
    assert not np.array_equal(whole[0], whole[1])
    for start, stop in ((0, 1), (3, 5), (7, 11), *((i, i + 1) for i in range(11))):
        part = [np.asarray(image) for image in video.images(start, stop)]
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[start:stop], strict=True))
    assert len(VideoFile(video.path, limit=4)) == 4
    assert pickle.loads(pickle.dumps(video)) == video  # noqa: S301  (workers get sources by pickle)


def test_damaged_videos_name_the_file(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "v.mp4", frames=30))
    with pytest.raises(DataError, match="has 30 frames; frames 29:31"):
        list(video.images(29, 31))
    content = video.path.read_bytes()
    for damaged in (b"", b"not a video", content[: len(content) // 2]):
        (tmp_path / "bad.mp4").write_bytes(damaged)
        with pytest.raises(DataError, match=r"bad\.mp4") as caught:
            len(VideoFile(tmp_path / "bad.mp4"))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"gone\.mp4"):
        len(VideoFile(tmp_path / "gone.mp4"))


def frames_of(video: VideoFile) -> list[NDArray[np.uint8]]:
    return [np.asarray(image) for image in video.images(0, len(video))]


def matted(path: Path) -> list[NDArray[np.uint8]]:
    """What ``matte`` sees."""
    return [item.image for item in VideoReader(path).read() if isinstance(item, Frame)]


def phone(folder: Path, angle: int) -> Path:
    """A video that is to be turned when it is shown."""
    return encode(folder / "phone.mov", rotation=angle)


def trimmed(folder: Path) -> Path:
    """A video cut without encoding: its first frames are decoded and, by its edit list, not shown."""
    whole = encode(folder / "whole.mp4", count=30, rate=Fraction(25), options={"movflags": "faststart"})
    target = folder / "trim.mp4"
    with av.open(str(whole)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        tick = source.streams.video[0].time_base
        assert tick is not None
        for packet in source.demux(source.streams.video[0]):
            if packet.pts is None or packet.dts is None:
                continue
            late = round(Fraction(6, 25) / tick)  # six frames before 0, which is within the second group of pictures
            packet.pts, packet.dts, packet.stream = packet.pts - late, packet.dts - late, stream
            if packet.pts >= -2 * round(Fraction(1, 25) / tick):
                out.mux(packet)
    return target


def high_definition(folder: Path) -> Path:
    """A video of one colour, (191, 0, 0), of 720 rows, without a word of its matrix: BT.709 then."""
    target = folder / "hd.mp4"
    with av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"qp": "1", "preset": "ultrafast"}
        for _ in range(2):
            planes = np.empty((1080, 1280), np.uint8)
            planes[:720], planes[720:900], planes[900:] = 51, 106, 212
            out.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(stream.encode())
    return target


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_a_turned_video_stands_upright(tmp_path: Path, angle: int) -> None:
    video = VideoFile(phone(tmp_path, angle))
    expected = np.rot90(picture(0), angle // 90)
    assert video.size == expected.shape[:2]
    (first, *_) = frames_of(video)
    assert first.shape == expected.shape and np.abs(first.astype(float) - expected).mean() < 6
    assert np.array_equal(np.asarray(next(iter(video.images(7, 8)))), frames_of(video)[7]), "after a seek too"


def test_a_trimmed_video_has_the_frames_that_are_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video, expected = VideoFile(trimmed(tmp_path)), matted(tmp_path / "trim.mp4")
    assert len(video) == len(expected) == 24
    found = frames_of(video)
    assert all(np.abs(a.astype(float) - b).mean() < 4 for a, b in zip(found, expected, strict=True))
    for number in (0, 1, 5, 23):
        assert np.array_equal(np.asarray(next(iter(video.images(number, number + 1)))), found[number])
    assert caplog.records == [], "nothing is missing: what is cut off is not truncated"


def test_an_unmarked_hd_video_is_bt709(tmp_path: Path) -> None:
    found = frames_of(VideoFile(high_definition(tmp_path)))[1][300, 600]
    assert np.abs(found.astype(int) - (191, 0, 0)).max() <= 2
    assert np.abs(matted(tmp_path / "hd.mp4")[1][300, 600].astype(int) - (191, 0, 0)).max() <= 2


def plain(path: Path) -> Sequence[NDArray[np.uint8]]:
    """Frames as data sets always had them: FFmpeg's own conversion, nothing said."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_image()) for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["noise.mp4", "ahead.mp4", "noise.avi", "discs.mkv", "full.mp4", "ten.mp4"])
def test_plain_videos_give_the_values_they_always_gave(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in ("full.mp4", "ten.mp4", "discs.mkv"):
        encode(path, full_range=name == "full.mp4", pix_fmt="yuv420p10le" if name == "ten.mp4" else "yuv420p")
    else:
        write_video(path, frames=9, ahead=2 if name == "ahead.mp4" else 0)
    found = frames_of(VideoFile(path))
    assert found and all(np.array_equal(a, b) for a, b in zip(found, plain(path), strict=True))


@pytest.mark.parametrize("marked", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_pictures_stand_upright_for_data_sets_and_matting_alike(tmp_path: Path, suffix: str, marked: int) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = marked
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(picture(0)).save(path, exif=exif, **lossless)
    Image.fromarray(picture(0)).save(tmp_path / f"plain{suffix}", **lossless)
    stored = np.asarray(Image.open(tmp_path / f"plain{suffix}"))
    turns = {2: (0, -1), 3: (2, 1), 4: (2, -1), 5: (3, -1), 6: (3, 1), 7: (1, -1), 8: (1, 1)}
    quarters, step = turns.get(marked, (0, 1))
    expected = np.rot90(stored, quarters)[:, ::step]
    assert image_size(path) == image_header(path).size == expected.shape[:2]
    assert np.array_equal(read_rgb(path).permute(1, 2, 0).numpy(), expected)
    (frame,) = ImagesReader(path).read()
    assert np.array_equal(frame.image, expected) and frame.image.flags.writeable


def test_a_damaged_mark_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(picture(0)).save(content, "PNG", exif=b"nonsense")
    (tmp_path / "a.png").write_bytes(content.getvalue())
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.png")), picture(0))
    assert image_size(tmp_path / "a.png") == picture(0).shape[:2]
