from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from layouts import draw_backgrounds, write_video
from ptq4vm.data.clips.backgrounds import BackgroundFolder, as_source, pair, show
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.video_reading import VideoFile, list_videos


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


def test_backgrounds_of_every_kind(tmp_path: Path, make_images) -> None:
    root = draw_backgrounds(tmp_path)
    video = BackgroundFolder(root / "video", "video").backgrounds("test")
    assert [b.name for b in video] == ["a street", "café"]
    assert all("test" in str(b.frames.path if isinstance(b.frames, VideoFile) else b.frames[0]) for b in video)
    assert [b.name for b in BackgroundFolder(root / "image", "image").backgrounds()] == ["bild 0", "bild 1"]
    assert len(as_source(root / "image").backgrounds("train")) == 2, "the whole folder where it is not divided"
    make_images(root / "image" / "more", count=1)
    assert [b.name for b in BackgroundFolder(root / "image", "image").backgrounds()][-1] == "more-0000"
    with pytest.raises(DataError, match=r"holds no backgrounds; expected .*/<clip>/<frame> or video files$"):
        BackgroundFolder(list_videos(root / "video" / "train")[0].path.parent / "a street", "video").backgrounds()
    with pytest.raises(ConfigError, match="one of any, video, image"):
        BackgroundFolder(root, "film")


def test_a_background_plays_forth_and_back(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "v.mp4", frames=4))
    once = show(video, 0, 4, (32, 48))
    played = show(video, 0, 9, (32, 48))
    assert played.shape == (9, 3, 32, 48)
    for time, number in enumerate((0, 1, 2, 3, 2, 1, 0, 1, 2)):
        assert (played[time] == once[number]).all()
    assert (show(video, 5, 7, (32, 48)) == played[5:7]).all()


def test_pairs_are_a_function_of_the_seed(tmp_path: Path) -> None:
    backgrounds = BackgroundFolder(draw_backgrounds(tmp_path) / "image", "image").backgrounds()
    pairs = pair(5, backgrounds, 2, seed=3)
    assert pairs == pair(5, backgrounds, 2, seed=3) and len(set(pairs)) == 10
    assert pairs[:5] == pair(5, backgrounds, 1, seed=3)
