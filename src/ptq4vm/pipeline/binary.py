"""A whole training of a network, binary or in float: pre-training, the stages of matting, evaluation.

It can be resumed at every epoch.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader

from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.base import ClipDataset
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.classification import ImageFolder
from ptq4vm.errors import ConfigError
from ptq4vm.evaluation.cost import Cost
from ptq4vm.evaluation.products import count_products
from ptq4vm.methods.binary.matting import BinaryMatting
from ptq4vm.methods.binary.pretraining import Pretraining
from ptq4vm.methods.binary.schedule import MattingStage, Schedule
from ptq4vm.models.base import MattingNetwork, TrainableMatting
from ptq4vm.models.bivm.cost import BinaryCost, measure
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.ops.formats import channels_last
from ptq4vm.pipeline.measuring import measure_stage, measured, seconds
from ptq4vm.pipeline.pipeline import ObserverFactory, QuantizationResult
from ptq4vm.pipeline.training import fit, saved_by_epochs
from ptq4vm.quant.checkpoint import CheckpointInfo, save_quantized
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, Partition, QuantSpec, WeightSpec
from ptq4vm.runs.progress import RunState, fingerprint, tensors_hash
from ptq4vm.system.trainers import LoggerFactory, TrainerFactory, default_trainer

log = logging.getLogger(__name__)

TRAINED = "trained"
"""Name of the stage that measures the network in the end."""
_PRETRAINING = "pretraining"
FLOAT_SPEC = QuantSpec(WeightSpec(FLOAT_BITS), ActivationSpec(FLOAT_BITS))
"""What quantization does to a trained network: nothing. Its bits are its own."""


@dataclass
class BinaryTraining:
    """The training of one network on one data set.

    Attributes:
        network: The network with the weights that it begins with; it is not changed.
        model: The entry of ``quantizer.yaml`` that rebuilds the network's architecture.
        partition: What quantization would leave alone in the network.
        teacher: The float network that gives targets, features and initial values; ``None`` without one.
        dataset: Clips to train on, and to evaluate on.
        schedule: Stages, in order.
        run_dir: The run folder, where everything goes.
        trainer: Factory that builds a Lightning Trainer from the arguments that a stage adds.
        loggers: Factory that gives the Lightning loggers of a stage, by its name.
        observer: Factory that gives, for a stage's name, who looks at its evaluated frames.
        seed: Seed of everything random.
        downsample_ratio: Size at which the network is evaluated, as a fraction of the frames' size, in (0, 1].
        augmentation: How samples are augmented.
        num_workers: How many processes decode.
        memory_mib: Decoded samples are kept up to this.
        notes: Further entries of ``quantizer.yaml``.
        finish: Function that is called with the result before the run counts as finished.
    """

    network: TrainableMatting
    model: Mapping[str, Any]
    partition: Partition
    teacher: MattingNetwork | None
    dataset: ClipDataset
    schedule: Schedule
    run_dir: Path
    trainer: TrainerFactory = default_trainer
    loggers: LoggerFactory = lambda stage: []
    observer: ObserverFactory | None = None
    seed: int = 0
    downsample_ratio: float = 1.0
    augmentation: Augmentation | None = None
    num_workers: int = 0
    memory_mib: float = 1024
    notes: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[QuantizationResult], None] = lambda result: None

    def run(self) -> QuantizationResult:
        """Do what is left to do of the training.

        Raises:
            PTQ4VMError: With one line that says what is wrong and what to do; what was finished stays.
        """
        pl.seed_everything(self.seed, workers=True, verbose=False)
        self._first = next(iter(self.schedule.stages.values()))
        self._data = self._datamodule(self._first)
        network = copy.deepcopy(self.network)
        if self.schedule.initialise and self.teacher is not None:
            log.info("%d tensors begin as the float network's", initialise(network, self.teacher))
        self._state = RunState(self.run_dir, self._identity(network))
        if self.schedule.pretraining.root is not None:
            self._pretrain(network)
        for name, stage in self.schedule.stages.items():
            self._train(network, name, stage)
        network.decide()
        partition = resolve(network, self.partition)
        fold_batch_norm(network, partition.float_modules)
        info = CheckpointInfo(
            {**self.model, "arguments": network.decided_arguments(self.model["arguments"])},
            FLOAT_SPEC,
            partition,
            {"label": "W1A1" if network.weight_bits == 1 else "FP32", **self.notes},
        )
        save_quantized(self.run_dir, network, info)
        result = self._result(network)
        self.finish(result)
        self._state.put("finished", True)
        return result

    def _datamodule(self, stage: MattingStage) -> MattingDataModule:
        return MattingDataModule(
            self.dataset,
            None,
            stage.clip_length,
            stage.crop,
            stage.clips,
            stage.batch_size,
            stage.hflip,
            stage.zoom,
            self.num_workers,
            memory_mib=self.memory_mib,
            seed=self.seed,
            augmentation=self.augmentation,
            size=stage.size,
        )

    def _pretrain(self, network: TrainableMatting) -> None:
        """Train the encoder on pictures, unless that was done."""
        stage = self.schedule.pretraining
        assert stage.root is not None
        if not isinstance(network, BiVM):
            raise ConfigError(
                f"schedule.pretraining is for binary networks, which {type(network).__name__} is not: "
                "set its root to null"
            )
        if self._restored(network, _PRETRAINING):
            return
        pictures = ImageFolder(stage.root, stage.size)
        loader = DataLoader(pictures, stage.batch_size, shuffle=True, num_workers=self.num_workers)
        module = Pretraining(network, len(pictures.classes), stage)
        self._fit(network, _PRETRAINING, module, stage.epochs, {"train_dataloaders": loader})

    def _train(self, network: TrainableMatting, name: str, stage: MattingStage) -> None:
        """Train one stage of matting, unless that was done."""
        if self._restored(network, name):
            return
        module = BinaryMatting(network, self.teacher, stage)
        data = self._data if stage == self._first else self._datamodule(stage)  # whose samples are decoded already
        self._fit(network, name, module, stage.epochs, {"datamodule": data})

    def _restored(self, network: nn.Module, name: str) -> bool:
        saved = self._state.load_tensors(name)
        if saved is not None:
            log.info("%s was done before", name)
            network.load_state_dict(saved[0])
        return saved is not None

    def _fit(
        self, network: TrainableMatting, name: str, module: pl.LightningModule, epochs: int, data: Mapping[str, Any]
    ) -> None:
        """Train ``module``, of which ``network`` is a part, going on after the last epoch that was saved."""
        if epochs > 0:
            folder = self._state.path(name)
            with self._state.clock(name):
                arguments, saving = saved_by_epochs(folder, data)
                made = (self.trainer, self.loggers(name), self.run_dir, module, arguments)
                trainer = fit(*made, max_epochs=epochs, **saving)
            self._state.count_steps(name, trainer.global_step)
            shutil.rmtree(folder, ignore_errors=True)
        self._state.save_tensors(name, dict(network.state_dict()), {})

    def _identity(self, network: nn.Module) -> dict[str, str]:
        """Everything that decides the result, under the names that users know it by."""
        return fingerprint(
            model=dict(self.model),
            weights=tensors_hash(network.state_dict()),
            teacher=None if self.teacher is None else tensors_hash(self.teacher.state_dict()),
            schedule=self.schedule,
            seed=self.seed,
            downsample_ratio=self.downsample_ratio,
            augmentation=self.augmentation,
            training_clips=self._data.content_hash(),
            evaluation_clips=[(clip.name, clip.num_frames, clip.size) for clip in self._data.evaluation_clips],
        )

    def _result(self, network: TrainableMatting) -> QuantizationResult:
        if self.teacher is not None:
            self._evaluate(self.teacher, "fp32")
        self._evaluate(network, TRAINED)
        stages, timing = measured(self._state), seconds(self._state)
        steps = dict(self._state.get("steps") or {})
        clips = self._data.evaluation_clips or self._data.clip_sets.calibration
        size = clips[0].size
        cost = as_cost(_counted(copy.deepcopy(self.network).eval(), size), _counted(network, size))
        return QuantizationResult(network, stages, timing, steps, cost, {})

    def _evaluate(self, network: MattingNetwork, stage: str) -> None:
        """Evaluate a network; again where an earlier run did that was not finished: pictures are drawn in the end."""
        if not self._data.evaluation_clips or (self._state.get("finished") and stage in measured(self._state)):
            return
        observer = None if self.observer is None else self.observer(stage)
        network = channels_last(network)
        measure_stage(self._state, stage, network, self._data, self.trainer, self.downsample_ratio, observer)


def initialise(network: nn.Module, teacher: nn.Module) -> int:
    """Begin with a float network's tensors where name and shape are the same, in place.

    Returns:
        How many there were.
    """
    own, given = network.state_dict(), teacher.state_dict()
    same = {key: given[key] for key, value in own.items() if key in given and given[key].shape == value.shape}
    network.load_state_dict(same, strict=False)
    return len(same)


def _counted(network: MattingNetwork, size: tuple[int, int]) -> BinaryCost:
    """What a network costs, products of two activations included, whose factors are floats."""
    cost = measure(network, size)
    return replace(cost, float_macs=cost.float_macs + sum(count_products(network, size).values()))


def as_cost(trained: BinaryCost, stored: BinaryCost) -> Cost:
    """The cost of a binary network in the words of every run.

    Args:
        trained: Cost of the network as it is trained, with its norms: what the papers count.
        stored: Cost of the decided network, whose norms are folded: what a file holds.
    """
    bops = stored.binary_macs + FLOAT_BITS**2 * stored.float_macs
    size = stored.bits / 8 + 4 * stored.floats
    macs = (stored.binary_macs + stored.float_macs) / 1e9
    return Cost(macs, round(bops), round(size), trained.gflops, trained.mb)
