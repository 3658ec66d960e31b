"""``metrics.json`` and ``frames.csv``: what a run or an evaluation measured."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.io import parse_json, write_json, write_text
from ptq4vm.metrics.table import METRICS, required_metrics

Stages = Mapping[str, EvaluationResult]
"""Stage name (``fp32``, ``rtn``, ``biq``, ``gac``) to its result, in the order of the table's rows."""


@dataclass(frozen=True)
class MetricsReport:
    """What ``metrics.json`` holds.

    Attributes:
        final: Result of the network that the run left behind.
        stages: Result of every stage, in order.
    """

    final: EvaluationResult
    stages: dict[str, EvaluationResult]


def write_metrics_json(path: Path | str, stages: Stages, final: str | None = None) -> None:
    """Write the metrics of all stages as ``metrics.json``.

    It holds ``{"mean": {metric: value}, "clips": {clip: {metric: value}}, "stages": {stage: {metric: value, ...,
    "mean": ..., "clips": ...}}}``: ``mean`` and ``clips`` on top are those of the final network, and every stage gives
    its means both directly and under ``mean``.

    Args:
        path: The file to write.
        stages: Results of each stage by its name, in order; at least one.
        final: Stage of the final network; the last one when not given.

    Raises:
        ConfigError: There is no stage, or none of the name ``final``.
        SaveError: The file cannot be written.
        ValueError: A value is not finite.
    """
    if not stages:
        raise ConfigError(f"there is no result to write to {path}")
    name = final if final is not None else list(stages)[-1]
    if name not in stages:
        raise ConfigError(f"there is no result of stage {name}; there are: {', '.join(stages)}")
    entries = {
        stage: {**_ordered(result.mean), "mean": _ordered(result.mean), "clips": _clips(result)}
        for stage, result in stages.items()
    }
    write_json(path, {"mean": _ordered(stages[name].mean), "clips": _clips(stages[name]), "stages": entries})


def write_frames_csv(path: Path | str, stages: Stages) -> None:
    """Write ``frames.csv``: a line for every frame of every stage, with the columns stage, clip, frame, and metrics.

    A metric that a clip does not have is left empty. Stages of which only means are known have no lines.

    Raises:
        SaveError: The file cannot be written.
    """
    names = [name for name in METRICS if any(name in result.mean for result in stages.values())]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["stage", "clip", "frame", *names])
    for stage, result in stages.items():
        for clip, values in result.frames.items():
            columns = [values.get(name) for name in names]
            for index in range(len(next(iter(values.values())))):
                table.writerow([stage, clip, index, *("" if c is None else repr(c[index]) for c in columns)])
    write_text(path, text.getvalue())


def read_metrics_json(path: Path | str) -> MetricsReport:
    """Read and check what :func:`write_metrics_json` wrote; per-frame values are not stored, so they are empty.

    Raises:
        CheckpointError: The file is missing, is not JSON, or lacks a part; the message names the file and the part.
    """
    path = Path(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"), finite=False)  # told by its key below
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read metrics from {path}: {error}; run quantize or evaluate again") from error
    final = _result(content, path, "")
    stages = _mapping(content.get("stages"), path, "stages")
    return MetricsReport(final, {name: _result(entry, path, f"stages.{name}.") for name, entry in stages.items()})


def _ordered(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(metrics[name]) for name in METRICS if name in metrics}


def _clips(result: EvaluationResult) -> dict[str, dict[str, float]]:
    return {clip: _ordered(metrics) for clip, metrics in result.clips.items()}


def _result(entry: Any, path: Path, where: str) -> EvaluationResult:
    entry = _mapping(entry, path, where.rstrip(".") or "the file")
    clips = _mapping(entry.get("clips"), path, f"{where}clips")
    return EvaluationResult(
        _metrics(entry.get("mean"), path, f"{where}mean"),
        {clip: _metrics(values, path, f"{where}clips.{clip}") for clip, values in clips.items()},
        {},
    )


def _metrics(entry: Any, path: Path, where: str) -> dict[str, float]:
    values = _mapping(entry, path, where)
    required = required_metrics(values)
    names = [name for name in METRICS if name in required or name in values]
    for name in names:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"{path} has no number at {where}.{name}; run quantize or evaluate again")
    return {name: float(values[name]) for name in names}


def _mapping(entry: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path} has no mapping at {where}; run quantize or evaluate again")
    return entry
