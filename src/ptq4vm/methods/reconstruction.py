"""Reconstruction unit by unit: the one implementation behind BIQ, BRECQ, QDrop, AdaRound and the whole-network form.

Each unit learns how its weights round (AdaRound, say) and how far its activations reach (LSQ, say), so that its
output, fed by the quantized units before it, matches the float unit's (PTQ4VM section 3.2; BRECQ, Li et al., ICLR
2021). A unit is a block, a single layer of one, or the whole network.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ptq4vm.errors import TrainingError
from ptq4vm.methods.schedule import ReconstructionPass, ReconstructionSettings, beta
from ptq4vm.methods.soundness import check_learned
from ptq4vm.methods.units import StepSampler, Unit, make_units, reconstruction_loss
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.tree import tree_map
from ptq4vm.quant.capture import (
    BlockCall,
    BlockSamples,
    BlockStream,
    TensorStore,
    clips_in_chunk,
    follow_both,
    layer_calls,
)
from ptq4vm.quant.insert import enable_activations
from ptq4vm.quant.layers import QuantLayer
from ptq4vm.quant.quantizers.base import ActivationQuantizer, WeightQuantizer
from ptq4vm.quant.quantizers.drop import random_keep
from ptq4vm.quant.registries import ROUNDINGS

log = logging.getLogger(__name__)

FisherSource = Callable[[MattingNetwork, Sequence[str], int, TensorStore], dict[str, list[Any]]]
"""Teacher, blocks, clips in a chunk, and where tensors are kept; gives weights by block, a tree for each chunk."""


@dataclass
class BlockReport:
    """What happened in one unit; ``block`` is its path, empty for the whole network."""

    block: str
    seconds: float
    first_loss: float
    last_loss: float


@dataclass
class _Current:
    """The unit being trained."""

    unit: Unit
    module: nn.Module
    samples: BlockSamples
    rounding: list[WeightQuantizer] = field(default_factory=list)


class BlockReconstruction(pl.LightningModule):
    """Reconstructs a quantized network unit after unit; one epoch is one unit.

    Run it with ``Trainer(max_epochs=module.epochs, reload_dataloaders_every_n_epochs=1)``.

    Args:
        teacher: Folded float network, in eval mode.
        quantized: Quantized copy of the teacher, changed in place.
        blocks: Module paths in topological order.
        frames: Calibration clips ``(N, T, 3, H, W)`` float in [0, 1].
        settings: What the pass learns, and its schedule.
        seed: Seed of batches and drops; with the unit's number it decides all that is random in a unit.
        start: Number of units that are done already (in a resumed run).
        label: Prefix of the logged losses.
        fisher: Gives the weights of the squared errors for the clips of a chunk, by block path: one tree of the form
            of the block's output for each chunk; see :class:`ptq4vm.methods.fisher.FisherWeights`.

    Attributes:
        reports: What happened in each finished unit.
        finished: Called with a unit's report once its rounding is decided, e.g. to save it.
    """

    def __init__(
        self,
        teacher: MattingNetwork,
        quantized: MattingNetwork,
        blocks: Sequence[str],
        frames: Tensor,
        settings: ReconstructionPass | ReconstructionSettings,
        seed: int = 0,
        start: int = 0,
        label: str = "biq",
        fisher: FisherSource | None = None,
    ) -> None:
        super().__init__()
        what = settings if isinstance(settings, ReconstructionPass) else ReconstructionPass(settings)
        self.teacher = teacher
        self.quantized = quantized
        self.units = make_units(quantized, blocks, what.unit)
        self.settings = what.settings
        self.seed = seed
        self.start = start
        self.label = label
        self.fisher = fisher
        self.reports: list[BlockReport] = []
        self.finished: Callable[[BlockReport], None] | None = None
        self._blocks = list(dict.fromkeys(unit.block for unit in self.units))
        self._entered = 0
        self._calls: tuple[list[BlockCall], list[BlockCall]] = ([], [])
        self._frames = frames
        self._streams: tuple[BlockStream, BlockStream] | None = None
        self._weights: dict[str, list[Any]] = {}
        self._current: _Current | None = None
        self._losses: list[Tensor] = []
        self._reference = torch.ones(())
        self._activations = what.activations
        self._began = 0.0
        for unit in self.units[start:]:
            if self.settings.rounding_lr > 0:
                _start_rounding(quantized.get_submodule(unit.path), ROUNDINGS[what.rounding])
        enable_activations(quantized, what.activations)

    @property
    def epochs(self) -> int:
        """How many units are left to do."""
        return len(self.units) - self.start

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One Adam over all blocks: parameters of blocks that are not running have no gradient and stay put."""
        settings = self.settings
        rounding: list[Tensor] = []
        scales: list[Tensor] = []
        biases: list[Tensor] = []
        for module in self.quantized.modules():
            if isinstance(module, WeightQuantizer):
                rounding += module.learned()
            elif isinstance(module, ActivationQuantizer) and settings.scale_lr > 0:
                scales += module.learned()
            elif isinstance(module, QuantLayer) and settings.bias_lr > 0:
                module.bias.requires_grad_()
                biases.append(module.bias)
        groups = [
            (rounding, settings.rounding_lr),
            (scales, settings.scale_lr),
            (biases, settings.bias_lr),
        ]
        optimizer = torch.optim.Adam([{"params": params, "lr": lr} for params, lr in groups if params])

        def cosine(step: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * (step % settings.steps) / settings.steps))

        constant = [params is rounding for params, _ in groups if params]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [(lambda _: 1.0) if c else cosine for c in constant])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _open_streams(self) -> tuple[BlockStream, BlockStream]:
        clips = clips_in_chunk(self._frames, self.settings.chunk_frames)
        store = TensorStore(self.settings.memory_mib)
        if self.fisher is not None:
            self._weights = self.fisher(self.teacher, self._blocks, clips, store)
        return follow_both(self.teacher, self.quantized, self._blocks, self._frames.split(clips), self.device, store)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the unit that this epoch trains; going there advances both networks to its inputs."""
        index = self.start + self.current_epoch
        if self._current is None or self._current.unit != self.units[index]:
            self._enter(index)
        current = self._current
        assert current is not None
        frames = self._frames.shape[0] * self._frames.shape[1]
        batch = self.settings.batch_frames * len(current.samples) // frames
        if self.settings.batch_positions > 0:
            batch = min(batch, self.settings.batch_positions // current.samples.positions)
        batch = max(1, batch)
        seed = self.seed * 1_000_003 + index
        sampler = StepSampler(len(current.samples), batch, self.settings.steps, seed)
        # A loader without a generator draws from the global one: in a run's first epoch before it is seeded, in later
        # epochs after. A resumed run would then drop other activations than an uninterrupted one.
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(current.samples, batch_sampler=sampler, collate_fn=lambda rows: rows, generator=generator)

    def _enter(self, index: int) -> None:
        """Bring both networks to a unit: through the blocks of an earlier run first, where there was one."""
        unit = self.units[index]
        if self._streams is None:
            self._streams = self._open_streams()
        teacher, quantized = self._streams
        while self._entered <= self._blocks.index(unit.block):
            if self._entered:
                self._weights.pop(self._blocks[self._entered - 1], None)
            self._calls = (quantized.advance(), teacher.advance())
            self._entered += 1
        inputs, targets = self._calls
        if unit.layer:
            block = self.quantized.get_submodule(unit.block), self.teacher.get_submodule(unit.block)
            inputs, targets = (
                layer_calls(module, unit.layer, calls) for module, calls in zip(block, self._calls, strict=True)
            )
        module = self.quantized.get_submodule(unit.path)
        rounding = [m for m in module.modules() if isinstance(m, WeightQuantizer) and m.learned()]
        self._current = _Current(
            unit, module, BlockSamples(inputs, targets, self._weights.get(unit.block) or ()), rounding
        )

    def on_train_epoch_start(self) -> None:
        """Put the unit in training mode and seed everything random in it."""
        current = self._current
        assert current is not None
        self._began = time.perf_counter()
        self._losses = []
        torch.manual_seed(self.seed * 1_000_003 + self.start + self.current_epoch)
        self.quantized.eval()
        current.module.train()
        for module in current.module.modules():
            if isinstance(module, ActivationQuantizer):
                module.drop = self.settings.drop

    def training_step(self, batch: tuple[Any, Any, Any, Any], batch_idx: int) -> Tensor:
        """One step on the current unit."""
        current = self._current
        assert current is not None
        inputs, float_inputs, target, weight = batch
        if self.settings.input_drop > 0:
            mix = self.settings.input_drop
            inputs = tree_map(lambda q, f: torch.where(random_keep(q, mix), f, q), inputs, float_inputs)
        args, kwargs = inputs
        loss = reconstruction_loss(current.module(*args, **kwargs), target, weight)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of {current.unit.title} became {loss.item()}; lower preset.reconstruction.scale_lr"
            )
        if not self._losses:
            self._reference = loss.detach() if self._activations else self._nearest_loss(args, kwargs, target, weight)
        self._losses.append(loss.detach())
        loss = self._with_regularizer(loss, beta(batch_idx, self.settings), current.rounding)
        self.log(f"{self.label}/{current.unit.path or 'network'}", self._losses[-1])
        if self.settings.monitor and self.global_step % self.settings.monitor == 0:
            self.log(f"{self.label}/alpha", self._alpha_error())
        return loss

    @torch.no_grad()
    def _nearest_loss(self, args: Any, kwargs: Any, target: Any, weight: Any) -> Tensor:
        """The unit's error on a batch while its weights are still rounded to nearest. Scalar."""
        current = self._current
        assert current is not None
        current.module.eval()  # roundings decide
        loss = reconstruction_loss(current.module(*args, **kwargs), target, weight)
        current.module.train()
        return loss

    @torch.no_grad()
    def _alpha_error(self) -> Tensor:
        """Mean absolute difference of alpha between the quantized network as it is now and the float one. Scalar."""
        clip = self._frames[:1].to(self.device)
        training = [module for module in self.quantized.modules() if module.training]
        self.quantized.eval()
        found, target = (network.matte(clip).alpha for network in (self.quantized, self.teacher))
        for module in training:
            module.training = True
        return (found - target).abs().mean()

    def _with_regularizer(self, loss: Tensor, exponent: float | None, rounding: Sequence[WeightQuantizer]) -> Tensor:
        if self.settings.relative:
            loss = loss / self._reference.clamp_min(1e-12)
        if exponent is None or not rounding:
            return loss
        total = torch.stack([module.regularizer(exponent) for module in rounding]).sum()
        if self.settings.relative:
            total = total / sum(learned.numel() for module in rounding for learned in module.learned())
        return loss + self.settings.round_weight * total

    def on_train_epoch_end(self) -> None:
        """Decide the unit's rounding and note how it went."""
        current = self._current
        assert current is not None
        for module in current.module.modules():
            if isinstance(module, ActivationQuantizer):
                module.drop = 0.0
            if isinstance(module, QuantLayer):
                module.harden()
        current.module.eval()
        check_learned(current.module, self.label.upper(), current.unit.path)
        tenth = max(1, len(self._losses) // 10)
        first, last = (float(torch.stack(part).mean()) for part in (self._losses[:tenth], self._losses[-tenth:]))
        report = BlockReport(current.unit.path, time.perf_counter() - self._began, first, last)
        self.reports.append(report)
        if self.finished is not None:
            self.finished(report)
        log.info("%s: loss %.4g -> %.4g in %.1f s", current.unit.title, first, last, report.seconds)

    def teardown(self, stage: str) -> None:
        """End the suspended forwards and drop what they held."""
        for stream in self._streams or ():
            stream.close()
        self._streams = self._current = None
        self._calls, self._weights = ([], []), {}
        enable_activations(self.quantized, True)


def _start_rounding(block: nn.Module, kind: type[WeightQuantizer]) -> None:
    """Give every quantized layer of a block its learned rounding, in place of rounding to nearest."""
    for module in block.modules():
        if isinstance(module, QuantLayer) and module.weight_quantizer is not None:
            module.weight_quantizer = kind.start(module.weight, module.weight_quantizer)
