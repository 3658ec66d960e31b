"""Tables and ``metrics.json``."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from ptq4vm.errors import CheckpointError, ConfigError, SaveError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.metrics import METRIC_NAMES
from ptq4vm.report.tables import metrics_markdown, metrics_table
from ptq4vm.runs.metrics import read_metrics_json, write_metrics_json


def result(mad: float, **others: float) -> EvaluationResult:
    mean = dict.fromkeys(METRIC_NAMES, 2.0) | {"mad": mad} | others
    return EvaluationResult(mean, {"set/a": mean, "b": dict(mean)}, {})


STAGES = {"fp32": result(4.0), "rtn": result(312.5), "biq": result(8.0, dtssd=1.0), "gac": result(6.0)}


def test_markdown_marks_the_best_and_compares_with_float():
    assert metrics_markdown(STAGES).splitlines() == [
        "| stage | MAD | MSE | Grad | Conn | dtSSD | MAD / FP32 |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
        "| FP32 | 4.00 | 2.00 | 2.00 | 2.00 | 2.00 | 1.00x |",
        "| round to nearest | 312.50 | **2.00** | **2.00** | **2.00** | 2.00 | 78.12x |",
        "| BIQ | 8.00 | **2.00** | **2.00** | **2.00** | **1.00** | 2.00x |",
        "| GAC + OFA | **6.00** | **2.00** | **2.00** | **2.00** | 2.00 | **1.50x** |",
    ]


def test_terminal_table_shows_the_same():
    console = Console(width=120, record=True, file=StringIO())
    console.print(metrics_table(STAGES, title="W4A4"))
    text = console.export_text()
    assert "W4A4" in text and "GAC + OFA" in text and "78.12x" in text and "[bold]" not in text


def test_one_stage_without_reference_has_no_ratio_and_no_best():
    assert metrics_markdown({"quantized": result(3.0)}).splitlines()[::2] == [
        "| stage | MAD | MSE | Grad | Conn | dtSSD |",
        "| quantized | 3.00 | 2.00 | 2.00 | 2.00 | 2.00 |",
    ]


def test_json_has_the_promised_shape_and_reads_back(tmp_path):
    path = tmp_path / "run" / "metrics.json"
    write_metrics_json(path, STAGES)
    content = json.loads(path.read_text())
    assert list(content) == ["mean", "clips", "stages"]
    assert content["mean"] == STAGES["gac"].mean and list(content["mean"]) == list(METRIC_NAMES)
    assert content["clips"] == STAGES["gac"].clips
    assert list(content["stages"]) == ["fp32", "rtn", "biq", "gac"]
    assert content["stages"]["rtn"] == {**STAGES["rtn"].mean, "mean": STAGES["rtn"].mean, "clips": STAGES["rtn"].clips}
    report = read_metrics_json(path)
    assert report.final == STAGES["gac"] and report.stages == STAGES


def test_json_of_another_final_stage(tmp_path):
    write_metrics_json(tmp_path / "m.json", STAGES, final="biq")
    assert read_metrics_json(tmp_path / "m.json").final.mean["mad"] == 8.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read metrics"),
        ("{", "cannot read metrics"),
        ("[]", "no mapping at the file"),
        ("{}", "no mapping at clips"),
        ('{"clips": {}, "mean": {"mad": 1}, "stages": {}}', "no number at mean.mse"),
        ('{"clips": {"a": {"mad": "x"}}, "mean": {}, "stages": {}}', "no number at"),
        ('{"clips": {}, "mean": {"mad": NaN}, "stages": {}}', "no number at mean.mad"),
    ],
)
def test_damaged_json_is_refused_with_the_name_of_the_file(tmp_path, text, words):
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_metrics_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_to_show_or_write(tmp_path):
    with pytest.raises(ConfigError):
        metrics_table({})
    with pytest.raises(ConfigError):
        write_metrics_json(tmp_path / "m.json", {})
    with pytest.raises(ConfigError, match="no result of stage w8a8"):
        write_metrics_json(tmp_path / "m.json", STAGES, final="w8a8")
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="file"):
        write_metrics_json(tmp_path / "file" / "m.json", STAGES)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
