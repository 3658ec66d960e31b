from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from layouts import draw_layout, write_video
from ptq4vm.data.clips.foregrounds import ForegroundSource, StillClip, StillForeground
from ptq4vm.data.compositing import composite
from ptq4vm.data.datasets.backgrounds import BackgroundsDataset
from ptq4vm.data.datasets.footage import FootageDataset
from ptq4vm.data.datasets.stills import StillsDataset
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.types import ClipSource


@pytest.fixture
def stills_root(tmp_path: Path) -> Path:
    return draw_layout("d646", tmp_path / "d646")


def test_stills_become_clips(stills_root: Path) -> None:
    dataset = StillsDataset(stills_root, frames=9, size=(48, 80), seed=1)
    assert isinstance(dataset, ForegroundSource)
    clips = dataset.clips()
    assert [c.name.split("+")[0] for c in clips.calibration] == ["frau 0", "frau 1"] and len(clips.evaluation) == 2
    source = clips.calibration[0]
    assert isinstance(source, ClipSource) and isinstance(source, StillClip)
    clip = source.read()
    assert clip.frames.shape == (9, 3, 48, 80) and clip.alpha.shape == (9, 1, 48, 80)
    assert not torch.equal(clip.alpha[0], clip.alpha[8]), "it moves"
    part = source.read(4, 6)
    assert torch.equal(part.frames, clip.frames[4:6]) and torch.equal(part.alpha, clip.alpha[4:6])
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301
    with pytest.raises(DataError, match="has 9 frames; frames 8:10"):
        source.read(8, 10)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), time=st.integers(0, 99))
def test_foreground_and_alpha_move_alike(tmp_path_factory: pytest.TempPathFactory, seed: int, time: int) -> None:
    """Colours that are the alpha itself stay so: any difference in geometry would show."""
    folder = tmp_path_factory.mktemp("still")
    rows, columns = np.mgrid[:40, :60]
    alpha = np.clip((14 - np.hypot(rows - 20, columns - 30)) / 4 + 0.5, 0, 1)
    pha = (alpha * 255).astype(np.uint8)
    Image.fromarray(pha).save(folder / "a.png")
    Image.fromarray(np.dstack([pha] * 3)).save(folder / "f.png")
    still = StillForeground("a", folder / "f.png", folder / "a.png", seed)
    colours, alphas = still.read(time, time + 2, (40, 60))
    assert (colours.int() - alphas.int()).abs().max() <= 1
    assert 0.5 < float(alphas[0].float().sum()) / float(pha.astype(float).sum()) < 1.6, "mild"
    centre = alphas[0, 0].float()
    x = float((centre * torch.arange(60)).sum() / centre.sum())
    assert abs(x - 30) < 0.2 * 60
    blend = composite(colours.float() / 255, alphas.float() / 255, torch.zeros(1))
    assert blend.min() >= 0 and blend.max() <= 1


def test_names_choose_stills(stills_root: Path, tmp_path: Path) -> None:
    names = tmp_path / "people.txt"
    names.write_text("frau 1.png\n\n", encoding="utf-8")
    found = StillsDataset(stills_root, names=names).foregrounds("test")
    assert [still.name for still in found] == ["frau 1"]
    for text, words in (("nobody\n", "has no 'nobody'"), ("\n", "holds no names")):
        names.write_text(text)
        with pytest.raises(DataError, match=words):
            StillsDataset(stills_root, names=names).clips()
    with pytest.raises(DataError, match="cannot be read"):
        StillsDataset(stills_root, names=tmp_path / "none.txt").clips()


