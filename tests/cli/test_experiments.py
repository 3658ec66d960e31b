from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from commands import Workplace


def test_a_sweep_ends_in_a_report_that_names_what_failed(workplace: Workplace, tmp_path: Path) -> None:
    """The job with a wrong observer fails when it is built, and the other two go on."""
    sweep = tmp_path / "sweep"
    swept = "method.quantizer.activation.observer=minmax,nonsense,percentile"
    done = workplace.quantize(sweep, "-m", "method=rtn", swept)
    assert done.status == 1 and "nonsense" in done.err
    rows = list(csv.DictReader((sweep / "report" / "results.csv").open()))
    assert sorted(row["status"] for row in rows) == ["failed", "finished", "finished"]
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert "nonsense" in failed["error"] and "nonsense" in failed["name"]
    page, table = ((sweep / "report" / name).read_text() for name in ("index.html", "results.md"))
    assert failed["error"].split("'")[0] in table and "observer=nonsense" in page
    assert (sweep / "report" / "errors.png").stat().st_size > 5000

    again = workplace.quantize(sweep, "-m", "method=rtn", swept)
    assert again.out.count("is finished: nothing is left to do") == 2, "a sweep does only what is left"


def test_an_experiment_from_its_one_line(workplace: Workplace, tmp_path: Path) -> None:
    tiny = ["preset.reconstruction.monitor=1", "preset.reconstruction.steps=2,3"]
    done = workplace.quantize(tmp_path, "-m", "+experiment=convergence", "scale=quick", "method=naive_full", *tiny)
    assert done.status == 0, done.out + done.err
    runs = {path.parent.name for path in tmp_path.glob("*/run.json")}
    name = "bits=w4a4,preset.reconstruction.steps="
    assert runs == {f"{name}2", f"{name}3"}
    record = json.loads((tmp_path / f"{name}3" / "run.json").read_text())
    assert record["steps"] == {"naive_full": 3} and record["preset"] == "sweep"
    assert list(json.loads((tmp_path / runs.pop() / "metrics.json").read_text())["stages"]) == ["fp32", "naive_full"]
    assert (tmp_path / "report" / "convergence.png").stat().st_size > 5000


@pytest.mark.parametrize("command", ["quantize"])
def test_command_of_a_job_runs_it_again(workplace: Workplace, tmp_path: Path, command: str) -> None:
    done = workplace.quantize(tmp_path / "sweep", "-m", "method=rtn", "seed=3,4")
    assert done.status == 0, done.out + done.err
    record = json.loads((tmp_path / "sweep" / "seed=4" / "run.json").read_text())
    program, name, *arguments = shlex.split(record["command"])
    assert (program, name) == ("ptq4vm", command) and record["name"] == "seed=4" and record["seed"] == 4
    again = workplace.run(name, *arguments)
    assert again.status == 0 and "is finished" in again.out
