from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.benchmark import BASELINE, Contender, Measurement, Setting, Spread
from ptq4vm.report.benchmark import benchmark_table, write_benchmark

SETTING = Setting((288, 512), 1.0)


def never() -> MattingEngine:
    raise AssertionError


def rows(folder: Path) -> list[Measurement]:
    (folder / "a.onnx").write_bytes(bytes(1_250_000))
    quick = Contender("ONNX Runtime a.onnx", never, files=(folder / "a.onnx",), metadata={"bits": "w8a8"})
    return [
        Measurement(Contender(BASELINE, never), Spread(80.0, 75.0, 99.0, 100), 300_000_000, 7.801),
        Measurement(quick, Spread(32.0, 31.0, 33.0, 100), None, 7.9, (70, 78)),
    ]


def test_files(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "out", {"machine": "M", "threads": 2}, "ROOT", {SETTING: rows(tmp_path)})
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert text.startswith("machine: M, threads: 2\n\n512x288, downsample ratio 1, MAD on ROOT\n\n| engine |")
    assert "| PyTorch FP32 | 80.0 | 75.0-99.0 | 1.00 | 7.801 | 300.0 |  |  |" in text
    assert "| ONNX Runtime a.onnx | 32.0 | 31.0-33.0 | 2.50 | 7.900 |  | 1.2 | 70 of 78 |" in text
    stored = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert stored["machine"] == "M" and stored["clips"] == "ROOT"
    (size,) = stored["sizes"]
    assert size["size"] == "512x288" and size["downsample_ratio"] == 1
    first, second = size["engines"]
    assert first["times_faster"] == 1 and second["times_faster"] == 2.5 and second["metadata"] == {"bits": "w8a8"}
    assert second["milliseconds"] == {"median": 32.0, "p5": 31.0, "p95": 33.0, "frames": 100}
    assert second["integer_convolutions"] == [70, 78] and first["peak_memory_bytes"] == 300_000_000


def test_table_without_baseline(tmp_path: Path) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(benchmark_table(SETTING, rows(tmp_path)[1:]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "frames of a drawn clip" in text and "32.0" in text and "2.50" not in text
