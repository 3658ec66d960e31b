"""Run folders: which are found, what is read, and that damage to one costs nothing but that."""

from __future__ import annotations

import json
import logging

import pytest
import yaml

from ptq4vm.errors import DataError
from ptq4vm.runs.reading import find_runs, load_runs, read_run
from sample_runs import CLIPS, write_json, write_run


def test_finished_run_is_read_whole(tmp_path):
    run = read_run(write_run(tmp_path, "w4a8", "qdrop", seed=2, mad=6.0, choices={"lam": 0.5, "gac": False}))
    assert (run.name, run.status, run.bits, run.method) == (
        "bits=w4a8,method=qdrop,seed=2",
        "finished",
        "W4A8",
        "qdrop",
    )
    assert run.command == "ptq4vm quantize bits=w4a8 method=qdrop seed=2" and run.planned == ("qdrop",)
    assert run.mean["mad"] == 6.0 and list(run.clips) == list(CLIPS) and list(run.stages) == ["fp32", "rtn", "qdrop"]
    assert run.delta("mad") == 2.0 and run.seed == 2 and run.choices == {"lam": "0.5", "gac": "false"}
    assert run.seconds == 32.0 and run.total_seconds == 36.5 and run.total_steps == 40
    assert run.cost["stored_bytes"] == 2e6 and run.layers["conv2"] == pytest.approx(0.12)
    assert run.measured and not run.warnings


def test_every_run_is_found_once_and_only_runs_are(tmp_path):
    first = write_run(tmp_path / "sweep")
    second = write_run(tmp_path / "sweep" / "deeper", seed=1)
    for inside in ("logs", "state", "sheets"):
        write_json(first / inside / "x" / "metrics.json", {})
    write_json(first / "again" / "metrics.json", {})
    write_json(tmp_path / "sweep" / ".hidden" / "run.json", {})
    (tmp_path / "sweep" / "report").mkdir()
    assert set(find_runs(tmp_path / "sweep")) == {first, first / "again", second}
    assert len(load_runs([tmp_path / "sweep", first, tmp_path])) == 3
    assert load_runs([second])[0].folder == second


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_nothing_to_report_on_is_an_error_of_one_line(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=path) as error:
        load_runs([tmp_path / path])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ['{"mean": {"mad": 3', "", "[]", '{"mean": {}}', b"\xff\xfe\x00"])
def test_broken_metrics_are_named_and_the_rest_goes_on(tmp_path, caplog, damage):
    broken = write_run(tmp_path, method="rtn") / "metrics.json"
    broken.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    write_run(tmp_path, method="qdrop")
    with caplog.at_level(logging.WARNING):
        runs = {run.method: run for run in load_runs([tmp_path])}
    assert runs["qdrop"].measured and not runs["qdrop"].warnings
    assert runs["rtn"].status == "broken" and not runs["rtn"].measured and runs["rtn"].command
    (warning,) = runs["rtn"].warnings
    assert str(broken) in warning and "\n" not in warning
    assert [record.getMessage() for record in caplog.records] == [warning]


@pytest.mark.parametrize("name", ["run.json", "timing.json", "layers.json"])
def test_other_broken_files_cost_only_themselves(tmp_path, name):
    folder = write_run(tmp_path)
    (folder / name).write_text("{", encoding="utf-8")
    run = read_run(folder, tmp_path)
    assert run.measured and run.mean["mad"] == 6.0
    assert len(run.warnings) == 1 and str(folder / name) in run.warnings[0]
    assert run.name == folder.name


def test_values_of_the_wrong_kind_are_as_good_as_missing(tmp_path):
    folder = write_run(tmp_path, seed=0)
    card = json.loads((folder / "run.json").read_text())
    wrong = {"seed": "x", "bits": 4, "stages": "brecq", "steps": [1], "cost": {"bops": "many"}, "choices": None}
    write_json(folder / "run.json", card | wrong)
    run = read_run(folder)
    assert run.seed is None and run.bits == "" and run.planned == () and run.total_steps is None and not run.cost
    assert run.measured


def test_failed_and_unfinished_jobs(tmp_path):
    failed = read_run(write_run(tmp_path, status="failed", error="loss is nan in step 3:\n lower the rate"))
    assert failed.status == "failed" and failed.error == "loss is nan in step 3: lower the rate"
    assert read_run(write_run(tmp_path, seed=1, status="running")).status == "running"
    assert not failed.measured and not failed.warnings
    assert failed.total_steps == 40 and failed.seconds is None and failed.delta("mad") is None


def test_finished_without_metrics_says_so(tmp_path):
    folder = write_run(tmp_path)
    (folder / "metrics.json").unlink()
    run = read_run(folder)
    assert run.status == "finished" and not run.measured and "metrics.json" in run.warnings[0]


def test_older_runs_are_told_by_hydra(tmp_path):
    folder = write_run(tmp_path)
    (folder / "run.json").unlink()
    overrides = ["bits=w4a4", "data.root=/a b", "preset.gac.epochs=3", "run_dir=x"]
    hydra = {
        "job": {"name": "quantize"},
        "overrides": {"task": overrides},
        "runtime": {"choices": {"method": "ptq4vm", "data": "videomatte", "model": "rvm_resnet50"}},
    }
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": 7, "bits": {"weight": 4, "activation": 8}}))
    run = read_run(folder, tmp_path)
    assert (run.method, run.model, run.bits, run.seed) == ("ptq4vm", "rvm_resnet50", "W4A8", 7)
    assert run.command == "ptq4vm quantize bits=w4a4 'data.root=/a b' preset.gac.epochs=3 run_dir=x"
    assert run.choices == {"data.root": "/a b", "preset.gac.epochs": "3"}
    assert run.measured and run.name == folder.name
