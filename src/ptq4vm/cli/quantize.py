"""``ptq4vm quantize``: quantize one network on one dataset and evaluate every stage."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import ptq4vm
from ptq4vm.cli import build
from ptq4vm.io import write_json
from ptq4vm.models.base import MattingNetwork
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.sheets import write_sheets
from ptq4vm.report.tables import metrics_table, write_metrics_json
from ptq4vm.stages.pipeline import Pipeline, QuantizationResult

log = logging.getLogger(__name__)


def quantize(cfg: DictConfig) -> None:
    """Run the pipeline of a composed configuration; see ``docs`` for what it leaves in the run folder."""
    build.quiet()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if cfg.overwrite and (run_dir / "state").is_dir():
        shutil.rmtree(run_dir / "state")
    method = build.method(cfg)
    spec, preset, partition = build.quant_spec(cfg), build.preset(cfg), build.partition(cfg)
    needs_flow = method.ofa and preset.gac.flow_weight > 0 and not spec.is_float
    datamodule = build.datamodule(cfg, needs_flow)
    names = [clip.name for clip in datamodule.evaluation_clips]
    network = build.network(cfg)
    pictures = SheetCollector(names)
    pipeline = Pipeline(
        network=network,
        model={"family": cfg.model.family, "arguments": _arguments(cfg, network)},
        datamodule=datamodule,
        spec=spec,
        partition=partition,
        method=method,
        preset=preset,
        run_dir=run_dir,
        trainer=build.trainer(cfg, run_dir),
        loggers=build.loggers(cfg, run_dir),
        observer=lambda stage: pictures.observer(stage, foreground=stage != "fp32"),
        seed=cfg.seed,
        notes={"version": ptq4vm.__version__, "seed": cfg.seed, "config": OmegaConf.to_container(cfg, resolve=True)},
    )
    result = pipeline.run()
    leave(result, run_dir, pictures, label=_label(cfg))


def _arguments(cfg: DictConfig, network: MattingNetwork) -> dict[str, Any]:
    """Constructor arguments with the refiner that the weights decided."""
    return {**build.plain(cfg.model.arguments), "refiner": getattr(network, "refiner_name", "fast_guided_filter")}


def _label(cfg: DictConfig) -> str:
    return "FP32" if cfg.bits.weight == 32 else f"W{cfg.bits.weight}A{cfg.bits.activation}"


def leave(result: QuantizationResult, run_dir: Path, pictures: SheetCollector, label: str) -> None:
    """Write the run folder's files and print the table."""
    write_json(run_dir / "timing.json", result.timing)
    if not result.stages:
        log.warning("the dataset has no evaluation clips: no metrics.json and no pictures")
        return
    write_metrics_json(run_dir / "metrics.json", result.stages)
    final = list(result.stages)[-1]
    if pictures.has(final):
        write_sheets(run_dir / "sheets", pictures, final, result.stages, label=label)
    console = Console()
    console.print(metrics_table(result.stages, title=f"{label} on {len(result.stages[final].clips)} clips"))
    console.print(f"run folder: {run_dir} ({result.timing['total']:.0f} s)")
