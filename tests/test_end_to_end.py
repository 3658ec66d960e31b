"""One small run with the real weights on real pictures: the stages do what they are there for."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import ptq4vm
from commands import as_found
from ptq4vm.data.datasets.demo import DemoDataset
from ptq4vm.methods.method import CalibrationSettings, Preset


def test_reconstruction_rescues_and_calibration_learns(rvm_weights: Path, tmp_path: Path) -> None:
    quick = ptq4vm.load_preset("quick")
    preset = Preset(
        CalibrationSettings(clips=4, clip_length=3, crop=(128, 128), batch_size=2),
        replace(quick.reconstruction, steps=4, batch_frames=12),
        replace(quick.gac, epochs=12, burn_in=0),
    )
    method, spec = ptq4vm.load_method("ptq4vm", "w4a4")
    # one range for a tensor instead of one for each channel: quicker to observe
    spec = replace(spec, activation=replace(spec.activation, granularity="branch"))
    with as_found(tmp_path / "cache"):
        result = ptq4vm.quantize(
            ptq4vm.load_model("rvm_mobilenetv3", rvm_weights),
            DemoDataset(tmp_path / "demo", frames=4, size=(144, 256)),
            bits=spec,
            method=method,
            preset=preset,
            flow="analytic",
            run_dir=tmp_path / "run",
        )
    errors = {stage: found.mean["mad"] for stage, found in result.stages.items()}
    assert errors["fp32"] < 15
    assert errors["rtn"] > 100, "rounding to nearest collapses at 4 bits"
    assert errors["biq"] < errors["rtn"] / 5
    assert errors["gac"] < errors["rtn"] / 5
    with (tmp_path / "run" / "logs" / "gac" / "metrics.csv").open() as file:
        rows = [(int(row["epoch"]), float(row["gac/loss"])) for row in csv.DictReader(file)]
    first, last = ([loss for epoch, loss in rows if epoch in chosen] for chosen in ((0, 1), (9, 10, 11)))
    assert sum(last) / len(last) < 0.8 * sum(first) / len(first)
