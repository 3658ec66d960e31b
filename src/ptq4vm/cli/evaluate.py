"""``ptq4vm evaluate``: metrics and pictures of a float network or of a run folder's quantized one."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ptq4vm.api import load_checkpoint
from ptq4vm.cli import build
from ptq4vm.errors import CheckpointError, DataError
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.sheets import write_sheets
from ptq4vm.report.tables import metrics_table, write_metrics_json
from ptq4vm.stages.evaluation import evaluate as measure

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    """Evaluate ``checkpoint`` (``fp32`` or a run folder) on ``data`` and write ``metrics.json`` and pictures."""
    build.quiet()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    datamodule = build.datamodule(cfg, with_flow=False)
    if not datamodule.evaluation_clips:
        raise DataError("the dataset has no evaluation clips: check data.root")
    if cfg.checkpoint == "fp32":
        network, label = build.network(cfg), "fp32"
    else:
        info = read_info(cfg.checkpoint)
        variant = cfg.model.arguments.variant
        if info.model["arguments"]["variant"] != variant:
            raise CheckpointError(
                f"{cfg.checkpoint} holds {info.model['arguments']['variant']}, not {variant}: "
                f"add model=rvm_{info.model['arguments']['variant']}"
            )
        network, label = load_checkpoint(cfg.checkpoint), "quantized"
    pictures = SheetCollector([clip.name for clip in datamodule.evaluation_clips])
    result = measure(
        network.to(memory_format=torch.channels_last),
        datamodule,
        downsample_ratio=cfg.downsample_ratio,
        observers=[pictures.observer(label)],
    )
    stages = {label: result}
    write_metrics_json(run_dir / "metrics.json", stages)
    write_sheets(run_dir / "sheets", pictures, label, stages, label=label, reference=label)
    console = Console()
    console.print(metrics_table(stages, title=str(cfg.checkpoint), reference=label))
    console.print(f"written to {run_dir}")
