"""A report's tables for other programs: ``results.csv`` a row a run, ``results.md``, a row a group of seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ptq4vm.report.columns import COLUMNS, MARKDOWN_COLUMNS, ResultColumn
from ptq4vm.report.groups import Group, Reference, SeedSpread, best_marks
from ptq4vm.runs.reading import Run

CSV_COLUMNS = tuple(column.name for column in COLUMNS)
"""Headings of ``results.csv``."""


def results_csv(runs: Sequence[Run]) -> str:
    """The CSV text: one row for each run, whatever its status; empty where a value is not known."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([column.of(run) for column in COLUMNS] for run in runs)
    return text.getvalue()


def results_markdown(title: str, groups: Sequence[Group], floats: Sequence[Reference], runs: Sequence[Run]) -> str:
    """The table in GitHub's Markdown: float networks first, then by bits, the best of each bit-width bold.

    Below it: what failed, did not finish, or could not be read.
    """
    lines = [f"# {_inline(title)}", ""]
    if groups or floats:
        lines += [*_table(groups, floats), "", _LEGEND]
    else:
        lines.append("No run has finished.")
    for heading, items in problems(runs).items():
        lines += ["", f"## {heading}", "", *(f"- {item}" for item in items)]
    return "\n".join(lines) + "\n"


_LEGEND = (
    "Errors as mean ± standard deviation over seeds; lower is better, best of its bits in bold. Δ MAD: to the run's "
    "own FP32 stage. Seconds: of quantization, without evaluation. Stored: weights, scales and 8-bit layers as on "
    "disk. GBOPs: bit operations per frame. Paper: the convention of the PTQ4VM paper."
)


def problems(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Heading to Markdown lines about failed and unfinished runs and files that could not be read."""
    found = {
        "Failed": [
            f"`{run.name}`: {_inline(run.error or 'no error was noted')}" for run in runs if run.status == "failed"
        ],
        "Not finished": [f"`{run.name}` ({run.folder})" for run in runs if run.status == "running"],
        "Could not be read": [_inline(warning) for run in runs for warning in run.warnings],
    }
    return {heading: items for heading, items in found.items() if items}


def _table(groups: Sequence[Group], floats: Sequence[Reference]) -> list[str]:
    header = ["bits", "method", "seeds", *(column.markdown for column in MARKDOWN_COLUMNS)]
    rows = [header, [":--", ":--", *["--:"] * (len(header) - 2)]]
    for base in floats:
        label = "float network" if len(floats) == 1 else ", ".join(filter(None, (base.model, base.data)))
        values = [_number(column, column.float_number(base)) for column in MARKDOWN_COLUMNS]
        rows.append(["FP32", _inline(label), "", *values])
    marks = best_marks(groups)
    for index, group in enumerate(groups):
        values = [_value(column, group, index in marks.get(column.metric, ())) for column in MARKDOWN_COLUMNS]
        rows.append([group.bits, _inline(group.label), str(len(group.runs)), *values])
    return [f"| {' | '.join(row)} |" for row in rows]


def _value(column: ResultColumn, group: Group, best: bool) -> str:
    spread = column.spread(group)
    if column.metric:
        text = spread_text(spread, column.decimals)
        return f"**{text}**" if best else text
    return _number(column, spread.mean if spread else None)


def _number(column: ResultColumn, value: float | None) -> str:
    if value is None:
        return ""
    return signed(value) if column.signed else f"{value:.{column.decimals}f}"


def spread_text(spread: SeedSpread | None, decimals: int = 2) -> str:
    """A text such as ``15.75 ± 0.12``; without the deviation for a single value, empty for none."""
    if spread is None:
        return ""
    mean = f"{spread.mean:.{decimals}f}"
    return f"{mean} ± {spread.deviation:.{decimals}f}" if spread.n > 1 else mean


def signed(value: float) -> str:
    """``+0.12`` or ``−0.12``; never a negative zero."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _inline(text: str) -> str:
    """Text that cannot break out of a table's cell or begin Markdown of its own."""
    for sign in "\\|*_`<[":
        text = text.replace(sign, f"\\{sign}")
    return text
