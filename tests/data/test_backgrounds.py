"""Backgrounds of every kind, listed, played and paired."""

from __future__ import annotations

from pathlib import Path

import pytest

from layouts import draw_backgrounds, write_video
from ptq4vm.data.clips.backgrounds import BackgroundFolder, as_source, pair, show
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.video_file import VideoFile, list_videos


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
