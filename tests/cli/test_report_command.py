"""``ptq4vm report`` on the command line."""

from __future__ import annotations

import pytest

from ptq4vm.cli.main import USAGE, main
from sample_runs import write_run


def test_prints_where_the_page_is_and_warns_of_broken_files(tmp_path, capsys):
    write_run(tmp_path)
    broken = write_run(tmp_path, seed=1) / "metrics.json"
    broken.write_text("{")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out"), "--title", "Mine"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'out' / 'index.html'}\n"
    assert err.startswith("ptq4vm report: ") and str(broken) in err and err.count("\n") == 1
    assert "<h1>Mine</h1>" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_nothing_to_report_on_is_one_line(tmp_path, capsys, path):
    assert main(["report", str(tmp_path / path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ptq4vm report: ") and err.count("\n") == 1


def test_several_paths(tmp_path, capsys):
    for index, name in enumerate(("one", "two")):
        write_run(tmp_path / name, seed=index)
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert (tmp_path / "one" / "report" / "results.md").read_text(encoding="utf-8").startswith("# one, two")


def test_usage_names_it():
    assert "report" in USAGE
