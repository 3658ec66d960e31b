"""What ``ptq4vm benchmark`` measured, for the terminal and as ``benchmark.json`` and ``benchmark.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ptq4vm.engines.benchmark import BASELINE, Measurement, Setting
from ptq4vm.io import write_json, write_text
from ptq4vm.metrics import METRICS

Results = Mapping[Setting, Sequence[Measurement]]
"""Size to what was measured there, in the order of the rows."""

JSON = "benchmark.json"
MARKDOWN = "benchmark.md"

CellText = Callable[[Measurement, Measurement | None], str]
"""A cell's text, from a row's measurement and that of PyTorch; empty where something was not measured."""


def _mega(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.1f}"


COLUMNS: dict[str, CellText] = {
    "engine": lambda row, base: row.contender.name,
    "ms/frame": lambda row, base: f"{row.time.median:.1f}",
    "5%-95%": lambda row, base: f"{row.time.low:.1f}-{row.time.high:.1f}",
    "vs PyTorch": lambda row, base: "" if base is None else f"{row.times_faster(base):.2f}",
    METRICS["mad"].title: lambda row, base: "" if row.mad is None else f"{row.mad:.3f}",
    "peak MB": lambda row, base: _mega(row.memory),
    "file MB": lambda row, base: _mega(row.file_bytes),
    "int8 conv.": lambda row, base: "" if row.integers is None else f"{row.integers[0]} of {row.integers[1]}",
}
"""Heading of each column to what it shows, for the terminal and for ``benchmark.md``."""


def benchmark_table(setting: Setting, rows: Sequence[Measurement], clips: str | None = None) -> Table:
    """A table of one size for the terminal; ``clips`` is the folder that MAD was measured on."""
    table = Table(
        title=_title(setting, clips), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    cells = _cells(rows)
    # a narrow terminal folds names, not figures, and has no room for what was not measured
    header = list(COLUMNS)
    shown = [index for index in range(len(header)) if any(row[index] for row in cells)]
    table.add_column(header[0], min_width=16, overflow="fold")
    for index in shown[1:]:
        table.add_column(header[index].replace(" ", "\n"), justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*(row[index] for index in shown))
    return table


def write_benchmark(folder: Path, facts: Mapping[str, Any], clips: str | None, results: Results) -> None:
    """Write ``benchmark.json`` and ``benchmark.md``.

    Args:
        folder: The folder of both files, made where it is missing.
        facts: Name to value of what the figures depend on: machine, versions, threads.
        clips: Folder that MAD was measured on; ``None`` for drawn frames.
        results: The measurements of every size.

    Raises:
        SaveError: A file cannot be written.
    """
    sizes = []
    for setting, rows in results.items():
        baseline = _baseline(rows)
        height, width = setting.size
        engines = [_record(row, baseline) for row in rows]
        sizes.append({"size": f"{width}x{height}", "downsample_ratio": setting.ratio, "engines": engines})
    write_json(folder / JSON, {**facts, "clips": clips, "sizes": sizes})
    parts = [", ".join(f"{key}: {value}" for key, value in facts.items())]
    for setting, rows in results.items():
        lines = [list(COLUMNS), [":--", *["--:"] * (len(COLUMNS) - 1)], *_cells(rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"{_title(setting, clips)}\n\n{table}")
    write_text(folder / MARKDOWN, "\n\n".join(parts) + "\n")


def _baseline(rows: Sequence[Measurement]) -> Measurement | None:
    return next((row for row in rows if row.contender.name == BASELINE), None)


def _title(setting: Setting, clips: str | None) -> str:
    on = "frames of a drawn clip" if clips is None else f"MAD on {clips}"
    return f"{setting.size[1]}x{setting.size[0]}, downsample ratio {setting.ratio:g}, {on}"


def _cells(rows: Sequence[Measurement]) -> list[list[str]]:
    baseline = _baseline(rows)
    return [[text(row, baseline) for text in COLUMNS.values()] for row in rows]


def _record(row: Measurement, baseline: Measurement | None) -> dict[str, Any]:
    time = row.time
    return {
        "name": row.contender.name,
        "files": [str(file) for file in row.contender.files],
        "metadata": dict(row.contender.metadata),
        "milliseconds": {"median": time.median, "p5": time.low, "p95": time.high, "frames": time.count},
        "times_faster": None if baseline is None else row.times_faster(baseline),
        "mad": row.mad,
        "peak_memory_bytes": row.memory,
        "file_bytes": row.file_bytes,
        "integer_convolutions": row.integers,
    }
