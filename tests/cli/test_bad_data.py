"""Clips that cannot be used: one line that names the file or folder, and nothing left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import Workplace, draw_folder_clip, files


def truncate(path: Path) -> Path:
    """Turn a picture into a JPEG file that stops in the middle."""
    picture = Image.open(path).convert("RGB").resize((192, 128))
    jpeg = path.with_suffix(".jpg")
    picture.save(jpeg, quality=95)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    path.unlink()
    return jpeg


def resize(path: Path) -> Path:
    Image.open(path).resize((32, 32)).save(path)
    return path


def blank(folder: Path) -> Path:
    for path in folder.iterdir():
        Image.fromarray(np.zeros((64, 96), np.uint8)).save(path)
    return folder


def emptied(folder: Path) -> Path:
    for path in folder.iterdir():
        path.unlink()
    return folder


def remove(path: Path) -> Path:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


Spoil = Callable[[Path], Path]

FOLDER: dict[str, tuple[Spoil, str]] = {
    "missing folder": (lambda root: remove(root), "does not exist"),
    "empty folder": (lambda root: remove(root / "set").parent, "holds no clips"),
    "frame counts differ": (lambda root: remove(root / "set" / "b" / "pha" / "0005.png").parent, "5"),
    "empty clip": (lambda root: emptied(root / "set" / "b" / "com"), "holds no images"),
    "no alpha": (lambda root: remove(root / "set" / "b" / "pha"), "b"),
    "not a picture": (lambda root: _garbage(root / "set" / "b" / "com" / "0003.png"), "0003.png"),
    "truncated picture": (lambda root: truncate(root / "set" / "b" / "com" / "0005.png"), "0005.jpg"),
    "sizes differ": (lambda root: resize(root / "set" / "b" / "pha" / "0002.png"), "32x32"),
    "no subject": (lambda root: blank(root / "set" / "b" / "pha"), "zero in every frame"),
}


def _garbage(path: Path) -> Path:
    path.write_bytes(b"not a picture")
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips in the folder layout."""
    for seed, name in enumerate(("a", "b")):
        draw_folder_clip(tmp_path / "clips" / "set" / name, seed)
    return tmp_path / "clips"


@pytest.mark.parametrize("fault", FOLDER)
def test_clips_to_evaluate(workplace: Workplace, tmp_path: Path, clips: Path, fault: str) -> None:
    spoil, words = FOLDER[fault]
    culprit = spoil(clips)
    named = "clip set/b" if fault == "no subject" else str(culprit)
    for checks in (["num_workers=0"], ["num_workers=1"])[: 2 if fault == "truncated picture" else 1]:
        line = workplace.evaluate(tmp_path / "run", f"data.root={clips}", *checks).line()
        assert named in line and words in line, line
        assert files(tmp_path / "run") <= {"evaluate.log", *(f for f in files(tmp_path / "run") if ".hydra" in f)}


VIDEOMATTE: dict[str, tuple[Spoil, str]] = {
    "missing folder": (lambda root: remove(root), "train"),
    "no foregrounds": (lambda root: remove(root / "train" / "fgr"), "holds no clips"),
    "no backgrounds": (lambda root: remove(root / "backgrounds"), "holds no backgrounds"),
    "frame counts differ": (lambda root: remove(root / "train" / "fgr" / "a" / "0000.png").parent, "5"),
    "truncated foreground": (lambda root: truncate(root / "train" / "fgr" / "a" / "0002.png"), "0002.jpg"),
    "sizes differ": (lambda root: resize(root / "train" / "pha" / "a" / "0002.png"), "32x32"),
    "no subject": (lambda root: blank(root / "train" / "pha" / "a"), "zero in every frame"),
    "damaged evaluation clip": (lambda root: truncate(root / "eval" / "set" / "b" / "com" / "0000.png"), "0000.jpg"),
}


@pytest.mark.parametrize("fault", VIDEOMATTE)
def test_clips_to_calibrate_on(workplace: Workplace, tmp_path: Path, fault: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(workplace.data, data)
    spoil, words = VIDEOMATTE[fault]
    culprit = spoil(data)
    # whole clips, so that the samples meet every frame
    length = "preset.calibration.clip_length=6"
    line = workplace.quantize(tmp_path / "run", "method=rtn", f"data.root={data}", length).line()
    assert words in line and ("clip a+" in line or str(culprit) in line), line
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_no_place_for_the_run(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in workplace.quantize(tmp_path / "file" / "run", "method=rtn").line()


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "none.txt"])
def test_missing_weights(workplace: Workplace, tmp_path: Path, name: str) -> None:
    line = workplace.quantize(tmp_path / "run", f"model.weights={tmp_path / name}").line()
    assert str(tmp_path / name) in line
