"""results.csv and results.md."""

from __future__ import annotations

import csv
import io

import pytest

from ptq4vm.report.exports import CSV_COLUMNS, results_csv, results_markdown, signed
from ptq4vm.report.groups import group_runs, references
from ptq4vm.runs.reading import load_runs
from sample_runs import write_run


def markdown(root) -> str:
    runs = load_runs([root])
    return results_markdown("A|title", group_runs(runs), references(runs), runs)


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_csv_has_every_run(tmp_path):
    write_run(tmp_path, "w4a8", "qdrop", 1, mad=6.0, choices={"lam": 0.5})
    write_run(tmp_path, seed=2, status="failed", error='no "memory", left')
    (write_run(tmp_path, method="rtn") / "metrics.json").write_text("{")
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(results_csv(load_runs([tmp_path]))))}
    assert len(rows) == 3 and tuple(rows["qdrop"]) == CSV_COLUMNS
    done = rows["qdrop"]
    assert (done["bits"], done["weight_bits"], done["activation_bits"], done["seed"]) == ("W4A8", "4", "8", "1")
    assert (float(done["mad"]), float(done["fp32_mad"]), float(done["delta_mad"])) == (6.0, 4.0, 2.0)
    assert (done["steps"], done["seconds"], done["stored_bytes"], done["paper_mb"]) == (
        "40",
        "31.0",
        "2000000.0",
        "2.4",
    )
    assert done["status"] == "finished" and done["choices"] == '{"lam": "0.5"}' and done["stages"] == "qdrop"
    assert done["command"].startswith("ptq4vm quantize")
    assert rows["brecq"]["status"] == "failed" and rows["brecq"]["error"] == 'no "memory", left'
    assert rows["brecq"]["mad"] == "" and rows["rtn"]["status"] == "broken"


def test_markdown_table(tmp_path):
    for seed, error in enumerate((5.0, 7.0)):
        write_run(tmp_path, "w4a4", "qdrop", seed, error)
    write_run(tmp_path, "w4a4", "rtn", mad=20.0)
    write_run(tmp_path, "w8a8", "rtn", mad=4.0)
    header, rule, first, *rows = table(markdown(tmp_path))
    assert header[:4] == ["bits", "method", "seeds", "MAD"] and rule[0] == ":--"
    assert first[0] == "FP32" and first[3] == "4.00"
    assert [row[:4] for row in rows] == [
        ["W8A8", "rtn", "1", "4.00"],  # no rival, no mark
        ["W4A4", "qdrop", "2", "**6.00 ± 1.41**"],
        ["W4A4", "rtn", "1", "20.00"],
    ]
    assert rows[1][header.index("Δ MAD")] == "+2.00" and rows[0][header.index("Δ MAD")] == "+0.00"
    assert rows[1][header.index("seconds")] == "30" and rows[1][header.index("GBOPs")] == "72.00"
    assert len({len(row) for row in (header, rule, first, *rows)}) == 1


def test_markdown_names_failures_and_broken_files(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, seed=1, status="failed", error="out of | memory")
    write_run(tmp_path, seed=2, status="running")
    (write_run(tmp_path, seed=3) / "metrics.json").write_text("{")
    text = markdown(tmp_path)
    assert "## Failed\n\n- `bits=w4a4,method=brecq,seed=1`: out of \\| memory" in text
    assert "## Not finished\n\n- `bits=w4a4,method=brecq,seed=2`" in text
    assert "seed=3/metrics.json" in text.split("## Could not be read")[1]


def test_markdown_of_nothing_but_failures(tmp_path):
    write_run(tmp_path, status="failed", error="x")
    text = markdown(tmp_path)
    assert "No run has finished." in text and "## Failed" in text and not table(text)


@pytest.mark.parametrize(("value", "text"), [(0.001, "+0.00"), (-0.001, "+0.00"), (-1.5, "−1.50"), (2.0, "+2.00")])
def test_signed(value, text):
    assert signed(value) == text