def test_what_is_wrong_with_stills(stills_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.frames must be at least 1"):
        StillsDataset(stills_root, frames=0)
    pha = stills_root / "train" / "pha" / "frau 1.png"
    Image.open(pha).resize((32, 32)).save(pha)
    with pytest.raises(DataError, match=r"pha/frau 1\.png is 32x32 but .*fgr/frau 1\.png is 96x64"):
        StillsDataset(stills_root).clips().calibration[1].read(0, 1)
    pha.unlink()
    with pytest.raises(DataError, match="pha has no 'frau 1' for"):
        StillsDataset(stills_root).clips()
    with pytest.raises(DataError, match=r"fgr does not exist; expected"):
        StillsDataset(stills_root / "nowhere").clips()


def test_clips_are_held_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = draw_layout("videomatte240k", tmp_path)
    dataset = VideoMatteDataset(root, held_back=("0000", "0100"))
    clips = dataset.clips()
    assert [c.name.split("+")[0] for c in clips.calibration] == ["0001", "ein clip"]
    assert [c.name.split("+")[0] for c in clips.evaluation] == ["0000"]
    assert "0100" in caplog.text
    for clip in (*clips.calibration, *clips.evaluation):
        assert clip.read(0, 2).frames.shape == (2, 3, 64, 96)
    splits = {split: [f.name for f in dataset.foregrounds(split)] for split in ("train", "valid", "test")}
    assert splits == {"train": ["0001", "ein clip"], "valid": ["0000"], "test": ["0000"]}
    both = VideoMatteDataset(root, held_back=("0000",), pairs_per_clip=2).clips()
    assert len({c.name for c in both.evaluation}) == 2, "those held back are shown over as many backgrounds"
    with pytest.raises(DataError, match="only clips that are held back"):
        VideoMatteDataset(root, held_back=("0000", "0001", "ein clip")).clips()
    (root / "train" / "pha" / "extra").mkdir()
    with pytest.raises(DataError, match=r"fgr/extra does not exist, but .*pha/extra does"):
        dataset.clips()


def test_backgrounds_show_nobody(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.backgrounds="):
        BackgroundsDataset(tmp_path).clips()


@pytest.fixture
def footage(tmp_path: Path) -> FootageDataset:
    return FootageDataset(draw_layout("footage", tmp_path / "mine"), frames=5, cache=tmp_path / "cache")


def test_footage_takes_its_alpha_from_the_network_once(footage: FootageDataset) -> None:
    calls = []

    def predict(chunks):
        calls.append(0)
        for chunk in chunks:
            yield chunk.float().mean(1, keepdim=True).to(torch.uint8)

    with pytest.raises(DataError, match="no alpha yet"):
        footage.clips()
    footage.make_truth(predict, "one")
    clips = footage.clips()
    assert clips.calibration == clips.evaluation and [c.name for c in clips.calibration] == ["büro 1", "my clip"]
    for clip in clips.calibration:
        read = clip.read()
        assert clip.num_frames == 5 and read.alpha.shape == (5, 1, 64, 96)
        assert torch.equal(read.alpha, read.frames.float().mean(1, keepdim=True).to(torch.uint8))
    footage.make_truth(predict, "one")
    assert len(calls) == 2, "what is there is not predicted again"
    footage.make_truth(predict, "two")
    write_video(footage.root / "büro 1.mp4", seed=5)
    footage.make_truth(predict, "two")
    assert len(calls) == 5, "another network predicts all, another video only itself"


def test_footage_may_be_evaluated_on_clips_with_truth(footage: FootageDataset, tmp_path: Path, make_clip) -> None:
    make_clip(tmp_path / "truth" / "set" / "clip", count=2)
    other = FootageDataset(footage.root, tmp_path / "truth", cache=tmp_path / "cache")
    other.make_truth(lambda chunks: (chunk[:, :1] for chunk in chunks), "k")
    assert [c.name for c in other.clips().evaluation] == ["set/clip"] and len(other.clips().calibration) == 2


def test_what_is_wrong_with_footage(footage: FootageDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; set data\.root"):
        FootageDataset(tmp_path / "none").footage()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no videos"):
        FootageDataset(tmp_path / "empty").footage()
    write_video(footage.root / "my clip.mp4")
    with pytest.raises(DataError, match="two clips called 'my clip'"):
        footage.footage()
    with pytest.raises(ConfigError, match=r"data\.frames"):
        FootageDataset(tmp_path, frames=0)
