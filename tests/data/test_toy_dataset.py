"""A data set from outside the package: a class with a decorator, and nothing in ``src`` that knows of it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import TINY, Workplace, as_found
from ptq4vm import api
from ptq4vm.api.clips import recorded_clips
from ptq4vm.data.base import DATASETS, ClipDataset, ClipSets, frame_window
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.checks import check
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.system.registry import Registry
from ptq4vm.types import Clip, ClipSource

REST = tuple(override for override in TINY if not override.startswith("data."))
TARGET = f"{__name__}.ToyDataset"


@dataclass(frozen=True)
class ToyClip:
    """A bright square that moves over a grey ramp; nothing of it lies on a disk."""

    name: str
    num_frames: int
    size: tuple[int, int] = (64, 96)

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        window = frame_window(self, start, stop)
        height, width = self.size
        frames, alphas = [], []
        for time in range(window.start, window.stop):
            alpha = np.zeros((1, height, width), np.uint8)
            alpha[:, 16:48, 20 + 2 * time : 52 + 2 * time] = 255
            ramp = np.broadcast_to(np.arange(width, dtype=np.uint8), (3, height, width))
            frames.append(np.where(alpha > 0, np.uint8(200), ramp))
            alphas.append(alpha)
        return Clip(self.name, torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(alphas)))


@DATASETS.register("toy")
class ToyDataset:
    """Two drawn clips to calibrate on, one to evaluate; ``root`` is taken and not looked at."""

    def __init__(self, frames: int = 6, seed: int = 0, root: str | None = None) -> None:
        if frames < 2:
            raise ConfigError(f"data.frames must be at least 2, not {frames}")
        self.frames = frames
        self.seed = seed

    def clips(self) -> ClipSets:
        calibration = tuple(ToyClip(f"toy {self.seed}-{number}", self.frames) for number in range(2))
        return ClipSets(calibration, (ToyClip("toy held out", self.frames),))


def test_a_toy_is_found_by_name_and_by_target() -> None:
    assert "toy" in DATASETS and DATASETS["toy"] is DATASETS.find(TARGET) is ToyDataset
    data = api.load_data("toy", seed=3, frames=4)
    assert isinstance(data, ToyDataset) and isinstance(data, ClipDataset)
    assert (data.frames, data.seed) == (4, 3)
    with pytest.raises(ConfigError, match=r"data\.size is unknown: use one of frames, seed, root"):
        api.load_data("toy", size=3)
    with pytest.raises(ConfigError, match=r"data\.frames='4' has the wrong type: give a whole number"):
        api.load_data("toy", frames="4")


def test_a_toy_goes_through_the_data_module_and_the_check() -> None:
    data = api.load_data("toy")
    module = MattingDataModule(data, clips=2, clip_length=3, crop=(64, 64), batch_size=2)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.frames.shape == (2, 3, 3, 64, 64) and batch.alpha.max() == 1
    assert [clip.name for clip in module.evaluation_clips] == ["toy held out"]
    found = check(data)
    assert {part: len(clips) for part, clips in found.parts.items()} == {"calibration": 2, "evaluation": 1}
    assert found.faults == found.oddities == []


@pytest.fixture
def run_of_a_toy(workplace: Workplace, tmp_path: Path) -> Path:
    """A run on a toy that was chosen by a file in a folder of the user's own."""
    own = tmp_path / "own" / "data"
    own.mkdir(parents=True)
    (own / "toy.yaml").write_text(f"_target_: {TARGET}\nframes: 5\nseed: ${{seed}}\n")
    run = tmp_path / "run"
    chosen = [f"--config-dir={own.parent}", "data=toy", "seed=2", f"model.weights={workplace.weights}"]
    done = workplace.run("quantize", *chosen, "method=rtn", "bits=w8a8", *REST, "baseline=false", f"run_dir={run}")
    assert done.status == 0, done.out + done.err
    return run


def test_a_toy_is_quantized_on_checked_and_found_again(
    run_of_a_toy: Path, workplace: Workplace, tmp_path: Path
) -> None:
    quantized = json.loads((run_of_a_toy / "metrics.json").read_text())
    assert list(quantized["clips"]) == ["toy held out"]
    recorded: Any = read_info(run_of_a_toy).extra["config"]
    assert recorded["data"] == {"_target_": TARGET, "frames": 5, "seed": 2}
    with as_found(workplace.cache):  # as `export verify` finds them again
        found = recorded_clips(str(run_of_a_toy), str(workplace.weights))
    assert found == (ToyClip("toy held out", 5),)
    given = ["data=demo", f"data._target_={TARGET}", "+data.frames=5"]
    weights = f"model.weights={workplace.weights}"
    done = workplace.run("evaluate", *given, weights, f"checkpoint={run_of_a_toy}", f"run_dir={tmp_path / 'eval'}")
    assert done.status == 0, done.out + done.err
    again = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert again["mean"]["mad"] == pytest.approx(quantized["mean"]["mad"], rel=1e-4)
    done = workplace.run("data", "check", *given, weights, f"run_dir={tmp_path / 'check'}")
    assert done.status == 0, done.out + done.err
    parts = json.loads((tmp_path / "check" / "check.json").read_text())["parts"]
    assert parts["evaluation"]["toy held out"]["size"] == [64, 96]


def test_a_run_folder_can_name_registered_data_sets_only(
    run_of_a_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("open('called', 'w').close()\nclass Dataset: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    info = run_of_a_toy / "quantizer.yaml"
    text = info.read_text()
    for target in ("planted.Dataset", f"{__name__}.ToyClip", "os.system", "builtins.exec", "toy"):
        info.write_text(text.replace(TARGET, target))
        with pytest.raises(CheckpointError, match="names no known data set"):
            recorded_clips(str(run_of_a_toy))
    assert not (tmp_path / "called").exists() and "planted" not in sys.modules


def test_an_installed_package_names_its_data_set_in_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"ptq4vm.datasets": [EntryPoint("far", TARGET.replace(".ToyDataset", ":ToyDataset"), "ptq4vm.datasets")]}
    monkeypatch.setattr("ptq4vm.system.registry.entry_points", lambda group: points.get(group, []))
    registry: Registry[Any] = Registry("data", "ptq4vm.data.datasets", "ptq4vm.datasets")
    assert registry["far"] is registry.find(TARGET) is ToyDataset


def test_a_toy_clip_is_a_clip() -> None:
    for clip in ToyDataset().clips().calibration:
        assert isinstance(clip, ClipSource) and clip.read().frames.shape == (6, 3, 64, 96)
