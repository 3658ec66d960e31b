"""Loss curves of run folders."""

from __future__ import annotations

import pytest

from ptq4vm.report.curves import Curve, read_curves
from sample_runs import write_log


def test_curves_count_from_their_own_beginning(tmp_path):
    write_log(tmp_path, "biq", {"b.1": [3.0, 2.0], "a.0": [0.5, 0.25, 0.125]})
    write_log(tmp_path, "gac", {"loss": [1.0]}, first=7)
    curves, warnings = read_curves(tmp_path)
    assert not warnings
    assert curves == {
        "biq/b.1": Curve((0, 1), (3.0, 2.0)),
        "biq/a.0": Curve((0, 1, 2), (0.5, 0.25, 0.125)),
        "gac/loss": Curve((0,), (1.0,)),
    }


def test_resumed_stage_goes_on_and_what_was_repeated_counts_once(tmp_path):
    write_log(tmp_path, "gac", {"loss": [9.0, 8.0, 7.0]})
    write_log(tmp_path, "gac", {"loss": [6.0, 5.0]}, first=2, part="-2")
    write_log(tmp_path, "gac", {"loss": [4.0]}, first=4, part="-10")
    write_log(tmp_path, "gac", {"loss": [4.5]}, first=4, part="-9")
    curves, _ = read_curves(tmp_path)
    assert curves["gac/loss"] == Curve((0, 1, 2, 3, 4), (9.0, 8.0, 6.0, 5.0, 4.0))


@pytest.mark.parametrize("content", [b"biq/a,epoch,step\nsoon,0,0\n", b"biq/a,step\n\xff,1\n", b"biq/a,step\n1,x\n"])
def test_damaged_log_is_named_and_others_are_read(tmp_path, content):
    write_log(tmp_path, "biq", {"a": [1.0]})
    write_log(tmp_path, "gac", {"loss": [1.0]})
    path = tmp_path / "logs" / "biq" / "metrics.csv"
    path.write_bytes(content)
    curves, warnings = read_curves(tmp_path)
    assert list(curves) == ["gac/loss"] and len(warnings) == 1 and str(path) in warnings[0]


def test_values_that_are_not_finite_are_gaps(tmp_path):
    write_log(tmp_path, "biq", {"a": [1.0, float("nan"), float("inf"), 2.0]})
    assert read_curves(tmp_path)[0]["biq/a"] == Curve((0, 3), (1.0, 2.0))


def test_thinning_keeps_the_mean():
    curve = Curve(tuple(range(1000)), tuple(float(i % 10) for i in range(1000)))
    thin = curve.thinned(100)
    assert len(thin.steps) == 100 and set(thin.values) == {4.5} and list(thin.steps) == sorted(thin.steps)
    assert curve.thinned(1000) is curve


def test_no_logs_no_curves(tmp_path):
    assert read_curves(tmp_path) == ({}, [])
