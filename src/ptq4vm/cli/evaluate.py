"""``ptq4vm evaluate``: metrics and pictures of a float network or of a run folder's quantized one."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ptq4vm import api
from ptq4vm.api.models import float_model
from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command, plain
from ptq4vm.data.base import NeedsTruth
from ptq4vm.errors import CheckpointError, ConfigError, WeightsError, one_line
from ptq4vm.evaluation.folders import evaluate_folders
from ptq4vm.evaluation.results import metric_set
from ptq4vm.models.base import MattingNetwork
from ptq4vm.pipeline.teacher import make_truth
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.sheets import write_sheets
from ptq4vm.report.tables import metrics_table
from ptq4vm.runs.layout import FRAMES, METRICS, SHEETS, check_evaluation_folder
from ptq4vm.runs.metrics import write_frames_csv, write_metrics_json

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    """Evaluate ``checkpoint`` (``fp32`` or a run folder) on ``data``, or the folder ``pred`` against ``true``.

    Writes ``metrics.json``, ``frames.csv`` and, of a network, pictures.
    """
    build.quiet()
    options = build.check(cfg, complete=cfg.pred is None and cfg["true"] is None)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    check_evaluation_folder(run_dir)
    metric_set(options.metrics)  # before anything takes its time
    if options.pred is not None or options.true is not None:
        _evaluate_folders(options, run_dir)
        return
    float_only = options.checkpoint == "fp32"
    network = build.model(cfg) if float_only else _load(cfg, options.checkpoint)
    label = "fp32" if float_only else "quantized"
    data, teacher = build.data(cfg), None
    if isinstance(data, NeedsTruth):
        teacher = network if isinstance(network, api.Model) else float_model(options.checkpoint, cfg.model.weights)
        make_truth(data, teacher.network, teacher.partition, options.downsample_ratio)
    networks = {label: network}
    if not float_only and options.baseline:
        base = teacher or _float_model(options.checkpoint, cfg.model.weights)
        networks = {"fp32": base, **networks} if base is not None else networks
    pictures = SheetCollector([clip.name for clip in data.clips().evaluation])
    stages = {
        stage: api.evaluate(
            each,
            data,
            downsample_ratio=options.downsample_ratio,
            num_workers=options.num_workers,
            observers=[pictures.observer(stage)],
            trainer=build.trainer(cfg, run_dir),
            metrics=options.metrics,
            teacher=teacher,
        )
        for stage, each in networks.items()
    }
    write_metrics_json(run_dir / METRICS, stages)
    write_frames_csv(run_dir / FRAMES, stages)
    reference = "fp32" if len(stages) > 1 else None
    write_sheets(run_dir / SHEETS, pictures, label, stages, "FP32" if float_only else label, reference)
    title = f"{options.checkpoint} on {len(stages[label].clips)} clips{build.about_truth(data)}"
    console = Console()
    console.print(metrics_table(stages, title=title, reference=reference or label))
    console.print(f"written to {run_dir}", soft_wrap=True)


def _float_model(checkpoint: str, weights: str | None) -> api.Model | None:
    """The float network of a run, to compare with; ``None``, and a line that says so, where there are no weights."""
    try:
        return float_model(checkpoint, weights)
    except WeightsError as error:
        log.warning("FP32 is not measured beside it: %s", one_line(error))
        return None


def _evaluate_folders(options: build.RunOptions, run_dir: Path) -> None:
    if options.pred is None or options.true is None:
        given, missing = ("pred", "true") if options.true is None else ("true", "pred")
        raise ConfigError(f"{given}= needs {missing}=: give both folders, or neither to run a network")
    result = evaluate_folders(options.pred, options.true, metric_set(options.metrics), options.num_workers)
    stages = {"folder": result}
    write_metrics_json(run_dir / METRICS, stages)
    write_frames_csv(run_dir / FRAMES, stages)
    console = Console()
    console.print(metrics_table(stages, title=f"{options.pred} on {len(result.clips)} clips", reference="folder"))
    console.print(f"written to {run_dir}", soft_wrap=True)


def _load(cfg: DictConfig, checkpoint: str) -> MattingNetwork:
    """The quantized network of a run folder.

    Raises:
        CheckpointError: It holds another network, or other bits, than the command line asks for.
    """
    info = read_info(checkpoint)
    if build.was_given("model"):
        wanted, found = {"family": cfg.model.family, **plain(cfg.model.arguments)}, info.model["arguments"]
        found = {"family": info.model["family"], **found}
        other = [key for key in wanted if found.get(key) != wanted[key]]
        if other:
            key = other[0]
            raise CheckpointError(
                f"{checkpoint} holds a network of {key} {found.get(key)}, not {wanted[key]}: leave model= out"
            )
    bits = (info.spec.weight.bits, info.spec.activation.bits)
    if build.was_given("bits") and bits != (cfg.bits.weight, cfg.bits.activation):
        raise CheckpointError(
            f"{checkpoint} holds a network of w{bits[0]}a{bits[1]}, not w{cfg.bits.weight}a{cfg.bits.activation}: "
            "leave bits= out, or quantize again"
        )
    return api.load_checkpoint(checkpoint)


COMMANDS = (hydra_command("evaluate", evaluate),)
