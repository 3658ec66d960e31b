"""Loss curves of a run folder, from the CSV files of its training stages."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptq4vm.runs.layout import LOGS

_NO_SERIES = {"epoch", "step", ""}


@dataclass(frozen=True)
class Curve:
    """A logged value over steps.

    Attributes:
        steps: Counted from the curve's own first step, rising.
        values: One for each step.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def thinned(self, limit: int = 120) -> Curve:
        """At most ``limit`` points: the means of equal runs of points, each at its middle step."""
        if len(self.steps) <= limit:
            return self
        edges = [len(self.steps) * index // limit for index in range(limit + 1)]
        parts = list(itertools.pairwise(edges))
        return Curve(
            tuple(self.steps[(start + end - 1) // 2] for start, end in parts),
            tuple(math.fsum(self.values[start:end]) / (end - start) for start, end in parts),
        )


def read_curves(folder: Path) -> tuple[dict[str, Curve], list[str]]:
    """Every curve that a run logged.

    Args:
        folder: A run folder with ``logs/<stage>/metrics.csv``; a stage that was resumed goes on in ``<stage>-2``.

    Returns:
        Name of the series (``biq/decoder.decode0``, ``gac/loss``) to its curve, in the order of their first values,
        and one line for each file that could not be read.
    """
    points: dict[str, dict[int, float]] = {}
    warnings: list[str] = []
    for path in _files(folder):
        try:
            found = _series(path)
        except (OSError, ValueError, csv.Error) as error:  # ValueError: no number, or no UTF-8
            warnings.append(f"cannot read {path}: {' '.join(str(error).split())}")
            continue
        for name, values in found.items():
            first = min(values)
            before = {step: value for step, value in points.get(name, {}).items() if step < first}
            points[name] = before | values  # what was done again counts as done once
    return {name: _curve(values) for name, values in points.items()}, warnings


def _files(folder: Path) -> list[Path]:
    """The CSV files, stages by name and the parts of a resumed stage in their order."""

    def order(path: Path) -> tuple[str, int]:
        stage, _, part = path.parent.name.rpartition("-")
        return (stage, int(part)) if part.isdecimal() and stage else (path.parent.name, 1)

    return sorted((folder / LOGS).glob("*/metrics.csv"), key=order)


def _series(path: Path) -> dict[str, dict[int, float]]:
    """Series to step to value, in the order in which series begin. Raises ValueError, OSError, csv.Error."""
    series: dict[str, dict[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file, strict=True)):
            step = int(float(row.get("step") or index))
            for name, value in _values(row):
                series.setdefault(name, {})[step] = value
    return series


def _values(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        if name is None or name in _NO_SERIES or not text:
            continue
        value = float(text)
        if math.isfinite(value):
            yield name, value


def _curve(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    return Curve(tuple(step - steps[0] for step in steps), tuple(points[step] for step in steps))
