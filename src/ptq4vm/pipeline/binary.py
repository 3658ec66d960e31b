"""A whole training of a network, binary or in float: pre-training, the stages of matting, evaluation.

It can be resumed at every epoch.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from ptq4vm.pipeline.measuring import measured, seconds
from ptq4vm.pipeline.run import Run, RunResult
from ptq4vm.pipeline.training import fit, saved_by_epochs
from ptq4vm.quant.checkpoint import CheckpointInfo, save_quantized
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, QuantSpec, WeightSpec
from ptq4vm.runs.progress import fingerprint, tensors_hash

log = logging.getLogger(__name__)

TRAINED = "trained"
"""Name of the stage that measures the network in the end."""
_PRETRAINING = "pretraining"
FLOAT_SPEC = QuantSpec(WeightSpec(FLOAT_BITS), ActivationSpec(FLOAT_BITS))
"""What quantization does to a trained network: nothing. Its bits are its own."""


@dataclass(kw_only=True)
class BinaryTraining(Run):
    """The training of one network on one data set.

    Attributes:
        network: The network with the weights that it begins with; it is not changed.
        teacher: The float network that gives targets, features and initial values; ``None`` without one.
        dataset: Clips to train on, and to evaluate on.
        schedule: Stages, in order.
        augmentation: How samples are augmented.
        num_workers: How many processes decode.
        memory_mib: Decoded samples are kept up to this.
    """

    network: TrainableMatting
    teacher: MattingNetwork | None
    dataset: ClipDataset
    schedule: Schedule
    augmentation: Augmentation | None = None
    num_workers: int = 0
    memory_mib: float = 1024

    def run(self) -> RunResult:
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
        self._begin(self._identity(network))
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
        return self._end(self._result(network))

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

    def _result(self, network: TrainableMatting) -> RunResult:
        if self.teacher is not None:
            self._evaluate(self.teacher, "fp32")
        self._evaluate(network, TRAINED)
        stages, timing = measured(self._state), seconds(self._state)
        steps = dict(self._state.get("steps") or {})
        clips = self._data.evaluation_clips or self._data.clip_sets.calibration
        size = clips[0].size
        cost = as_cost(_counted(copy.deepcopy(self.network).eval(), size), _counted(network, size))
        return RunResult(network, stages, timing, steps, cost, {})

    def _evaluate(self, network: MattingNetwork, stage: str) -> None:
        """Evaluate a network; again where an earlier run did that was not finished: pictures are drawn in the end."""
        if not self._data.evaluation_clips or (self._state.get("finished") and stage in measured(self._state)):
            return
        self._measure(stage, channels_last(network), self._data)


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
