"""A report's tables and figures as the page's template and scripts want them: texts, numbers to sort by, plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptq4vm.metrics import METRIC_NAMES, METRICS
from ptq4vm.report.columns import PAGE_COLUMNS, ResultColumn
from ptq4vm.report.exports import signed, spread_text
from ptq4vm.report.groups import Group, Reference, SeedSpread, best_marks
from ptq4vm.report.tables import stage_title
from ptq4vm.runs.reading import REFERENCE, Run

NONE = "–"


@dataclass(frozen=True)
class Heading:
    """Heading of a table's column: a title, a fainter second line, and whether it holds numbers."""

    title: str
    note: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a fainter second line, what it is sorted by (``None`` goes last), and its marks."""

    text: str
    sort: float | str | None = None
    note: str = ""
    best: bool = False
    link: str = ""


@dataclass(frozen=True)
class SortableTable:
    """Columns, rows that stay on top, and rows to sort."""

    caption: str
    columns: Sequence[Heading]
    pinned: Sequence[Sequence[Cell]]
    rows: Sequence[Sequence[Cell]]
    breaks: frozenset[int]
    """Rows that begin another bit-width, in the first order."""


def results_table(
    caption: str,
    groups: Sequence[Group],
    floats: Sequence[Reference],
    anchors: Mapping[Path, str],
    seeds: bool,
) -> SortableTable:
    """The table of the results.

    Args:
        caption: The table's name, for readers who do not see the heading above it.
        groups: The groups, in the order that the table begins with.
        floats: The float networks, which stay on top.
        anchors: Run folder to the id of its own part of the page.
        seeds: Whether a row stands for several seeds: it says how many, instead of which.
    """
    columns = [
        Heading("Method", numeric=False),
        Heading("Bits", numeric=False),
        Heading("Seeds" if seeds else "Seed"),
        *(Heading(column.title, column.note) for column in PAGE_COLUMNS),
    ]
    pinned = []
    for base in floats:
        name = "Float network" if len(floats) == 1 else ", ".join(filter(None, (base.model, base.data)))
        values = [_number(column.float_number(base), column.decimals) for column in PAGE_COLUMNS]
        pinned.append([Cell(name), Cell("FP32"), Cell(NONE), *values])
    marks = best_marks(groups)
    rows = []
    for index, group in enumerate(groups):
        first = group.runs[0]
        link = anchors.get(first.folder, "")
        bits = 100.0 * (first.weight_bits or 0) + (first.activation_bits or 0)
        seed = float(len(group.runs)) if seeds else first.seed
        rows.append(
            [
                Cell(group.label, group.label, group.bits, link=link),
                Cell(group.bits or NONE, bits),
                Cell(NONE if seed is None else f"{seed:.0f}", seed),
                *(_value(column, group, index in marks.get(column.metric, ())) for column in PAGE_COLUMNS),
            ]
        )
    breaks = frozenset(i for i in range(1, len(groups)) if groups[i].bits != groups[i - 1].bits)
    return SortableTable(caption, columns, pinned, rows, breaks)


def _value(column: ResultColumn, group: Group, best: bool) -> Cell:
    spread = column.spread(group)
    mean = spread.mean if spread else None
    if not column.metric:
        return _number(mean, column.decimals)
    delta = group.delta(column.metric)
    return Cell(spread_text(spread, column.decimals) or NONE, mean, signed(delta.mean) if delta else "", best)


def _number(value: float | None, digits: int) -> Cell:
    return Cell(NONE if value is None else f"{value:,.{digits}f}", value)


STAGE_COLUMNS = ("FP32", "Round to nearest", "Reconstruction", "GAC / OFA")


@dataclass(frozen=True)
class StageCell:
    """The errors of a stage: metric to text, and the stage's name where the heading does not say it."""

    texts: Mapping[str, str]
    note: str = ""


def stage_rows(groups: Sequence[Group]) -> list[tuple[Group, list[StageCell]]]:
    """Each group with the errors of every stage of :data:`STAGE_COLUMNS`."""
    return [(group, [_stage_cell(group, index) for index in range(len(STAGE_COLUMNS))]) for group in groups]


