"""What a command imports: an exported file needs neither torch nor a configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from commands import draw_folder_clip, files
from deploy_media import decode
from deploy_runs import spec, write_run
from ptq4vm.api import export
from sample_runs import write_run as write_sample

HEAVY = ("torch", "pytorch_lightning", "torchmetrics", "kornia", "hydra", "omegaconf")
PROGRAM = f"""
import sys
from ptq4vm.cli.main import main
status = main(sys.argv[1:])
sys.stderr.write(" ".join(["imported:", *(name for name in {HEAVY} if name in sys.modules)]))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.onnx and a.xml for frames of 96x64, of a quantized network of random weights."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("light")
    run = write_run(folder / "run", spec("w8a8"))
    for name in ("a.onnx", "a.xml"):
        assert export(run, folder / name, size=(64, 96)) == folder / name
    return folder


def light(*arguments: str | Path) -> str:
    """Run a command in a process of its own, which must not import anything heavy; gives what it printed."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("imported:"), done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_matting_with_an_exported_file(exported: Path, tmp_path: Path, name: str) -> None:
    draw_folder_clip(tmp_path / "in", 0, frames=3)
    out = tmp_path / "out"
    given = (f"input={tmp_path / 'in' / 'com'}", f"out={out}", f"checkpoint={exported / name}", "frames=2")
    assert light("matte", *given) == f"{out}\n"
    assert files(out) == {".matte.json", "0000.png", "0001.png"}
    with Image.open(out / "0001.png") as image:
        assert image.size == (96, 64)


def test_matting_an_image_to_a_video_over_another(exported: Path, tmp_path: Path) -> None:
    draw_folder_clip(tmp_path / "in", 0, frames=2)
    source, behind = (tmp_path / "in" / "com" / f"000{index}.png" for index in (0, 1))
    out = tmp_path / "out.mp4"
    given = (f"input={source}", f"out={out}", f"background={behind}", f"checkpoint={exported / 'a.onnx'}")
    assert light("matte", *given, "scene_cut=true") == f"{out}\n"
    assert len(decode(out)[0]) == 1


def test_measuring_exported_files(exported: Path) -> None:
    chosen = f"files={exported / 'a.onnx'},{exported / 'a.xml'}"
    few = ("rounds=1", "burst=1", "warm_up=1", "threads=1", "memory=false")
    assert "ONNX" in light("benchmark", chosen, "checkpoint=null", *few)


def test_a_report(tmp_path: Path) -> None:
    write_sample(tmp_path)
    assert light("report", tmp_path, "--out", tmp_path / "out") == f"{tmp_path / 'out' / 'index.html'}\n"


@pytest.mark.parametrize("command", ["", "matte", "benchmark", "export", "export verify", "web"])
def test_help(command: str) -> None:
    assert light(*command.split(), "--help").startswith("usage: ptq4vm")
