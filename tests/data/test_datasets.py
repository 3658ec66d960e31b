from __future__ import annotations

from pathlib import Path

import pytest

from ptq4vm.data.base import ClipDataset
from ptq4vm.data.clips.sources import CompositeClip
from ptq4vm.data.datasets.folder import FolderDataset, find_clips
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.errors import ConfigError, DataError


def test_folder_layout_with_and_without_subsets(tmp_path: Path, make_clip) -> None:
    for name in ("b/10", "b/9", "a", "b/x é"):
        make_clip(tmp_path / name, count=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden" / "com").mkdir(parents=True)
    dataset = FolderDataset(tmp_path)
    assert isinstance(dataset, ClipDataset)
    assert [clip.name for clip in dataset.clips().evaluation] == ["a", "b/9", "b/10", "b/x é"]


def test_evaluated_clips_serve_where_no_others_are_given(tmp_path: Path, make_clip) -> None:
    make_clip(tmp_path / "one" / "clip", count=2)
    make_clip(tmp_path / "two" / "other", count=2)
    clips = FolderDataset(tmp_path / "one", tmp_path / "two").clips()
    assert clips.calibration[0].name == "other" and clips.evaluation[0].name == "clip"
    clips = FolderDataset(tmp_path / "one").clips()
    assert clips.calibration == clips.evaluation


def test_folder_without_clips(tmp_path: Path, make_clip) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; set data\.root"):
        find_clips(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no clips"):
        find_clips(tmp_path)
    make_clip(tmp_path / "clip", kinds=("com",))
    with pytest.raises(DataError, match="clip/pha does not exist"):
        find_clips(tmp_path)


@pytest.fixture
def video_root(tmp_path: Path, make_images) -> Path:
    for name in ("0", "1", "10", "2"):
        make_images(tmp_path / "train" / "fgr" / name, count=3, suffix=".jpg")
        make_images(tmp_path / "train" / "pha" / name, count=3)
    for name in ("x", "y", "z"):
        make_images(tmp_path / "backgrounds" / name, count=2, size=(30, 30))
    return tmp_path


def test_videomatte_pairs_every_clip(video_root: Path, make_clip) -> None:
    clips = VideoMatteDataset(video_root).clips()
    assert clips.evaluation == ()
    assert [clip.name.split("+")[0] for clip in clips.calibration] == ["0", "1", "2", "10"]
    assert {clip.name.split("+")[1] for clip in clips.calibration} == {"x", "y", "z"}
    assert clips.calibration[0].read().frames.shape == (3, 3, 48, 64)
    make_clip(video_root / "eval" / "set" / "clip", count=2)
    assert [clip.name for clip in VideoMatteDataset(video_root).clips().evaluation] == ["set/clip"]


def test_videomatte_pairs_are_a_function_of_the_seed(video_root: Path) -> None:
    def names(seed: int, pairs: int = 1) -> list[str]:
        return [clip.name for clip in VideoMatteDataset(video_root, None, pairs, seed).clips().calibration]

    assert names(3) == names(3)
    assert len({tuple(names(seed)) for seed in range(8)}) > 1
    assert len(set(names(0, 3))) == 12, "every foreground meets every background"
    assert names(0, 3)[:4] == names(0)
    with pytest.raises(ConfigError, match=r"pairs_per_clip is 4 but .* holds 3"):
        names(0, 4)
    with pytest.raises(ConfigError, match="at least 1"):
        VideoMatteDataset(video_root, pairs_per_clip=0)


def test_backgrounds_may_be_single_images_elsewhere(video_root: Path, tmp_path: Path, make_images) -> None:
    flat = make_images(tmp_path / "pictures", count=2)
    (clip, *_) = VideoMatteDataset(video_root, backgrounds=flat).clips().calibration
    assert isinstance(clip, CompositeClip) and len(clip.background) == 1
    assert clip.background[0].parent == flat


def test_videomatte_folders_that_are_missing(video_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is missing or holds no backgrounds"):
        VideoMatteDataset(video_root, backgrounds=tmp_path / "nothing").clips()
    with pytest.raises(DataError, match="train/fgr is missing"):
        VideoMatteDataset(tmp_path / "nowhere").clips()
    with pytest.raises(DataError, match=r"test/fgr is missing or .*, or split=train for those of .*/train$"):
        VideoMatteDataset(video_root).foregrounds("test")
    for path in (video_root / "train" / "pha" / "10").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="pha/10 holds no images"):
        VideoMatteDataset(video_root).clips()
