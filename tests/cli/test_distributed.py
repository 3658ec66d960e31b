"""Whole runs whose global stage is shared by two processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from commands import Workplace, same

QUICK = ("baseline=false", "preset.reconstruction.steps=1")


def curve(run: Path) -> list[float]:
    with (run / "logs" / "gac" / "metrics.csv").open() as file:
        return [float(row["gac/loss"]) for row in csv.DictReader(file)]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_in_two_processes_is_one_with_the_double_batch(workplace: Workplace, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    done = workplace.quantize(two, "trainer=ddp_cpu", *QUICK)
    assert done.status == 0 and done.err == "", done.err
    assert workplace.quantize(one, "trainer=cpu", "preset.calibration.batch_size=4", *QUICK).status == 0
    assert len(curve(one)) == 3 and curve(two) == pytest.approx(curve(one), rel=1e-4)
    assert same(read(two / "metrics.json")["stages"]["biq"], read(one / "metrics.json")["stages"]["biq"])
    assert read(two / "metrics.json")["mean"] == pytest.approx(read(one / "metrics.json")["mean"], rel=1e-3)
    assert read(two / "run.json")["steps"] == read(one / "run.json")["steps"]
    # what a folder holds depends on the number of processes
    line = workplace.quantize(two, "trainer=cpu", *QUICK).line()
    assert str(two) in line and "preset" in line


def test_processes_that_would_run_the_command_again_are_refused(workplace: Workplace, tmp_path: Path) -> None:
    line = workplace.quantize(tmp_path, "trainer=ddp_cpu", "trainer.strategy=ddp").line()
    assert "whole command" in line and "ddp_spawn" in line
