from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from commands import Done, Workplace, draw_folder_clip
from deploy_runs import spec, write_run
from ptq4vm import api
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.metadata import checkpoint_hash
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.verify import open_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Two clips, and a run folder without float weights."""
    root = tmp_path_factory.mktemp("export")
    for seed in (0, 1):
        draw_folder_clip(root / "clips" / str(seed), seed)
    return Workplace(root)


@pytest.fixture(scope="module")
def run(place: Workplace) -> Path:
    return write_run(place.root / "run", spec("w4a8"), place.root / "clips")


@pytest.fixture(scope="module")
def exported(place: Workplace, run: Path) -> Path:
    file = place.root / "a.onnx"
    done = place.run("export", f"checkpoint={run}", "target=onnx", f"out={file}", "size=96x64")
    assert done.status == 0 and done.out.strip() == str(file), done.err
    assert done.err == ""
    return file


def verify(place: Workplace, run: Path, file: Path, *more: str) -> Done:
    return place.run("export", "verify", f"checkpoint={run}", f"file={file}", "frames=3", "threads=1", *more)


def test_export_and_verify(place: Workplace, run: Path, exported: Path) -> None:
    done = verify(place, run, exported)
    assert done.status == 0, done.err
    assert done.out.startswith("ptq4vm export verify: passed: 6 frames (0, 1), ") and done.err == ""
    done = verify(place, run, exported, "clips=1")
    assert done.out.startswith("ptq4vm export verify: passed: 3 frames (0), "), done.err
    metadata = open_engine(exported, threads=1).metadata
    assert metadata["bits"] == "w4a8" and metadata["method"] == "ptq4vm" and metadata["calibration"] == "abc"
    assert metadata["size"] == "96x64" and metadata["model"] == "rvm_mobilenetv3" and "GPL-3.0" in metadata["licence"]
    assert metadata["checkpoint"] == checkpoint_hash(run) and metadata["version"]


def test_openvino(place: Workplace, run: Path) -> None:
    file = place.root / "a.xml"
    done = place.run("export", f"checkpoint={run}", "target=openvino", f"out={file}", "size=96x64")
    assert done.status == 0, done.err
    done = verify(place, run, file)
    assert done.status == 0 and "passed" in done.out, done.err
    file.with_suffix(".bin").unlink()
    assert "a.bin is missing" in verify(place, run, file).line()


def test_a_file_of_another_run_fails(place: Workplace, exported: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", spec("w2a2"), place.root / "clips")
    assert "a.onnx is of rvm_mobilenetv3 w4a8" in verify(place, other, exported).line()
    model = onnx.load(exported)
    for entry in model.metadata_props:
        entry.value = "w2a2" if entry.key == "bits" else entry.value
    onnx.save(model, tmp_path / "told.onnx")
    done = verify(place, other, tmp_path / "told.onnx")
    assert done.status == 1 and done.out == ""
    warning, line = done.err.splitlines()
    assert "does not say that it was exported from" in warning
    assert "failed" in line and "the first layer to depart is" in line and "away from itself" in line


def test_without_the_clips_of_the_run(place: Workplace, run: Path, exported: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(run, tmp_path / "elsewhere")
    choices = elsewhere / "quantizer.yaml"
    kept = choices.read_text()
    choices.write_text(kept.replace(str(place.root / "clips"), str(tmp_path / "gone")))
    done = verify(place, elsewhere, exported)
    assert done.status == 0 and "passed: 3 frames (moving portrait)" in done.out, done.err
    assert done.err.count("\n") == 1 and "give clip=DIR" in done.err and str(tmp_path / "gone") in done.err
    choices.write_text(kept.replace("ptq4vm.data.datasets.folder.FolderDataset", "os.system"))
    done = verify(place, elsewhere, exported)
    assert "quantizer.yaml: names no known data set" in done.err and "moving portrait" in done.out
    done = verify(place, elsewhere, exported, f"clip={place.root / 'clips' / '1'}")
    assert "passed: 3 frames (1)" in done.out and done.err == ""


@pytest.mark.parametrize(
    ("given", "said"),
    (
        ({"target": "tflite"}, "target=tflite is unknown: use one of bits, litert, onnx, openvino"),
        ({"target": ""}, "target has no value"),
        ({"out": "b.xml"}, "ends in .onnx"),
        ({"size": "512"}, "WIDTHxHEIGHT"),
        ({"size": "0x64"}, "WIDTHxHEIGHT"),
        ({"size": "8x8"}, "16 pixels or more"),
        ({"downsample_ratio": "2"}, "downsample_ratio=2 is out of range: use 1 at most"),
        ({"dynamic": "maybe"}, "neither true nor false"),
        ({"checkpoint": "nowhere"}, "nowhere"),
        ({"colour": "red"}, "colour is unknown: use one of checkpoint"),
        ({}, "is there already: add overwrite=true"),
    ),
)
def test_bad_values(place: Workplace, run: Path, exported: Path, given: dict[str, str], said: str) -> None:
    values = {"checkpoint": str(run), "target": "onnx", "out": str(exported), **given}
    if "checkpoint" in given:
        values["out"] = str(place.root / "never.onnx")
    assert said in place.run("export", *(f"{key}={value}" for key, value in values.items())).line()
    assert not (place.root / "never.onnx").exists()


def test_bad_files(place: Workplace, run: Path, exported: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    shutil.copy(exported, damaged)
    damaged.write_bytes(damaged.read_bytes()[:100_000])
    assert "damaged.onnx" in verify(place, run, damaged).line()
    assert "missing" in verify(place, run, tmp_path / "none.onnx").line()
    assert "neither .bits nor " in verify(place, run, run).line()
    for none in ("frames=0", "clips=0"):
        assert none in place.run("export", "verify", f"checkpoint={run}", f"file={exported}", none).line()
    assert "com" in verify(place, run, exported, f"clip={tmp_path}").line()


def test_a_name_of_no_target_is_told_the_suffixes_of_all() -> None:
    suffixes = [TARGETS[name].suffix for name in TARGETS.names()]  # other tests register targets of their own
    assert suffixes[:5] == [".bits", ".tflite", ".onnx", ".xml", ".trt.onnx"]
    with pytest.raises(ConfigError) as caught:
        api.export("fp32", "a.engine")
    assert f"use a name that ends in {' or '.join(suffixes)}, or give target=" in str(caught.value)
