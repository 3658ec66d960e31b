"""Closed-form rounding: every layer's weights from second moments, block by block, without a gradient step.

The layers are taken in the order in which they run. Each is fitted to what it reads once the layers before it are
quantized, so that its output comes as near to the float layer's as its grid allows
(:mod:`ptq4vm.quant.second_order`); its bias then takes the mean of what is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ptq4vm.errors import ConfigError
from ptq4vm.methods.schedule import check_counts
from ptq4vm.methods.soundness import check_learned
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.capture import BlockCall, BlockStream, TensorStore, clips_in_chunk, follow_both
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layer_samples import sample_layers
from ptq4vm.quant.layers import QuantLayer
from ptq4vm.quant.quantizers.base import per_column
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.second_order import compensated, held, moments, solve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClosedFormSettings:
    """How closed-form rounding is done.

    Attributes:
        frames: Frames of each calibration clip that are looked at, its first ones.
        samples: Places at which a layer's input is looked at, at least.
        samples_per_weight: The same for each weight of a row: wide layers take more, since moments of few samples say
            as much of the samples as of the network. :attr:`most_samples` at most.
        most_samples: Limit of both.
        ridge: How strongly weights are held at their float values while they make up for the errors of earlier layers,
            relative to the energy of what they read.
        damping: The same while they are rounded.
        candidates: Scales that are tried for every output channel.
        sweeps: How often scales and codes are fitted to each other afterwards.
        chunk_frames: Frames in one suspended forward; bounds the memory of what runs between blocks.
        memory_mib: Block outputs beyond this many MiB go to memory-mapped files.
    """

    frames: int = 3
    samples: int = 8192
    samples_per_weight: int = 32
    most_samples: int = 49152
    ridge: float = 10.0
    damping: float = 0.01
    candidates: int = 6
    sweeps: int = 2
    chunk_frames: int = 24
    memory_mib: float = 4096

    def __post_init__(self) -> None:
        counts = ("frames", "samples", "samples_per_weight", "most_samples", "candidates", "chunk_frames")
        check_counts("closed_form", self, counts)
        for name in ("ridge", "damping"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"closed_form {name}={getattr(self, name)}: use a positive number")
        if self.sweeps < 0:
            raise ConfigError(f"closed_form sweeps={self.sweeps}: use 0 or more")

    def places(self, width: int) -> int:
        """How many places are looked at of a layer with ``width`` weights in a row."""
        return min(self.most_samples, max(self.samples, self.samples_per_weight * width))


@torch.no_grad()
def fit_layer(layer: QuantLayer, quantized: Tensor, floating: Tensor, settings: ClosedFormSettings) -> None:
    """Decide a layer's codes, scales and bias.

    Args:
        layer: Changed in place; its weight stays the float one.
        quantized: Samples of its input in the quantized network, ``(G, N, K)``, as the layer multiplies them.
        floating: Samples of its input in the float network, at the same places.
        settings: How samples are taken, and how strongly weights are held.
    """
    quantizer = layer.weight_quantizer
    assert quantizer is not None
    groups = len(quantized)
    weight = layer.weight.detach().float()
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    factor: Tensor | float = 1.0
    if quantizer.factor is not None:  # the grid is that of weight times factor; inputs then count in integer codes
        factor = per_column(quantizer.factor, weight).expand_as(weight[:1]).reshape(1, 1, -1)
    seen = moments(quantized / factor, floating / factor)
    target = compensated(rows * factor, seen, settings.ridge)
    moment = held(seen.quantized, seen.energy, settings.damping)
    codes, scale = solve(target, moment, quantizer.quant_min, quantizer.quant_max, settings.candidates, settings.sweeps)
    wanted = (rows * factor * seen.float_mean[:, None]).sum(-1)
    given = (codes * scale[..., None] * seen.mean[:, None]).sum(-1)
    layer.bias += (wanted - given).reshape(-1)
    # laid out in memory as the weight is, and as a checkpoint is loaded: kernels then add in the same order
    laid_out = torch.empty_like(weight).copy_(codes.reshape(weight.shape))
    layer.weight_quantizer = FixedCodes(
        laid_out, quantizer.bits, scale.reshape(-1), quantizer.factor, quantizer.reduce_range
    )


class ClosedFormRounding(pl.LightningModule):
    """Fits the layers of a quantized network block after block; one step is one block.

    Run it with ``Trainer(max_epochs=1)``.

    Args:
        teacher: Folded float network, in eval mode.
        quantized: Quantized copy of the teacher, changed in place.
        blocks: Module paths in topological order.
        frames: Calibration clips ``(N, T, 3, H, W)`` float in [0, 1].
        settings: How samples are taken, and how strongly weights are held.
        seed: Seed of the places that are looked at.
        start: Number of blocks that are done already (in a resumed run).

    Attributes:
        finished: Called with a block's path and seconds once it is fitted, e.g. to save it.
    """

    def __init__(
        self,
        teacher: MattingNetwork,
        quantized: MattingNetwork,
        blocks: Sequence[str],
        frames: Tensor,
        settings: ClosedFormSettings,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # nothing is optimized by gradients
        self.teacher, self.quantized, self.blocks = teacher, quantized, list(blocks)
        self.settings, self.seed, self.start = settings, seed, start
        self.finished: Callable[[str, float], None] | None = None
        self._frames = frames[:, : settings.frames]
        self._streams: tuple[BlockStream, BlockStream] | None = None

    def configure_optimizers(self) -> None:
        """There is none."""

    def train_dataloader(self) -> DataLoader[int]:
        """Numbers of the blocks that are left to do."""
        return DataLoader(range(self.start, len(self.blocks)))  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Start one forward of each network for every chunk of clips, and go to the first block that is not done."""
        self.quantized.eval()
        chunks = self._frames.split(clips_in_chunk(self._frames, self.settings.chunk_frames))
        store = TensorStore(self.settings.memory_mib)
        self._streams = follow_both(self.teacher, self.quantized, self.blocks, chunks, self.device, store)
        for _ in range(self.start):
            self._advance()

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Fit one block."""
        began = time.perf_counter()
        block = self.blocks[int(batch)]
        with torch.no_grad():
            self._fit_block(block, *self._advance())
        check_learned(self.quantized.get_submodule(block), "closed form", block)
        seconds = time.perf_counter() - began
        log.info("block %s: closed form in %.1f s", block, seconds)
        if self.finished is not None:
            self.finished(block, seconds)

    def teardown(self, stage: str) -> None:
        """End the suspended forwards and drop what they held."""
        for stream in self._streams or ():
            stream.close()
        self._streams = None

    def _advance(self) -> tuple[list[BlockCall], list[BlockCall]]:
        assert self._streams is not None
        teacher, quantized = self._streams
        return quantized.advance(), teacher.advance()

    def _fit_block(self, path: str, quantized: list[BlockCall], floating: list[BlockCall]) -> None:
        block, teacher = self.quantized.get_submodule(path), self.teacher.get_submodule(path)
        layers = {n: layer for n, layer in quantized_layers(block).items() if layer.weight_quantizer is not None}
        counts = {name: self.settings.places(layer.weight[0].numel()) for name, layer in layers.items()}
        targets = sample_layers(teacher, counts, floating, self.seed)
        for name, layer in layers.items():
            target = targets.pop(name)
            found = sample_layers(block, {name: counts[name]}, quantized, self.seed, target.reads)[name]
            fit_layer(layer, found.values, target.values, self.settings)
