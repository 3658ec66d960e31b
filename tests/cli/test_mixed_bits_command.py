"""Closed-form rounding, mixed bits and sensitivity from the command line, and what the files then say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import yaml

from commands import Workplace, same

FORM = (
    "method=closed_form",
    "preset.closed_form.frames=1",
    "preset.closed_form.samples=256",
    "preset.closed_form.samples_per_weight=1",
    "preset.closed_form.candidates=2",
    "preset.closed_form.sweeps=0",
    "baseline=false",
)
BUDGET = ("budget.avg_bits=[5,5]", "budget.widths=[3,4,6,8]", "budget.keep=[decoder.decode4.*]")


def test_a_mixed_network_is_quantized_and_loaded(workplace: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = workplace.quantize(run, *FORM, *BUDGET)
    assert done.status == 0, done.err
    spec = yaml.safe_load((run / "quantizer.yaml").read_text())["spec"]
    assert spec["weight_bits"]["decoder.decode4.gru.ih.0"] == 8
    assert len(set(spec["weight_bits"].values())) > 1 and spec["activation_bits"]
    assert "closed_form" in (run / "metrics.json").read_text()
    measured = workplace.evaluate(tmp_path / "again", f"checkpoint={run}")
    assert measured.status == 0, measured.err
    means = [json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / "again")]
    for stage, other in (("closed_form", "quantized"), ("fp32", "fp32")):
        assert same(means[0]["stages"][stage]["mean"], means[1]["stages"][other]["mean"])
    still = tmp_path / "again" / "sheets" / "set__a"
    assert (still / "fp32.jpg").read_bytes() != (still / "truth.jpg").read_bytes(), "not the truth twice"


def test_sensitivity_writes_every_item(workplace: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = workplace.run("sensitivity", *workplace.tiny(run, "method=closed_form"))
    assert done.status == 0, done.err
    rows = list(csv.DictReader((run / "sensitivity.csv").open()))
    assert {row["kind"] for row in rows} == {"weight", "activation"}
    assert all(float(row["alpha_error"]) >= 0 and row["bits"] == "4" for row in rows)
    assert len(rows) > 100 and "What moves alpha the most" in done.out