def _stage_cell(group: Group, column: int) -> StageCell:
    named = {_slot(stage): stage for run in group.runs for stage in run.stages}
    stage = named.get(column)
    if stage is None:
        return StageCell(dict.fromkeys(METRIC_NAMES, NONE))

    def value(name: str) -> Callable[[Run], float | None]:
        return lambda run: run.stages.get(stage, {}).get(name)

    texts = {name: spread_text(group.spread(value(name))) for name in METRIC_NAMES}
    return StageCell(texts, stage_title(stage) if column == 2 else "")


def _slot(stage: str) -> int:
    return {REFERENCE: 0, "rtn": 1, "gac": 3}.get(stage, 2)


@dataclass(frozen=True)
class StageRow:
    """The row of a stage in a run's own table, as texts."""

    title: str
    metrics: Sequence[str]
    steps: str
    seconds: str


def run_stages(run: Run) -> list[StageRow]:
    """The stages of one run, with their steps and seconds."""
    return [
        StageRow(
            stage_title(stage),
            [METRICS[name].text(metrics.get(name)) or NONE for name in METRIC_NAMES],
            f"{run.steps[stage]:,}" if stage in run.steps else NONE,
            f"{run.stage_seconds[stage]:,.0f}" if stage in run.stage_seconds else NONE,
        )
        for stage, metrics in run.stages.items()
    ]


def facts(run: Run) -> dict[str, str]:
    """The facts that a run's own part of the page lists beside its command: name to text."""
    named = {
        "Folder": str(run.folder),
        "Model": run.model,
        "Method": run.method,
        "Stages": ", ".join(map(stage_title, run.planned)),
        "Preset": run.preset,
        "Data": run.data,
        "Flow": run.flow,
        "Seed": "" if run.seed is None else str(run.seed),
        "Other choices": ", ".join(f"{key}={value}" for key, value in run.choices.items()),
        "Seconds": _seconds(run),
        "Machine": run.machine,
        "ptq4vm": run.version,
    }
    return {key: value for key, value in named.items() if value}


def _seconds(run: Run) -> str:
    if run.seconds is None:
        return ""
    total = "" if run.total_seconds is None else f", {run.total_seconds:,.0f} with evaluation"
    return f"{run.seconds:,.0f} of quantization{total}"


def scatter_data(groups: Sequence[Group], floats: Sequence[Reference]) -> dict[str, Any]:
    """Points of the error plots: one for each group; and the lines of the float networks."""
    points = []
    for group in groups:
        values = {name: spread for name in METRIC_NAMES if (spread := group.metric(name))}
        seconds = group.spread(lambda run: run.seconds)
        points.append(
            {
                "label": group.label,
                "bits": group.bits,
                "n": len(group.runs),
                "megabytes": None if (stored := group.cost("stored_bytes")) is None else stored / 1e6,
                "seconds": seconds.mean if seconds else None,
                "mean": {name: _short(spread.mean) for name, spread in values.items()},
                "deviation": {name: _short(spread.deviation) for name, spread in values.items()},
            }
        )
    lines = [
        {
            "label": " ".join(filter(None, ("FP32", base.model if len(floats) > 1 else ""))),
            "metrics": {name: _short(value) for name, value in base.metrics.items()},
        }
        for base in floats
    ]
    return {"points": points, "lines": lines}


def heat_data(groups: Sequence[Group]) -> dict[str, Any] | None:
    """Relative error of every layer (rows, in network order) in every group (columns): log10 of the geometric mean.

    Beside it the bits of the layer's weights, those of the group's first run; groups with a budget are ``mixed``.

    ``None`` when no run has noted errors. ``None`` in a cell where a group has none for a layer, or it is 0.
    """
    shown = [group for group in groups if any(run.layers for run in group.runs)]
    layers = list(dict.fromkeys(layer for group in shown for run in group.runs for layer in run.layers))
    if not layers:
        return None
    rows = [[_log_error(group, layer) for group in shown] for layer in layers]
    bits = [group.runs[0].layer_bits for group in shown]
    return {
        "layers": layers,
        "columns": [f"{group.bits} {group.label}" for group in shown],
        "values": rows,
        "bits": [[known.get(layer) for known in bits] for layer in layers],
        "mixed": [any(key.startswith("budget.") for key in group.runs[0].choices) for group in shown],
    }


def _log_error(group: Group, layer: str) -> float | None:
    found = SeedSpread.of(math.log10(v) for run in group.runs if (v := run.layers.get(layer, 0.0)) > 0)
    return _short(found.mean) if found else None


def _short(value: float) -> float:
    """Five digits: enough to draw, and half the page."""
    return float(f"{value:.5g}")
