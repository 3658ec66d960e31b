"""``ptq4vm train``: train one network on one dataset, measure it, leave a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ptq4vm import api, settings
from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command, plain
from ptq4vm.cli.record import common, group_choices, recorded
from ptq4vm.pipeline.binary import TRAINED
from ptq4vm.report.tables import metrics_table
from ptq4vm.runs.layout import SHEETS, check_run_folder, occupied


@dataclass(frozen=True)
class TrainOptions:
    """Values at the top of ``train.yaml``, which explains them."""

    seed: int
    run_dir: str
    overwrite: bool
    teacher: str | None
    downsample_ratio: float
    num_workers: int
    memory_mib: float


def train(cfg: DictConfig) -> float | None:
    """Train the network of a composed configuration and print the table.

    Returns:
        MAD of the trained network, for sweepers that look for the best; ``None`` without evaluation clips.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    check_run_folder(run_dir)
    with occupied(run_dir), recorded(cfg, run_dir, describe):
        return _train(cfg, run_dir)


def _train(cfg: DictConfig, run_dir: Path) -> float | None:
    build.quiet()
    options = build.check_options(TrainOptions, cfg)
    model, data = plain(cfg.model), build.data(cfg)
    with build.loggers(cfg, run_dir) as tracking:
        result = api.train(
            api.untrained_model(model["family"], model["arguments"], options.seed, model.get("weights")),
            data,
            schedule=settings.schedule(plain(cfg.schedule)),
            teacher=options.teacher,
            run_dir=run_dir,
            overwrite=options.overwrite,
            seed=options.seed,
            num_workers=options.num_workers,
            memory_mib=options.memory_mib,
            downsample_ratio=options.downsample_ratio,
            augmentation=build.augmentation(cfg),
            trainer=build.trainer(cfg, run_dir),
            loggers=tracking,
            notes=build.notes(cfg),
        )
        tracking.results(result.stages, run_dir / SHEETS)
    console = Console()
    if result.stages:
        clips = len(next(iter(result.stages.values())).clips)
        title = f"{group_choices()['model']} on {clips} clips{build.about_truth(data)}"
        console.print(metrics_table(result.stages, title=title))
    console.print(f"{result.cost.paper_gflops:.2f} G operations a frame, {result.cost.paper_mb:.2f} MB in bits")
    console.print(f"run folder: {run_dir} ({result.timing['total']:.0f} s)", soft_wrap=True)
    return result.stages[TRAINED].mean["mad"] if result.stages else None


def describe(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Gather what ``run.json`` says before the training begins."""
    choices = group_choices()
    binary = cfg.model.get("family") == "bivm" and cfg.model.get("arguments", {}).get("binarizer") != "none"
    bits = 1 if binary else 32
    return {
        **common(cfg, run_dir, "train", f"model={choices['model']},schedule={choices['schedule']}"),
        "method": choices["model"],
        "stages": [TRAINED],
        "bits": {"weight": bits, "activation": bits},
        "preset": choices["schedule"],
    }


COMMANDS = (hydra_command("train", train, "train"),)
