"""Block-wise reconstruction: the one implementation behind BIQ, BRECQ, QDrop and AdaRound (they differ by settings).

Each block learns how its weights round (AdaRound) and how far its activations reach (LSQ), so that its output, fed
by the quantized blocks before it, matches the float block's (PTQ4VM section 3.2; BRECQ, Li et al., ICLR 2021).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from ptq4vm.errors import ConfigError, TrainingError
from ptq4vm.ops.tree import tree_leaves, tree_map
from ptq4vm.quant.capture import BlockSamples, BlockStream, TensorStore
from ptq4vm.quant.modules import QuantLayer
from ptq4vm.quant.quantizers.activation import ActivationQuantizer
from ptq4vm.quant.quantizers.drop import random_keep
from ptq4vm.quant.quantizers.weight import AdaRound

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReconstructionSettings:
    """Schedule of a block-wise reconstruction.

    Attributes:
        steps: Gradient steps per block.
        batch_frames: Frames in a step at most; recurrent blocks take as many whole clips as that makes.
        batch_positions: Output positions (pixels of the block's output, over all frames) in a step at most: blocks at
            full size then see fewer frames than blocks at 1/16 of it, for the same work. 0 sets no limit.
        rounding_lr: Adam's rate for AdaRound's V; 0 leaves weights rounded to nearest.
        scale_lr: Adam's rate for the logarithm of activation scales (a relative change), annealed by a cosine.
        bias_lr: Adam's rate for biases, annealed by a cosine; 0 leaves them (as published).
        round_weight: Weight of AdaRound's regularizer.
        relative: Divide the block's error by its value in the first step, and the regularizer by the number of
            weights. One ``round_weight`` then means the same in a block whose error is 100 and in one where it is
            0.01; with the plain sums of the published form, a short schedule decides the rounding of the last blocks
            by the regularizer alone.
        beta_start: Its exponent when it sets in.
        beta_end: Its exponent at the end, lower.
        warmup: Share of steps before the regularizer sets in.
        drop: Probability that an activation inside the block passes unquantized (QDrop).
        input_drop: Probability that an element of the block's input comes from the float network (QDrop).
        chunk_frames: Frames in one suspended forward; bounds the memory of what runs between blocks.
        memory_mib: Block outputs beyond this many MiB go to memory-mapped files.
    """

    steps: int = 20000
    batch_frames: int = 32
    batch_positions: int = 0
    rounding_lr: float = 1e-3
    scale_lr: float = 4e-5
    bias_lr: float = 0.0
    round_weight: float = 0.01
    relative: bool = False
    beta_start: float = 20.0
    beta_end: float = 2.0
    warmup: float = 0.2
    drop: float = 0.5
    input_drop: float = 0.5
    chunk_frames: int = 16
    memory_mib: float = 4096

    def __post_init__(self) -> None:
        for name in ("drop", "input_drop", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"reconstruction {name}={getattr(self, name)}: use a share in [0, 1]")
        for name in ("steps", "batch_frames", "chunk_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reconstruction {name}={getattr(self, name)}: use at least 1")


def beta(step: int, settings: ReconstructionSettings) -> float | None:
    """Exponent of AdaRound's regularizer at a step: linear from start to end, ``None`` during the warm-up."""
    begin = settings.warmup * settings.steps
    if step < begin:
        return None
    progress = (step - begin) / max(1.0, settings.steps - 1 - begin)
    return settings.beta_start + (settings.beta_end - settings.beta_start) * min(1.0, progress)


def reconstruction_loss(output: Any, target: Any) -> Tensor:
    """Squared error summed over channels and averaged over everything else, added over the tensors of the trees.

    This is the block objective of BRECQ, QDrop and PTQ4VM (its equation 3). Scalar.
    """
    pairs = zip(tree_leaves(output), tree_leaves(target), strict=True)
    return torch.stack([(o - t).square().mean() * t.shape[-3] for o, t in pairs]).sum()


class StepSampler(Sampler[list[int]]):
    """``steps`` batches of row numbers, reshuffled whenever all rows were used: a pure function of the seed."""

    def __init__(self, rows: int, batch: int, steps: int, seed: int) -> None:
        self.rows, self.batch, self.steps, self.seed = rows, min(batch, rows), steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = []
        for _ in range(self.steps):
            if len(order) < self.batch:
                order = torch.randperm(self.rows, generator=generator).tolist()
            yield order[: self.batch]
            order = order[self.batch :]


@dataclass
class BlockReport:
    """What happened in one block."""

    block: str
    seconds: float
    first_loss: float
    last_loss: float


@dataclass
class _Current:
    """The block being trained."""

    path: str
    module: nn.Module
    samples: BlockSamples
    rounding: list[AdaRound] = field(default_factory=list)


class BlockReconstruction(pl.LightningModule):
    """Reconstructs a quantized network block after block; one epoch is one block.

    Run it with ``Trainer(max_epochs=module.epochs, reload_dataloaders_every_n_epochs=1)``.

    Args:
        teacher: Folded float network, in eval mode.
        quantized: Its quantized copy, changed in place.
        blocks: Module paths in topological order.
        frames: Calibration clips ``(N, T, 3, H, W)`` float in [0, 1].
        settings: The schedule.
        seed: Seed of batches and drops; with the block's number it decides all that is random in a block.
        start: Number of blocks that are done already (in a resumed run).

    Attributes:
        reports: What happened in each finished block.
        finished: Called with a block's report once its rounding is decided, e.g. to save it.
    """

    def __init__(
        self,
        teacher: nn.Module,
        quantized: nn.Module,
        blocks: Sequence[str],
        frames: Tensor,
        settings: ReconstructionSettings,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.quantized = quantized
        self.blocks = list(blocks)
        self.settings = settings
        self.seed = seed
        self.start = start
        self.reports: list[BlockReport] = []
        self.finished: Callable[[BlockReport], None] | None = None
        self._frames = frames
        self._streams: tuple[BlockStream, BlockStream] | None = None
        self._current: _Current | None = None
        self._losses: list[Tensor] = []
        self._began = 0.0
        for path in self.blocks[start:]:
            _start_rounding(quantized.get_submodule(path), settings.rounding_lr > 0)

    @property
    def epochs(self) -> int:
        """Blocks left to do."""
        return len(self.blocks) - self.start

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One Adam over all blocks: parameters of blocks that are not running have no gradient and stay put."""
        settings = self.settings
        rounding: list[Tensor] = []
        scales: list[Tensor] = []
        biases: list[Tensor] = []
        for module in self.quantized.modules():
            if isinstance(module, AdaRound):
                rounding.append(module.rounding)
            elif isinstance(module, ActivationQuantizer) and settings.scale_lr > 0:
                scales.append(module.log_scale)
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
        length = self._frames.shape[1]
        chunks = self._frames.split(max(1, self.settings.chunk_frames // length))
        store = TensorStore(self.settings.memory_mib)

        def runs(network: nn.Module) -> list[Any]:
            return [lambda chunk=chunk: network(chunk.to(self.device)) for chunk in chunks]

        return (
            BlockStream(self.teacher, self.blocks, runs(self.teacher), "after", store),
            BlockStream(self.quantized, self.blocks, runs(self.quantized), "before", store),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the block that this epoch trains; going there advances both networks to its inputs."""
        index = self.start + self.current_epoch
        if self._current is None or self._current.path != self.blocks[index]:
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
        return DataLoader(current.samples, batch_sampler=sampler, collate_fn=lambda rows: rows, generator=generator)  # type: ignore[arg-type]

    def _enter(self, index: int) -> None:
        if self._streams is None:
            self._streams = self._open_streams()
            for _ in range(index):  # blocks of an earlier run
                for stream in self._streams:
                    stream.advance()
        teacher, quantized = self._streams
        targets, inputs = teacher.advance(), quantized.advance()
        module = self.quantized.get_submodule(self.blocks[index])
        rounding = [m for m in module.modules() if isinstance(m, AdaRound)]
        self._current = _Current(self.blocks[index], module, BlockSamples(inputs, targets), rounding)

    def on_train_epoch_start(self) -> None:
        """Put the block in training mode and seed everything random in it."""
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

    def training_step(self, batch: tuple[Any, Any, Any], batch_idx: int) -> Tensor:
        """One step on the current block."""
        current = self._current
        assert current is not None
        inputs, float_inputs, target = batch
        if self.settings.input_drop > 0:
            mix = self.settings.input_drop
            inputs = tree_map(lambda q, f: torch.where(random_keep(q, mix), f, q), inputs, float_inputs)
        args, kwargs = inputs
        loss = reconstruction_loss(current.module(*args, **kwargs), target)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of block {current.path!r} became {loss.item()}; lower preset.reconstruction.scale_lr"
            )
        self._losses.append(loss.detach())
        loss = self._with_regularizer(loss, beta(batch_idx, self.settings), current.rounding)
        self.log(f"biq/{current.path}", self._losses[-1])
        return loss

    def _with_regularizer(self, loss: Tensor, exponent: float | None, rounding: Sequence[AdaRound]) -> Tensor:
        if self.settings.relative:
            loss = loss / self._losses[0].clamp_min(1e-12)
        if exponent is None or not rounding:
            return loss
        total = torch.stack([module.regularizer(exponent) for module in rounding]).sum()
        if self.settings.relative:
            total = total / sum(module.rounding.numel() for module in rounding)
        return loss + self.settings.round_weight * total

    def on_train_epoch_end(self) -> None:
        """Decide the block's rounding and note how it went."""
        current = self._current
        assert current is not None
        for module in current.module.modules():
            if isinstance(module, ActivationQuantizer):
                module.drop = 0.0
            if isinstance(module, QuantLayer):
                module.harden()
        current.module.eval()
        tenth = max(1, len(self._losses) // 10)
        first, last = (float(torch.stack(part).mean()) for part in (self._losses[:tenth], self._losses[-tenth:]))
        report = BlockReport(current.path, time.perf_counter() - self._began, first, last)
        self.reports.append(report)
        if self.finished is not None:
            self.finished(report)
        log.info("block %s: loss %.4g -> %.4g in %.1f s", report.block, first, last, report.seconds)

    def teardown(self, stage: str) -> None:
        """End the suspended forwards and drop what they held."""
        for stream in self._streams or ():
            stream.close()
        self._streams = self._current = None


def _start_rounding(block: nn.Module, learn: bool) -> None:
    """Give every quantized layer of a block its AdaRound, in place of rounding to nearest."""
    for module in block.modules():
        if isinstance(module, QuantLayer) and module.weight_quantizer is not None and learn:
            old = module.weight_quantizer
            module.weight_quantizer = AdaRound(module.weight, old.bits, old.scale)
