from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ptq4vm.errors import SaveError
from ptq4vm.report.curves import read_curves
from ptq4vm.report.figures import CONVERGENCE, ERRORS, LOSSES, _training_loss, write_figures
from ptq4vm.report.groups import group_runs
from ptq4vm.runs.reading import load_runs
from sample_runs import write_log, write_run


def test_figures_of_a_sweep(tmp_path: Path) -> None:
    for seed in range(2):
        for method, mad in (("rtn", 300.0), ("brecq", 9.0 + seed)):
            write_run(tmp_path, "w4a4", method, seed, mad)
    whole = write_run(tmp_path, "w8a8", "naive_full", 0, 5.0)
    write_log(whole, "naive_full", {"naive_full/alpha": [0.2, 0.1, 0.05], "naive_full/network": [3.0, 2.0, 1.0]})
    written = write_figures(load_runs([tmp_path]), tmp_path / "out")
    assert [path.name for path in written] == [ERRORS, CONVERGENCE]
    for path in written:
        with Image.open(path) as picture:
            colours = picture.convert("RGB").getcolors(1 << 20)
        assert colours is not None and len(colours) > 20, "something is drawn"


def test_without_anything_to_draw_there_is_no_figure(tmp_path: Path) -> None:
    write_run(tmp_path, status="failed", error="no memory")  # leaves no metrics
    assert write_figures(load_runs([tmp_path]), tmp_path) == []


def test_losses_of_training_are_a_figure_of_their_own(tmp_path: Path) -> None:
    for seed, losses in enumerate(([1.0, 0.5, 0.25], [2.0, 1.5, 0.75, 0.5])):
        write_log(write_run(tmp_path, "w1a1", "binary", seed, 50.0), "loss", {"alpha": losses})
    runs = load_runs([tmp_path])
    assert [path.name for path in write_figures(runs, tmp_path / "out")] == [ERRORS, LOSSES]
    curve = _training_loss([read_curves(run.folder)[0] for run in group_runs(runs)[0].runs])
    assert curve is not None and curve.steps == (0, 1, 2) and curve.values == (1.5, 1.0, 0.5)


def test_loss_of_the_global_stage_is_no_convergence(tmp_path: Path) -> None:
    write_log(write_run(tmp_path), "gac", {"gac/alpha": [0.2, 0.1]})
    assert [path.name for path in write_figures(load_runs([tmp_path]), tmp_path)] == [ERRORS]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError):
        write_figures(load_runs([tmp_path]), tmp_path / "file")
