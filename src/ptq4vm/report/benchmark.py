"""What ``ptq4vm benchmark`` measured, for the terminal and as ``benchmark.json`` and ``benchmark.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ptq4vm.engines.benchmark import BASELINE, Measurement, Setting
from ptq4vm.io import write_json, write_text

Results = Mapping[Setting, Sequence[Measurement]]
"""Size to what was measured there, in the order of the rows."""

JSON = "benchmark.json"
MARKDOWN = "benchmark.md"
HEADER = ("engine", "ms/frame", "5%-95%", "vs PyTorch", "MAD", "peak MB", "file MB", "int8 conv.")


def benchmark_table(setting: Setting, rows: Sequence[Measurement], clips: str | None = None) -> Table:
    """A table of one size for the terminal; ``clips`` is the folder that MAD was measured on."""
    table = Table(
        title=_title(setting, clips), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    cells = _cells(rows)
    # a narrow terminal folds names, not figures, and has no room for what was not measured
    shown = [index for index in range(len(HEADER)) if any(row[index] for row in cells)]
    table.add_column(HEADER[0], min_width=16, overflow="fold")
    for index in shown[1:]:
        table.add_column(HEADER[index].replace(" ", "\n"), justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*(row[index] for index in shown))
    return table


def write_benchmark(folder: Path, facts: Mapping[str, Any], clips: str | None, results: Results) -> None:
    """Write both files.

    Args:
        folder: Made where it is missing.
        facts: What the figures depend on: machine, versions, threads.
        clips: Folder that MAD was measured on.
        results: Of every size.

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
        lines = [list(HEADER), [":--", *["--:"] * (len(HEADER) - 1)], *_cells(rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"{_title(setting, clips)}\n\n{table}")
    write_text(folder / MARKDOWN, "\n\n".join(parts) + "\n")


def _baseline(rows: Sequence[Measurement]) -> Measurement | None:
    return next((row for row in rows if row.contender.name == BASELINE), None)


def _title(setting: Setting, clips: str | None) -> str:
    on = "frames of a drawn clip" if clips is None else f"MAD on {clips}"
    return f"{setting.size[1]}x{setting.size[0]}, downsample ratio {setting.ratio:g}, {on}"


def _cells(rows: Sequence[Measurement]) -> list[list[str]]:
    """Text of a table's rows; empty where something was not measured."""
    baseline = _baseline(rows)
    return [
        [
            row.contender.name,
            f"{row.time.median:.1f}",
            f"{row.time.low:.1f}-{row.time.high:.1f}",
            "" if baseline is None else f"{row.times_faster(baseline):.2f}",
            "" if row.mad is None else f"{row.mad:.3f}",
            _mega(row.memory),
            _mega(row.file_bytes),
            "" if row.integers is None else f"{row.integers[0]} of {row.integers[1]}",
        ]
        for row in rows
    ]


def _mega(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.1f}"


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
