"""``ptq4vm export explain`` and ``ptq4vm.explain``: the table, its files, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ptq4vm
from commands import Done, Workplace, draw_folder_clip
from deploy_runs import spec, write_run

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

FEW = ("frames=2", "warm_up=1", "threads=1")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A quantized network for both engines, and one for any size."""
    root = tmp_path_factory.mktemp("explain")
    run = write_run(root / "run", spec("w8a8", placement="engine"))
    found = {name: root / name for name in ("a.onnx", "a.xml", "any.onnx")}
    for name, file in found.items():
        ptq4vm.export(run, file, size=(64, 96), dynamic=name == "any.onnx")
    return found


def explain(workplace: Workplace, *arguments: str) -> Done:
    return workplace.run("export", "explain", *arguments)


@pytest.mark.parametrize(("name", "engine"), [("a.onnx", "ONNX Runtime"), ("a.xml", "OpenVINO")])
def test_a_table_and_its_files(
    workplace: Workplace, files: dict[str, Path], tmp_path: Path, name: str, engine: str
) -> None:
    done = explain(workplace, str(files[name]), "rows=3", f"out={tmp_path / 'out'}", *FEW)
    assert done.status == 0 and done.err == "", done.err
    flat = " ".join(done.out.split())
    assert f"{name} in {engine}, 96x64, threads: 1, CPU with" in flat and " more " in flat
    assert "GMAC" in flat and "a whole frame took" in flat and f"written to {tmp_path / 'out'}" in flat
    stored = json.loads((tmp_path / "out" / "explain.json").read_text())
    operations, sums = stored["operations"], stored["totals"]
    spent = [each["milliseconds"] for each in operations]
    assert spent == sorted(spent, reverse=True) and sum(spent) == pytest.approx(sums["milliseconds"])
    assert sum(each["share"] for each in operations) == pytest.approx(1)
    inside = sum(each["milliseconds"] for each in operations if each["integers"])
    assert sums["integer_time"] == pytest.approx(inside / sums["milliseconds"])
    assert all(each["integers"] is not bool(each["reason"]) for each in operations)
    assert stored["engine"] == engine and stored["frames"] == 2 and stored["threads"] == 1
    page = (tmp_path / "out" / "explain.md").read_text()
    assert page.count("\n| ") > len(operations) and "| operation | kind | type | ms | share | MMAC |" in page


def test_another_engine_and_size_and_clip(workplace: Workplace, files: dict[str, Path], tmp_path: Path) -> None:
    draw_folder_clip(tmp_path / "clip", 0, frames=3)
    done = explain(workplace, f"file={files['a.onnx']}", "engine=openvino", f"clip={tmp_path / 'clip'}", *FEW)
    assert done.status == 0 and "a.onnx in OpenVINO, 96x64" in done.out, done.err
    done = explain(workplace, str(files["any.onnx"]), "size=64x48", "rows=null", *FEW)
    assert done.status == 0 and "any.onnx in ONNX Runtime, 64x48" in done.out and " more " not in done.out, done.err


def test_from_python_without_pytorch(files: dict[str, Path]) -> None:
    found = ptq4vm.explain(files["a.xml"], frames=2, warm_up=0, threads=1)
    assert found.frames == 2 and found.costs.by_cost()[0].milliseconds > 0
    code = "import sys, ptq4vm; ptq4vm.explain(sys.argv[1], frames=1, warm_up=0); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(files["a.onnx"])], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("given", "said"),
    (
        ({"file": "a.pt"}, "a.pt is neither .bits nor "),
        ({"file": "none.onnx"}, "none.onnx is missing"),
        ({"frames": "0"}, "frames=0 is none: use 1 or more"),
        ({"warm_up": "-1"}, "warm_up=-1: use 0 or more"),
        ({"rows": "0"}, "rows=0 is none: use 1 or more, or null for all"),
        ({"threads": "0"}, "threads=0: use 1 or more"),
        ({"size": "64x48"}, "takes frames of 96x64: leave size out"),
        ({"size": "64"}, "size=64: write WIDTHxHEIGHT"),
        ({"engine": "bits"}, "engine=bits does not open"),
        ({"engine": "tpu"}, "tpu"),
        ({"clip": "nowhere"}, "nowhere"),
        ({"colour": "red"}, "colour is unknown: use one of file"),
    ),
)
def test_bad_values(workplace: Workplace, files: dict[str, Path], given: dict[str, str], said: str) -> None:
    values = {"file": str(files["a.onnx"]), "frames": "1", **given}
    assert said in explain(workplace, *(f"{key}={value}" for key, value in values.items())).line()


def test_out_must_be_a_folder(workplace: Workplace, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        "is a file, and a folder is needed"
        in explain(workplace, str(files["a.onnx"]), f"out={tmp_path / 'file'}").line()
    )
