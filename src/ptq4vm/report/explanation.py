"""What ``ptq4vm export explain`` found, for the terminal and as ``explain.json`` and ``explain.md``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ptq4vm.engines.costs.operation import Operation
from ptq4vm.engines.explaining import Explanation
from ptq4vm.io import write_json, write_text

JSON, MARKDOWN = "explain.json", "explain.md"
INTEGERS = "integers"
"""What stands for the reason of operations with integers."""
CellText = Callable[[Operation, float], str]
"""A cell's text, from an operation and the milliseconds of all of them."""

COLUMNS: dict[str, CellText] = {
    "operation": lambda each, total: each.name,
    "kind": lambda each, total: each.kind,
    "type": lambda each, total: each.type,
    "kernel": lambda each, total: each.kernel,
    "ms": lambda each, total: f"{each.milliseconds:.3f}",
    "share": lambda each, total: _percent(each.milliseconds / total),
    "MMAC": lambda each, total: "?" if each.macs is None else f"{each.macs / 1e6:.1f}" if each.macs else "",
    "integers, or why not": lambda each, total: each.reason or INTEGERS,
}
"""Heading of each column to what it shows, for the terminal and for ``explain.md``."""
REASONS = ("integers, or why not", "operations", "ms", "share", "MAC")
"""Headings of the table that sums operations up by their reasons."""
_TIMES, _UNTIMED = ("ms", "share"), ("kernel",)
"""Columns that are left out where the engine takes no times, and where it does."""
_LEFT = ("operation", "kind", "type", "kernel", "integers, or why not")


def explanation_table(found: Explanation, rows: int | None = None) -> Table:
    """The operations that cost most.

    Args:
        found: What was found.
        rows: How many of them; all when not given. The others are summed up in one row.
    """
    table = Table(title=_title(found), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = _columns(found)
    for heading in columns:
        left = heading in _LEFT
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    ordered, total = found.costs.by_cost(), _total(found)
    shown = ordered if rows is None else ordered[:rows]
    for each in shown:
        table.add_row(*(text(each, total) for text in columns.values()))
    rest = ordered[len(shown) :]
    if rest:
        spent = sum(each.milliseconds for each in rest)
        sums = {"operation": f"{len(rest)} more", "ms": f"{spent:.3f}", "share": _percent(spent / total)}
        table.add_row(*(sums.get(heading, "") for heading in columns))
    return table


def reasons_table(found: Explanation) -> Table:
    """How many operations run with integers, and how many for which reason do not, with what they take together."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in _headings(found):
        left = heading in _LEFT
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in _reasons(found):
        table.add_row(*row)
    return table


def totals(found: Explanation) -> str:
    """One line of what all operations take, and the integers' share of it."""
    costs = found.costs
    if not costs.timed:
        macs = "products not known" if costs.macs is None else f"{costs.macs / 1e9:.2f} GMAC"
        share, count = _percent(costs.integer_macs or 0), len(costs.operations)
        return f"integers: {share} of {macs} in {count} operations; a whole frame took {costs.frame:.2f} ms"
    macs = "" if not costs.macs else f" of {costs.macs / 1e9:.2f} GMAC {_percent(costs.integer_macs or 0)}"
    return (
        f"integers: {_percent(costs.integer_time)} of {costs.milliseconds:.2f} ms in {len(costs.operations)} "
        f"operations,{macs or ' products not known'}; a whole frame took {costs.frame:.2f} ms"
    )


def write_explanation(folder: Path, found: Explanation) -> None:
    """Write ``explain.json`` and ``explain.md``, both with all operations, the dearest first.

    Args:
        folder: The folder of both files, made where it is missing.
        found: What was found.

    Raises:
        SaveError: A file cannot be written.
    """
    costs, total = found.costs, _total(found)
    height, width = found.size
    facts = {
        "file": str(found.file),
        "engine": found.engine,
        "cpu": str(found.cpu),
        "size": f"{width}x{height}",
        "frames": found.frames,
        "threads": found.threads,
        "notes": list(found.notes),
    }
    sums = {
        "frame_milliseconds": costs.frame,
        "milliseconds": costs.milliseconds if costs.timed else None,
        "integer_time": costs.integer_time if costs.timed else None,
        "macs": costs.macs,
        "integer_macs": costs.integer_macs,
    }
    ordered = costs.by_cost()
    write_json(folder / JSON, {**facts, "totals": sums, "operations": [_record(each, found) for each in ordered]})
    columns = _columns(found)
    cells = [[text(each, total) for text in columns.values()] for each in ordered]
    parts = [
        _title(found),
        *found.notes,
        totals(found),
        _markdown(_headings(found), _reasons(found)),
        _markdown(list(columns), cells),
    ]
    write_text(folder / MARKDOWN, "\n\n".join(parts) + "\n")


def _reasons(found: Explanation) -> list[list[str]]:
    total, macs = _total(found), found.costs.macs
    rows = []
    for reason, group in found.costs.by_reason().items():
        spent, products = sum(each.milliseconds for each in group), sum(each.macs or 0 for each in group)
        share = _percent(products / macs) if macs and products else ""
        times = [f"{spent:.2f}", _percent(spent / total)] if found.costs.timed else []
        rows.append([reason or INTEGERS, str(len(group)), *times, share])
    return rows


def _columns(found: Explanation) -> dict[str, CellText]:
    left_out = _UNTIMED if found.costs.timed else _TIMES
    return {heading: text for heading, text in COLUMNS.items() if heading not in left_out}


def _headings(found: Explanation) -> list[str]:
    return [heading for heading in REASONS if found.costs.timed or heading not in _TIMES]


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = [":--" if name in _LEFT else "--:" for name in heading]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, marks, *rows))


def _title(found: Explanation) -> str:
    threads = "threads as the engine likes" if found.threads is None else f"threads: {found.threads}"
    return f"{found.file.name} in {found.engine}, {found.size[1]}x{found.size[0]}, {threads}, {found.cpu}"


def _total(found: Explanation) -> float:
    return max(found.costs.milliseconds, 1e-12)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _record(each: Operation, found: Explanation) -> dict[str, Any]:
    timed = found.costs.timed
    return {
        "name": each.name,
        "kind": each.kind,
        "type": each.type,
        "milliseconds": each.milliseconds if timed else None,
        "share": each.milliseconds / _total(found) if timed else None,
        "macs": each.macs,
        "integers": each.integers,
        "reason": each.reason,
        "kernel": each.kernel,
    }
