"""What every run has, whatever its stages do: a network, a folder, who trains, who looks, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.evaluation.cost import Cost
from ptq4vm.evaluation.evaluator import FrameObserver
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.models.base import MattingNetwork
from ptq4vm.pipeline.measuring import measure_stage
from ptq4vm.quant.spec import Partition
from ptq4vm.runs.progress import RunState
from ptq4vm.system.trainers import LoggerFactory, TrainerFactory, default_trainer

ObserverFactory = Callable[[str], FrameObserver]


@dataclass(frozen=True)
class RunResult:
    """The result of a whole run.

    Attributes:
        network: The quantized network, absorbed, in eval mode (the folded float one for ``bits=fp32``), or the trained
            one.
        stages: Evaluation after each stage (``fp32``, ``rtn``, ``biq``, ``gac``); empty without evaluation clips.
        timing: ``{"stages": {name: seconds}, "blocks": {path: seconds}, "total": seconds}``.
        steps: Number of gradient steps of each learning stage.
        cost: Cost of one frame, and size of the file.
        layers: Noise power over signal power at the output of every quantized layer; see
            :func:`ptq4vm.evaluation.layer_errors.layer_errors`.
    """

    network: MattingNetwork
    stages: dict[str, EvaluationResult]
    timing: dict[str, Any]
    steps: dict[str, int]
    cost: Cost
    layers: dict[str, float]


@dataclass(kw_only=True)
class Run:
    """A run of several stages in a folder, to which the kinds of runs add what theirs need.

    Attributes:
        network: The network that it begins with; it is not changed.
        model: The entry of ``quantizer.yaml`` that rebuilds the network's architecture.
        partition: Blocks, float modules and edge layers (patterns allowed).
        run_dir: The run folder, where everything goes.
        trainer: Factory that builds a Lightning Trainer from the arguments that a stage adds.
        loggers: Factory that gives the Lightning loggers of a training stage, by its name.
        observer: Factory that gives, for a stage's name, who looks at its evaluated frames; pictures are drawn from
            that.
        seed: Seed of everything random.
        downsample_ratio: Size at which the network is evaluated, as a fraction of the frames' size, in (0, 1].
        notes: Further entries of ``quantizer.yaml``.
        finish: Function that is called with the result before the run counts as finished, to write what else belongs
            to it.
    """

    network: MattingNetwork
    model: Mapping[str, Any]
    partition: Partition
    run_dir: Path
    trainer: TrainerFactory = default_trainer
    loggers: LoggerFactory = lambda stage: []
    observer: ObserverFactory | None = None
    seed: int = 0
    downsample_ratio: float = 1.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[RunResult], None] = lambda result: None

    def _begin(self, identity: Mapping[str, str]) -> None:
        """Take up the state of an earlier run in the folder, which has to be one of the same kind.

        Raises:
            ConfigError: The folder holds a run with other settings.
        """
        self._state = RunState(self.run_dir, dict(identity))

    def _measure(self, stage: str, network: MattingNetwork, datamodule: MattingDataModule) -> None:
        """Evaluate a stage's network and keep the result in the state."""
        observer = None if self.observer is None else self.observer(stage)
        measure_stage(self._state, stage, network, datamodule, self.trainer, self.downsample_ratio, observer)

    def _end(self, result: RunResult) -> RunResult:
        """Let what else belongs to the result be written; only then the run counts as finished."""
        self.finish(result)
        self._state.put("finished", True)
        return result
