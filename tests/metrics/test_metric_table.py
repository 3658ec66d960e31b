"""One description for each metric, a function for each description, and what another one must touch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ptq4vm.errors import ConfigError
from ptq4vm.metrics import FOREGROUND_METRIC, METRIC_NAMES, METRIC_SETS, METRICS, MetricInfo
from ptq4vm.metrics.functional import frame_metrics
from ptq4vm.metrics.functional.inputs import MEASURES, AlphaPair
from ptq4vm.metrics.table import required_metrics

ALPHA = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_sets_and_order_are_those_of_old_files():
    assert list(METRICS) == ["mad", "mse", "grad", "conn", "dtssd", "sad", "fgr_mse"]
    assert METRIC_SETS == {
        "lr": ("mad", "mse", "grad", "conn", "dtssd"),
        "hr": ("mad", "mse", "grad", "dtssd", "sad"),
    }
    assert METRIC_SETS["lr"] == METRIC_NAMES and FOREGROUND_METRIC == "fgr_mse"


def test_every_metric_that_is_measured_has_a_function_and_no_other_has():
    assert set(MEASURES.names()) == {name for name, metric in METRICS.items() if metric.sets}


def test_what_a_measurement_must_have():
    assert required_metrics({"mad": 1.0}) == METRIC_SETS["lr"]
    assert required_metrics(METRIC_SETS["hr"]) == METRIC_SETS["hr"]


def test_text():
    assert MetricInfo("x", "X", decimals=1).text(2.25) == "2.2" and MetricInfo("x", "X").text(None) == ""


def test_another_metric_is_a_registered_function(monkeypatch):
    monkeypatch.setattr(MEASURES, "_entries", dict(MEASURES._entries))

    @MEASURES.register("bias")
    def bias(pair: AlphaPair) -> torch.Tensor:
        pred, true = pair.units
        return (pred - true).mean(dim=(-3, -2, -1)).double()

    values = frame_metrics(ALPHA, torch.zeros_like(ALPHA), names=["bias", "mad"])
    torch.testing.assert_close(values["bias"] * 1e3, values["mad"])


def test_unknown_metric():
    with pytest.raises(ConfigError, match="metric=ssim is unknown: use one of conn, dtssd"):
        frame_metrics(ALPHA, ALPHA, names=["ssim"])


def test_colours_are_measured_where_they_are_given():
    colours = ALPHA.expand(2, 3, 8, 8)
    values = frame_metrics(ALPHA, ALPHA, names=["mad"], colours=(colours, colours.flip(0)))
    assert list(values) == ["mad", "fgr_mse"] and values["fgr_mse"].min() > 0


def test_names_need_no_torch_and_functions_no_torchmetrics():
    program = "import sys, ptq4vm.metrics; assert 'torch' not in sys.modules\n"
    program += "import ptq4vm.metrics.functional; assert 'torchmetrics' not in sys.modules\n"
    program += "from ptq4vm.metrics import MAD; assert MAD().frames == 0"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_attribute():
    with pytest.raises(ImportError, match="Nothing"):
        from ptq4vm.metrics import Nothing  # noqa: F401
