"""Small run folders for tests of reports, as `ptq4vm quantize` leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.metrics import METRIC_NAMES
from ptq4vm.runs.metrics import write_metrics_json

CLIPS = ("set/a", "b")
FP32 = 4.0


def result(error: float) -> EvaluationResult:
    """All metrics from one number: MAD is ``error``, the others follow it."""
    metrics = {name: error * (index + 1) / (index + 1 + index % 2) for index, name in enumerate(METRIC_NAMES)}
    return EvaluationResult(metrics, {clip: metrics for clip in CLIPS}, {})


def write_run(
    root: Path,
    width: str = "w4a4",
    method: str = "brecq",
    seed: int | None = 0,
    mad: float = 6.0,
    fp32: float = FP32,
    **card: Any,
) -> Path:
    """A finished run of three stages in ``root/bits=...,method=...,seed=...``; ``card`` changes its ``run.json``."""
    name = f"bits={width},method={method},seed={seed}"
    folder = root / name
    weight, activation = int(width[1]), int(width[3])
    values = {
        "status": "finished",
        "error": None,
        "command": f"ptq4vm quantize bits={width} method={method} seed={seed}",
        "name": name,
        "model": "rvm_mobilenetv3",
        "method": method,
        "stages": [method],
        "bits": {"weight": weight, "activation": activation},
        "seed": seed,
        "preset": "quick",
        "data": "videomatte",
        "flow": None,
        "choices": {},
        "steps": {method: 40},
        "cost": _cost(weight, activation),
        "machine": "2 cores",
        "version": "0.1.0",
    }
    write_json(folder / "run.json", values | card)
    if card.get("status", "finished") != "finished":
        return folder
    stages = {"fp32": result(fp32), "rtn": result(mad * 3), method: result(mad)}
    write_metrics_json(folder / "metrics.json", stages)
    seconds = {"evaluate_fp32": 1.0, "rtn": 2.0, method: 30.0 + (seed or 0), f"evaluate_{method}": 1.5}
    write_json(folder / "timing.json", {"stages": seconds, "blocks": {}, "total": sum(seconds.values())})
    write_json(folder / "layers.json", {"layers": {"conv1": 0.001 * mad, "conv2": 0.02 * mad, "skipped": 0.0}})
    write_log(folder, method, {"aspp": [3.0, 2.0, 1.0], "head": [0.5, 0.4]})
    return folder


def _cost(weight: int, activation: int) -> dict[str, float]:
    paper_mb = 28.8 / (32 / weight + 32 / activation)
    return {"gmacs": 4.5, "bops": 4.5e9 * weight * activation, "stored_bytes": 5e5 * weight, "paper_mb": paper_mb}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_log(folder: Path, stage: str, series: Mapping[str, list[float]], first: int = 0, part: str = "") -> None:
    """``logs/<stage><part>/metrics.csv`` of series one after the other, as Lightning's CSVLogger writes them."""
    names = [f"{stage}/{name}" for name in series]
    lines = [",".join([*sorted(names), "epoch", "step"])]
    step = first
    for name, values in zip(names, series.values(), strict=True):
        for value in values:
            lines.append(",".join([*(str(value) if other == name else "" for other in sorted(names)), "0", str(step)]))
            step += 1
    path = folder / "logs" / f"{stage}{part}" / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_stills(folder: Path, clip: str = "set/a", shade: int = 200, size: tuple[int, int] = (64, 36)) -> None:
    """``sheets/<clip>/*.jpg`` and the contact sheet beside them."""
    stills = folder / "sheets" / clip.replace("/", "__")
    stills.mkdir(parents=True)
    for index, part in enumerate(("input", "truth", "fp32", "quantized")):
        plane = np.full(size[::-1], shade if part == "quantized" else 40 * index, dtype=np.uint8)
        Image.fromarray(plane).save(stills / f"{part}.jpg")
    write_sheet(folder, clip)


def write_sheet(folder: Path, clip: str = "set/a", size: tuple[int, int] = (200, 80)) -> Path:
    """A contact sheet alone, as runs of old left it."""
    path = folder / "sheets" / f"{clip.replace('/', '__')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "#336699").save(path)
    return path
