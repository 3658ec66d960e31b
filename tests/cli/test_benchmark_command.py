from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from commands import Workplace, draw_folder_clip
from ptq4vm.exporting.verify import open_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

FEW = ("rounds=2", "burst=2", "warm_up=1", "threads=1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("a", "b")):
        draw_folder_clip(root / name, seed, frames=3)
    return root


@pytest.fixture(scope="module")
def exported(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The float network for both engines."""
    folder = tmp_path_factory.mktemp("float")
    files = (folder / "a.onnx", folder / "a.xml")
    for target, file in zip(("onnx", "openvino"), files, strict=True):
        values = (f"target={target}", f"out={file}", "size=96x64", f"weights={workplace.weights}")
        done = workplace.run("export", "checkpoint=fp32", *values)
        assert done.status == 0 and done.err == "", done.err
    return files


@pytest.mark.parametrize("index", (0, 1))
def test_exported_float_networks_are_the_network(workplace: Workplace, exported: tuple[Path, Path], index: int) -> None:
    file = exported[index]
    given = ("checkpoint=fp32", f"file={file}", f"weights={workplace.weights}", "frames=2", "threads=1")
    done = workplace.run("export", "verify", *given)
    assert done.status == 0 and "mean alpha difference 0.000/255" in done.out and done.err == "", done.err
    metadata = open_engine(file, 1).metadata
    assert metadata["bits"] == "fp32" and metadata["size"] == "96x64" and metadata["downsample_ratio"] == "1.0"


def test_all_engines_side_by_side(
    workplace: Workplace, exported: tuple[Path, Path], clips: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    try:
        done = workplace.run(
            "benchmark",
            f"files={exported[0]},{exported[1]}",
            "precision=f32,bf16",
            f"clips={clips}",
            f"weights={workplace.weights}",
            "memory=false",
            f"out={tmp_path / 'out'}",
            *FEW,
        )
    finally:
        torch.set_num_threads(threads)
    assert done.status == 0 and done.err == "", done.err
    stored = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert stored["threads"] == 1 and stored["machine"] and stored["onnxruntime"] and stored["openvino"]
    (size,) = stored["sizes"]
    assert size["size"] == "96x64"
    names = ["PyTorch FP32", "ONNX Runtime a.onnx", "OpenVINO a.xml f32", "OpenVINO a.xml bf16"]
    rows = {row["name"]: row for row in size["engines"]}
    assert list(rows) == names
    baseline = rows["PyTorch FP32"]["milliseconds"]["median"]
    for row in rows.values():
        assert row["milliseconds"]["frames"] == 4
        assert row["times_faster"] == pytest.approx(baseline / row["milliseconds"]["median"])
    assert rows["OpenVINO a.xml f32"]["integer_convolutions"][0] == 0
    evaluated = workplace.run(
        "evaluate", f"model.weights={workplace.weights}", "data=folder", f"data.root={clips}", f"run_dir={tmp_path}/ev"
    )
    assert evaluated.status == 0, evaluated.err
    mad = json.loads((tmp_path / "ev" / "metrics.json").read_text())["mean"]["mad"]
    assert [rows[name]["mad"] for name in names[:3]] == [pytest.approx(mad, rel=1e-4)] * 3
    assert rows["OpenVINO a.xml bf16"]["mad"] == pytest.approx(mad, rel=0.1)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells")
def test_memory_and_sizes_without_pytorch(workplace: Workplace, exported: tuple[Path, Path], tmp_path: Path) -> None:
    given = (f"files={exported[0]}", "checkpoint=null", f"out={tmp_path}")
    done = workplace.run("benchmark", *given, *FEW)
    assert done.status == 0 and "ONNX" in done.out, done.err
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["sizes"][0]["engines"]
    assert 1e6 < row["peak_memory_bytes"] < 1e9 and row["times_faster"] is None and row["mad"] is None


def test_help(workplace: Workplace) -> None:
    done = workplace.run("benchmark", "--help")
    assert done.status == 0 and "precision=f32" in done.out and not done.err


@pytest.mark.parametrize(
    ("given", "said"),
    (
        ({"checkpoint": "null"}, "nothing to benchmark: give files="),
        ({"files": "a.pt"}, "a.pt is neither .bits nor "),
        ({"files": "none.onnx"}, "none.onnx is missing"),
        ({"files": "a.onnx,a.onnx"}, "has a.onnx twice"),
        ({"precision": "int4"}, "precision=int4 is unknown: use f32, bf16"),
        ({"sizes": "512"}, "sizes=512: write WIDTHxHEIGHT"),
        ({"sizes": "8x8"}, "16 pixels or more"),
        ({"sizes": "512x288@2"}, "in (0, 1]"),
        ({"clips": "nowhere"}, "clips=nowhere is no folder"),
        ({"threads": "0"}, "threads=0: use 1 or more"),
        ({"rounds": "0"}, "rounds=0 is none"),
        ({"burst": "many"}, "burst=many is no whole number"),
        ({"memory": "maybe"}, "neither true nor false"),
        ({"checkpoint": "nowhere"}, "nowhere"),
        ({"engine": "onnx"}, "engine is unknown: use one of files"),
    ),
)
def test_bad_values(workplace: Workplace, given: dict[str, str], said: str) -> None:
    line = workplace.run("benchmark", *(f"{key}={value}" for key, value in given.items())).line()
    assert said in line


def test_files_must_fit_the_sizes(workplace: Workplace, exported: tuple[Path, Path], tmp_path: Path) -> None:
    line = workplace.run("benchmark", f"files={exported[0]}", "sizes=512x288,96x64@0.5").line()
    assert "a.onnx is for 96x64, which is not among sizes=512x288,96x64@0.5: add it" in line
    (tmp_path / "file").touch()
    assert "is a file" in workplace.run("benchmark", f"files={exported[0]}", f"out={tmp_path / 'file'}").line()
