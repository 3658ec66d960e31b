"""One description a column, for all three tables."""

from __future__ import annotations

import csv
import io
import json

import pytest

from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.metrics import METRIC_SETS
from ptq4vm.report import exports, views
from ptq4vm.report.columns import COLUMNS, ResultColumn
from ptq4vm.report.exports import results_csv, results_markdown
from ptq4vm.report.groups import group_runs, references
from ptq4vm.report.page import write_report
from ptq4vm.runs.metrics import write_metrics_json
from ptq4vm.runs.reading import load_runs
from sample_runs import write_run


def test_csv_headings_are_those_of_old_files():
    assert [column.name for column in COLUMNS] == [
        *("name", "model", "method", "stages", "bits", "weight_bits", "activation_bits", "seed", "status"),
        *("mad", "mse", "grad", "conn", "dtssd"),
        *("delta_mad", "delta_mse", "delta_grad", "delta_conn", "delta_dtssd"),
        *("fp32_mad", "fp32_mse", "fp32_grad", "fp32_conn", "fp32_dtssd"),
        *("steps", "seconds", "total_seconds", "stored_bytes", "bops", "gmacs", "paper_gflops", "paper_mb"),
        *("preset", "data", "flow", "choices", "machine", "version", "command", "error", "folder"),
        "worst_clip",  # new ones come last
    ]


def test_the_worst_clip_is_that_of_the_largest_multiple(tmp_path):
    folder = write_run(tmp_path, mad=6.0)
    path = folder / "metrics.json"
    content = json.loads(path.read_text())
    first, second, *_ = content["clips"]
    for clips, mads in ((content["clips"], (30.0, 3.0)), (content["stages"]["fp32"]["clips"], (20.0, 1.0))):
        clips[first]["mad"], clips[second]["mad"] = mads
    path.write_text(json.dumps(content))
    (run,) = load_runs([tmp_path])
    assert run.worst == max(
        clip["mad"] / content["stages"]["fp32"]["clips"][name]["mad"] for name, clip in content["clips"].items()
    )
    assert run.worst >= 3.0


def test_another_column_is_one_description(tmp_path, monkeypatch):
    write_run(tmp_path, cost={"peak_bytes": 3e6})
    write_run(tmp_path, seed=1, cost={"peak_bytes": 4e6})
    peak = ResultColumn("peak", lambda run: run.cost.get("peak_bytes"), "peak MB", "Peak", "MB", unit=1e6, decimals=1)
    monkeypatch.setattr(exports, "MARKDOWN_COLUMNS", (*exports.MARKDOWN_COLUMNS, peak))
    monkeypatch.setattr(views, "PAGE_COLUMNS", (*views.PAGE_COLUMNS, peak))
    runs = load_runs([tmp_path])
    groups, floats = group_runs(runs), references(runs)
    lines = [line for line in results_markdown("x", groups, floats, runs).splitlines() if line.startswith("|")]
    assert [line.strip("|").split("|")[-1].strip() for line in lines] == ["peak MB", "--:", "", "3.5"]
    table = views.results_table("x", groups, floats, {}, True)
    assert (table.columns[-1].title, table.columns[-1].note) == ("Peak", "MB")
    assert table.pinned[0][-1].text == views.NONE
    assert (table.rows[0][-1].text, table.rows[0][-1].sort) == ("3.5", pytest.approx(3.5))
    assert all(len(row) == len(table.columns) for row in (*table.pinned, *table.rows))


def test_runs_that_lack_a_metric_have_an_empty_cell(tmp_path):
    mean = dict.fromkeys(METRIC_SETS["hr"], 2.0)
    result = EvaluationResult(mean, {"a": mean}, {})
    write_metrics_json(write_run(tmp_path) / "metrics.json", {"fp32": result, "brecq": result})
    runs = load_runs([tmp_path])
    (row,) = csv.DictReader(io.StringIO(results_csv(runs)))
    assert (row["mad"], row["conn"], row["fp32_conn"], row["delta_mad"]) == ("2.0", "", "", "0.0")
    assert write_report([tmp_path]).is_file()
    table = views.results_table("x", group_runs(runs), references(runs), {}, False)
    conn = [heading.title for heading in table.columns].index("Conn")
    assert table.rows[0][conn].text == table.pinned[0][conn].text == views.NONE
