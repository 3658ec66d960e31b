"""Pictures without alpha, which a float network labels, beside a data set's own clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from commands import SIZE, draw_clip
from layouts import draw_layout, write_video
from ptq4vm import api
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.datasets.unlabelled import STILL_FRAMES, WithUnlabelled
from ptq4vm.errors import ConfigError, DataError


def nothing_in_front(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
    """A network that sees foreground on the left of bright pictures, and none in dark ones."""
    for chunk in chunks:
        alpha = torch.zeros_like(chunk[:, :1])
        if float(chunk.float().mean()) > 100:
            alpha[..., : chunk.shape[-1] // 2] = 255
        yield alpha


def still(path: Path, size: tuple[int, int], grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "bilder"
    still(root / "a room.png", (80, 100), 10)
    still(root / "animals" / "cat.png", (90, 70), 200)
    still(root / "animals" / "dog.jpg", (64, 96), 20)
    draw_clip({"com": root / "street"}, 3)
    write_video(root / "film.mp4", seed=4)
    return root


@pytest.fixture
def data(tmp_path: Path, pictures: Path) -> WithUnlabelled:
    root = draw_layout("videomatte", tmp_path / "root")
    found = api.load_data("videomatte", root=root, pairs_per_clip=1, unlabelled=str(pictures))
    assert isinstance(found, WithUnlabelled)
    found.pictures.cache = tmp_path / "cache"
    found.make_truth(nothing_in_front, "bright is in front")
    return found


def test_stills_clips_and_videos_join_the_calibration_clips_alone(data: WithUnlabelled) -> None:
    own, found = data.data.clips(), data.clips()
    assert [clip.name for clip in found.evaluation] == [clip.name for clip in own.evaluation]
    added = {clip.name: clip for clip in found.calibration[len(own.calibration) :]}
    assert {name: (clip.num_frames, clip.size) for name, clip in added.items()} == {
        "unlabelled/film.mp4": (6, SIZE),
        "unlabelled/a room.png": (STILL_FRAMES, (80, 100)),
        "unlabelled/animals/cat.png": (STILL_FRAMES, (90, 70)),
        "unlabelled/animals/dog.jpg": (STILL_FRAMES, (64, 96)),
        "unlabelled/street": (6, SIZE),
    }
    assert added["unlabelled/animals/cat.png"].read().alpha.any()
    assert not added["unlabelled/a room.png"].read().alpha.any(), "that nothing is in front is a label too"


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_samples_show_pictures_without_anything_in_front(
    data: WithUnlabelled, augmentation: Augmentation | None
) -> None:
    module = MattingDataModule(data, clip_length=3, crop=(48, 48), clips=16, augmentation=augmentation)
    batch = module.calibration_batch()
    empty = ~batch.alpha.flatten(1).any(1)
    assert empty.any() and not empty.all()
    corners = {(sample.top, sample.left) for sample, none in zip(module.samples, empty, strict=True) if none}
    assert len(corners) > 1, "not always the same corner"


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_whole_pictures_of_any_size_are_cut_and_scaled_to_the_clips(
    data: WithUnlabelled, augmentation: Augmentation | None
) -> None:
    module = MattingDataModule(data, clip_length=3, crop=None, clips=16, augmentation=augmentation)
    assert module.calibration_batch().frames.shape[-2:] == SIZE
    boxes = {(sample.top, sample.left, *sample.size): sample.output for sample in module.samples}
    height, width = SIZE
    assert boxes.pop((0, 0, *SIZE)) is None, "frames of the clips' size stay as they are"
    assert boxes and set(boxes.values()) == {SIZE}
    for top, left, h, w in boxes:
        assert abs(h / w - height / width) < 0.05, "the same shape, in the middle"
        assert top <= 1 or left <= 1, "as large as fits"


def test_labels_are_made_once(data: WithUnlabelled, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    data.make_truth(lambda chunks: pytest.fail("asked again"), "bright is in front")  # type: ignore[arg-type,return-value]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("gone", "does not exist"), ("empty", "holds no pictures")):
        found = api.load_data("demo", unlabelled=str(tmp_path / folder))
        assert isinstance(found, WithUnlabelled)
        with pytest.raises(DataError, match=rf"{folder} {message}"):
            found.make_truth(nothing_in_front, "any")
    for wrong in (3, "", ["a"]):
        with pytest.raises(ConfigError, match=r"data\.unlabelled="):
            api.load_data("demo", unlabelled=wrong)
