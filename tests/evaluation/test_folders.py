"""Folders of predictions against folders of truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ptq4vm.errors import ConfigError, DataError
from ptq4vm.evaluation.folders import evaluate_folders, pair_clips
from ptq4vm.evaluation.results import metric_set
from ptq4vm.metrics.functional import METRIC_SETS, foreground_squared_error, frame_metrics

CLIPS = {"set ü/0000": 9, "set ü/0001": 1, "flat": 4}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions as in ``CLIPS`` and their truth; one clip has foregrounds too."""
    generator = np.random.default_rng(0)
    for root in ("pred", "true"):
        for clip, count in CLIPS.items():
            for index in range(count):
                pixels = generator.integers(0, 256, (24, 32, 4), dtype=np.uint8)
                pixels[:8, :, 3] = 0
                write(tmp_path / root / clip / "pha" / f"{index}.png", pixels[..., 3])
                if clip == "set ü/0000":
                    write(tmp_path / root / clip / "fgr" / f"{index}.png", pixels[..., :3])
    return tmp_path / "pred", tmp_path / "true"


def pixels(folder: Path, count: int) -> torch.Tensor:
    images = [torch.from_numpy(np.array(Image.open(folder / f"{i}.png"))) for i in range(count)]
    return torch.stack([i.permute(2, 0, 1) if i.ndim == 3 else i[None] for i in images])


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("name", ["lr", "hr"])
def test_same_numbers_as_the_functions_on_whole_clips(folders: tuple[Path, Path], name: str, workers: int) -> None:
    pred, true = folders
    result = evaluate_folders(pred, true, metric_set(name), workers, progress=False)
    assert set(result.clips) == set(CLIPS) and set(result.mean) == {*METRIC_SETS[name], "fgr_mse"}
    for clip, count in CLIPS.items():
        alphas = pixels(pred / clip / "pha", count), pixels(true / clip / "pha", count)
        for metric, values in frame_metrics(*alphas, names=METRIC_SETS[name]).items():
            assert result.frames[clip][metric] == pytest.approx(values.tolist(), rel=1e-6)
            assert result.clips[clip][metric] == pytest.approx(values.mean().item(), rel=1e-6)
    colours = pixels(pred / "set ü/0000" / "fgr", 9), pixels(true / "set ü/0000" / "fgr", 9)
    expected = foreground_squared_error(*colours, pixels(true / "set ü/0000" / "pha", 9)).item()
    assert result.mean["fgr_mse"] == pytest.approx(expected, rel=1e-6), "the mean over clips that have a foreground"
    assert "fgr_mse" not in result.clips["flat"]


def test_same_numbers_as_the_reference_scripts(fixtures: Path, tmp_path: Path) -> None:
    with np.load(fixtures / "metrics_golden.npz") as golden:
        for kind in ("pred", "true"):
            for index, frame in enumerate(golden[f"{kind}_u8"]):
                write(tmp_path / kind / "set" / "clip" / "pha" / f"{index:04d}.png", frame)
        expected, columns = golden["per_frame"], [str(name) for name in golden["columns"]]
    frames = evaluate_folders(tmp_path / "pred", tmp_path / "true", progress=False).frames["set/clip"]
    for name, values in frames.items():
        assert values == pytest.approx(expected[:, columns.index(name)], rel=1e-4), name


def test_foreground_error_by_numpy(folders: tuple[Path, Path]) -> None:
    pred, true = (pixels(folder / "set ü/0000" / "fgr", 9) for folder in folders)
    alpha = pixels(folders[1] / "set ü/0000" / "pha", 9)
    for index in range(9):
        where = alpha[index, 0].numpy() > 0
        p, t = (x[index].permute(1, 2, 0).numpy()[where] / 255 for x in (pred, true))
        value = foreground_squared_error(pred, true, alpha, reduction="none")[index].item()
        assert value == pytest.approx(1e3 * ((p - t) ** 2).mean(), rel=1e-5)
    assert foreground_squared_error(pred, true, torch.zeros_like(alpha)).item() == 0
    with pytest.raises(DataError, match="does not fit"):
        foreground_squared_error(pred, true, alpha[:1])
    with pytest.raises(DataError, match="cannot be compared"):
        foreground_squared_error(pred, true[..., :3], alpha)


def test_frames_are_paired_by_name_whatever_the_suffix(folders: tuple[Path, Path]) -> None:
    pred, true = folders
    path = pred / "flat" / "pha" / "2.png"
    Image.open(path).save(path.with_suffix(".bmp"))
    path.unlink()
    (flat,) = (clip for clip in pair_clips(pred, true) if clip.name == "flat")
    assert [pair[0].name for pair in flat.alpha] == ["0.png", "1.png", "2.bmp", "3.png"]
    assert [pair[1].name for pair in flat.alpha] == ["0.png", "1.png", "2.png", "3.png"]


def spoil(pred: Path, true: Path, fault: str) -> None:
    frame = pred / "flat" / "pha" / "2.png"
    if fault == "no predictions":
        pred.rename(pred.with_name("elsewhere"))
    elif fault == "empty truth":
        true.rename(true.with_name("elsewhere"))
        true.mkdir()
    elif fault in ("clip not predicted", "clip without truth"):
        root = pred if fault == "clip not predicted" else true
        (root / "set ü" / "0001").rename(root / "hidden")
        (root / "hidden" / "pha").rename(root / "hidden" / "other")
    elif fault == "frame not predicted":
        frame.unlink()
    elif fault == "frame without truth":
        (true / "flat" / "pha" / "2.png").unlink()
    elif fault == "other size":
        write(frame, np.zeros((8, 9), np.uint8))
    elif fault == "size changes":
        for root in (pred, true):
            write(root / "flat" / "pha" / "2.png", np.zeros((8, 9), np.uint8))
    elif fault == "foreground of another size":
        for root in (pred, true):
            for index in range(9):
                write(root / "set ü" / "0000" / "fgr" / f"{index}.png", np.zeros((8, 9, 3), np.uint8))
    else:
        frame.write_bytes(frame.read_bytes()[:60])


FAULTS = {
    "no predictions": r"pred does not exist; set pred=",
    "empty truth": r"true holds no clips; expected",
    "clip not predicted": r"clip set ü/0001 of .*true is not in .*pred; .*\(1 of 3 clips",
    "clip without truth": r"clip set ü/0001 of .*pred is not in .*true; .*\(1 of 3 clips",
    "frame not predicted": r"pred/flat/pha has no frame 2 for .*true/flat/pha/2.png \(1 of 4",
    "frame without truth": r"true/flat/pha has no frame 2 for .*pred/flat/pha/2.png \(1 of 4",
    "other size": r"pred/flat/pha/2.png is 9x8 but .*true/flat/pha/2.png is 32x24",
    "size changes": r"true/flat/pha/2.png is 9x8 but .*true/flat/pha/0.png is 32x24",
    "foreground of another size": r"fgr/0.png is 9x8 but .*pha/0.png is 32x24",
    "truncated": r"pred/flat/pha/2.png",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_pair_is_one_line(folders: tuple[Path, Path], fault: str) -> None:
    spoil(*folders, fault)
    with pytest.raises(DataError, match=FAULTS[fault]) as caught:
        evaluate_folders(*folders, progress=False)
    assert "\n" not in str(caught.value)


def test_bad_options(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="use lr or hr"):
        metric_set("mr")
    with pytest.raises(ConfigError, match="num_workers"):
        evaluate_folders(*folders, workers=-1)
