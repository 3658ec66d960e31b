"""Exported files from Python: export, verify, open_engine, matte, benchmark."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ptq4vm
from commands import SIZE, Workplace, draw_folder_clip, files
from deploy_runs import spec, write_run
from ptq4vm.engines.benchmark import Setting
from ptq4vm.errors import ConfigError, DataError, ExportError, SaveError

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the clips that it was evaluated on, and what it was exported to."""
    root = tmp_path_factory.mktemp("engines")
    draw_folder_clip(root / "clips" / "a", 0)
    run = write_run(root / "run", spec("w8a8"), root / "clips")
    assert ptq4vm.export(run, root / "a.onnx", size=SIZE) == root / "a.onnx"
    return root


def test_export_is_a_function_and_a_package(place: Path) -> None:
    import ptq4vm.exporting.trace

    assert callable(ptq4vm.export) and callable(ptq4vm.api.export) and ptq4vm.exporting.trace.FrameShape(*SIZE)
    with pytest.raises(SaveError, match="is there already"):
        ptq4vm.export(place / "run", place / "a.onnx", size=SIZE)


def test_the_suffix_says_the_target(place: Path, tmp_path: Path) -> None:
    again = ptq4vm.export(place / "run", str(tmp_path / "b.onnx"), size=SIZE, target="onnx")
    assert again.read_bytes() == (place / "a.onnx").read_bytes()
    with pytest.raises(ConfigError, match=r"b\.pte: use a name that ends in \.bits or "):
        ptq4vm.export(place / "run", tmp_path / "b.pte")
    with pytest.raises(ConfigError, match=r"target=openvino needs a name that ends in \.xml"):
        ptq4vm.export(place / "run", tmp_path / "b.onnx", target="openvino", overwrite=True)
    with pytest.raises(ConfigError, match="16 pixels or more"):
        ptq4vm.export(place / "run", tmp_path / "c.onnx", size=(8, 8))
    assert files(tmp_path) == {"b.onnx"}


def test_verify(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    parity = ptq4vm.verify(place / "run", place / "a.onnx", frames=2, threads=1)
    assert parity.passed and parity.frames == 2 and parity.clips == ("a",) and not caplog.records
    with pytest.raises(ExportError, match=r"a\.onnx is of rvm_mobilenetv3 w8a8, .* of rvm_mobilenetv3 w2a2"):
        ptq4vm.verify(write_run(place / "coarse", spec("w2a2")), place / "a.onnx", frames=2, threads=1)
    other = write_run(place / "other", spec("w8a8", "tensor"))
    ptq4vm.verify(other, place / "a.onnx", frames=2, threads=1)
    assert "does not say that it was exported from" in caplog.text and "give clip=DIR" in caplog.text
    with pytest.raises(ConfigError, match="frames=0 is none"):
        ptq4vm.verify(place / "run", place / "a.onnx", frames=0)
    with pytest.raises(ExportError, match=r"none\.onnx is missing"):
        ptq4vm.verify(place / "run", place / "none.onnx")


def test_open_engine(place: Path, workplace: Workplace) -> None:
    frame = np.array(Image.open(place / "clips" / "a" / "com" / "0000.png"))
    exported = ptq4vm.open_engine(place / "a.onnx", threads=1).matte(frame)
    quantized = ptq4vm.open_engine(place / "run").matte(frame)
    assert exported.alpha.shape == SIZE and exported.foreground.shape == (*SIZE, 3)
    assert np.abs(exported.alpha - quantized.alpha).mean() < 2 / 255
    floating = ptq4vm.open_engine(weights=workplace.weights).matte(frame)
    assert floating.alpha.shape == SIZE and not np.array_equal(floating.alpha, quantized.alpha)
    for wrong in ({"engine": "onnx"}, {"engine": "tensorrt"}, {"threads": 0}, {"downsample_ratio": 2.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ptq4vm.open_engine(place / "run", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="was chosen when"):
        ptq4vm.open_engine(place / "a.onnx", downsample_ratio=0.5)


def test_matte(place: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    stop = threading.Event()

    def on_frame(done: int, total: int | None) -> None:
        seen.append((done, total))
        if done == 2:
            stop.set()

    source = place / "clips" / "a" / "com"
    chosen = {"checkpoint": place / "a.onnx", "output": "alpha"}
    result = ptq4vm.matte(source, tmp_path / "out", **chosen, frames=4, on_frame=on_frame, stop=stop)  # type: ignore[arg-type]
    assert (result.out, result.frames, result.stopped) == (tmp_path / "out", 2, True) and result.seconds > 0
    assert seen == [(1, 4), (2, 4)] and len(files(tmp_path / "out")) == 3
    result = ptq4vm.matte(str(source), str(tmp_path / "out"), **chosen)  # type: ignore[arg-type]
    assert result.frames == 6 and not result.stopped and len(files(tmp_path / "out")) == 7
    with pytest.raises(ConfigError, match="output=mask is unknown"):
        ptq4vm.matte(source, tmp_path / "mask", output="mask")


def test_what_came_before_an_error_is_kept(place: Path, tmp_path: Path) -> None:
    draw_folder_clip(tmp_path / "clip", 0, frames=4)
    damaged = tmp_path / "clip" / "com" / "0002.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"0002\.png .*; 2 frames before it are in .*out$"):
        ptq4vm.matte(tmp_path / "clip" / "com", tmp_path / "out", checkpoint=place / "a.onnx")
    assert files(tmp_path / "out") == {".matte.json", "0000.png", "0001.png"}


def test_benchmark(place: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int]] = []
    results = ptq4vm.benchmark(
        [place / "a.onnx"],
        checkpoint=None,
        sizes=[Setting(SIZE, 1.0)],
        clips=place / "clips",
        threads=1,
        rounds=2,
        burst=1,
        warm_up=0,
        memory=False,
        out=tmp_path / "out",
        on_step=lambda what, total: steps.append((what, total)),
    )
    ((setting, (row,)),) = results.items()
    assert str(setting) == "96x64" and row.contender.name == "ONNX Runtime a.onnx"
    assert row.time.count == 2 and row.mad is not None and row.memory is None
    assert steps == [(f"96x64 {what}", 5) for what in ("memory", "time", "time", "time", "MAD")]
    assert files(tmp_path / "out") == {"benchmark.json", "benchmark.md"}
    with pytest.raises(ConfigError, match="nothing to benchmark"):
        ptq4vm.benchmark(checkpoint=())
