"""``ptq4vm quantize``: quantize one network on one dataset and evaluate every stage."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ptq4vm import api
from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command
from ptq4vm.cli.record import recorded
from ptq4vm.report.tables import metrics_table
from ptq4vm.runs.layout import SHEETS, check_run_folder, occupied


def quantize(cfg: DictConfig) -> float | None:
    """Run the pipeline of a composed configuration and print the table.

    Returns:
        MAD of the quantized network, for sweepers that look for the best; ``None`` without evaluation clips.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    check_run_folder(run_dir)
    with occupied(run_dir), recorded(cfg, run_dir):
        return _quantize(cfg, run_dir)


def _quantize(cfg: DictConfig, run_dir: Path) -> float | None:
    build.quiet()
    options = build.check(cfg)
    method, spec = build.method(cfg)
    preset = build.preset(cfg)
    data = build.data(cfg)
    with build.loggers(cfg, run_dir) as tracking:
        result = api.quantize(
            build.model(cfg),
            data,
            bits=spec,
            method=method,
            preset=preset,
            budget=build.budget(cfg),
            flow=build.flow(cfg, method, spec, preset),
            run_dir=run_dir,
            overwrite=options.overwrite,
            seed=options.seed,
            num_workers=options.num_workers,
            downsample_ratio=options.downsample_ratio,
            baseline=options.baseline,
            stage_cache=options.stage_cache,
            flow_cache_mib=options.flow_cache_mib,
            augmentation=build.augmentation(cfg),
            trainer=build.trainer(cfg, run_dir),
            loggers=tracking,
            notes=build.notes(cfg),
        )
        tracking.results(result.stages, run_dir / SHEETS)
    console = Console()
    if result.stages:
        clips = len(next(iter(result.stages.values())).clips)
        title = f"{HydraConfig.get().runtime.choices['bits'].upper()} on {clips} clips{build.about_truth(data)}"
        console.print(metrics_table(result.stages, title=title))
    console.print(f"run folder: {run_dir} ({result.timing['total']:.0f} s)", soft_wrap=True)
    return list(result.stages.values())[-1].mean["mad"] if result.stages else None


COMMANDS = (hydra_command("quantize", quantize),)
