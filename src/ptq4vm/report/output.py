"""What a finished run leaves for people: metrics, timing, layers and one contact sheet a clip."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from ptq4vm.io import write_json
from ptq4vm.pipeline.run import RunResult
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.sheets import write_sheets
from ptq4vm.runs.layout import FINISHED, LAYERS, METRICS, SHEETS, TIMING, describe_run
from ptq4vm.runs.metrics import write_metrics_json

log = logging.getLogger(__name__)


def write_run_folder(run_dir: Path, result: RunResult, pictures: SheetCollector, label: str) -> None:
    """Write ``timing.json``, ``layers.json``, ``run.json``, ``metrics.json`` and one contact sheet per evaluation clip.

    Args:
        run_dir: The run folder.
        result: The result that the pipeline gave.
        pictures: The collector that has watched the evaluations; nothing is drawn when an earlier run did and drew.
        label: Name of the quantized network on the sheets, ``W4A4``.

    Raises:
        SaveError: A file cannot be written.
    """
    write_json(run_dir / TIMING, result.timing)
    bits = {path: layer.weight_bits for path, layer in quantized_layers(result.network).items()}
    write_json(run_dir / LAYERS, {"layers": result.layers, "bits": bits})
    describe_run(run_dir, {"status": FINISHED, "error": None, "steps": result.steps, "cost": asdict(result.cost)})
    if not result.stages:
        log.warning("the dataset has no evaluation clips: no %s and no pictures", METRICS)
        return
    write_metrics_json(run_dir / METRICS, result.stages)
    final = list(result.stages)[-1]
    if pictures.has(final, "fp32"):
        write_sheets(run_dir / SHEETS, pictures, final, result.stages, label=label)
