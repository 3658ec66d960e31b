"""Stages of a run that are measured, and what its state says of those that were."""

from __future__ import annotations

import logging
from typing import Any

from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.evaluation.evaluator import FrameObserver, evaluate
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.models.base import MattingNetwork
from ptq4vm.runs.progress import RunState
from ptq4vm.system.trainers import EVALUATING, TrainerFactory

log = logging.getLogger(__name__)


def measure_stage(
    state: RunState,
    stage: str,
    network: MattingNetwork,
    datamodule: MattingDataModule,
    trainer: TrainerFactory,
    downsample_ratio: float,
    observer: FrameObserver | None,
) -> None:
    """Evaluate a stage's network, and keep the result and the seconds in the state.

    Args:
        state: The state of the run.
        stage: Name of the stage.
        network: The network as it is after the stage.
        datamodule: Gives the evaluation clips.
        trainer: Factory of the Trainer that evaluates.
        downsample_ratio: Size at which the network is evaluated, as a fraction of the frames' size, in (0, 1].
        observer: Who looks at the evaluated frames, or nobody.
    """
    log.info("evaluating %s on %d clips", stage, len(datamodule.evaluation_clips))
    observers = [] if observer is None else [observer]
    with state.clock(f"evaluate_{stage}"):
        found = evaluate(network, datamodule, trainer(**EVALUATING), downsample_ratio, observers)
    results = state.get("results") or {}
    state.put("results", {**results, stage: {"mean": found.mean, "clips": found.clips}})


def measured(state: RunState) -> dict[str, EvaluationResult]:
    """Results of the stages that were measured, by name; without single frames, which the state does not keep."""
    results = state.get("results") or {}
    return {name: EvaluationResult(dict(value["mean"]), dict(value["clips"]), {}) for name, value in results.items()}


def seconds(state: RunState) -> dict[str, Any]:
    """What a run took so far: ``{"stages": {name: seconds}, "blocks": {path: seconds}, "total": seconds}``."""
    timing = state.timing
    return {**timing, "total": sum(timing["stages"].values())}
