"""Samples of what layers inside a block read, taken while the block runs: places are drawn, patches are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.quant.capture import BlockCall


class _Reached(BaseException):
    """Ends a block's forward once its last wanted layer has read; not an Exception, so that no code catches it."""


class LayerSampler:
    """Draws the places whose patches are kept: the same ones in every run with the same seed.

    Args:
        layer: Convolution or linear layer.
        count: About how many places are drawn over all frames.
        frames: How many frames there are over all calls of the block.
        seed: Seed of the draw.

    Attributes:
        reads: How often the layer has run.
    """

    def __init__(self, layer: nn.Module, count: int, frames: int, seed: int) -> None:
        self._layer = layer
        self._each = max(1, -(-count // max(1, frames)))  # of a frame
        self._generator = torch.Generator().manual_seed(seed)
        self._found: list[Tensor] = []
        self.reads = 0

    def see(self, x: Tensor) -> None:
        """Keep patches of one input of the layer, rounded where the layer rounds it itself."""
        self.reads += 1
        quantizer = getattr(self._layer, "input_quantizer", None)
        x = x if quantizer is None else quantizer(x)
        self._found.append(x.reshape(-1, x.shape[-1]) if isinstance(self._layer, nn.Linear) else self._patches(x))

    def samples(self) -> Tensor:
        """``(G, N, K)`` float32: what every group of the layer's rows reads, ``K`` as its weights lie."""
        found = torch.cat(self._found).float()
        groups = getattr(self._layer, "groups", 1)
        return found.view(len(found), groups, -1).transpose(0, 1).contiguous()

    def _patches(self, x: Tensor) -> Tensor:
        layer = self._layer
        assert isinstance(layer, nn.Conv2d)
        (kh, kw), (sy, sx), (dy, dx) = layer.kernel_size, layer.stride, layer.dilation
        py, px = (int(p) for p in layer.padding)
        padded = x.permute(0, 2, 3, 1)
        if py or px:
            padded = F.pad(padded, (0, 0, px, px, py, py))
        rows = (padded.shape[1] - dy * (kh - 1) - 1) // sy + 1
        columns = (padded.shape[2] - dx * (kw - 1) - 1) // sx + 1
        places = len(x) * rows * columns
        count = min(places, self._each * len(x))
        drawn = torch.randint(places, (count,), generator=self._generator) if count < places else torch.arange(places)
        frame, place = drawn // (rows * columns), drawn % (rows * columns)
        y, z = place // columns * sy, place % columns * sx
        parts = [padded[frame, y + i * dy, z + j * dx] for i in range(kh) for j in range(kw)]
        return torch.stack(parts, -1).flatten(1)


class LayerSamples(NamedTuple):
    """What one layer reads.

    Attributes:
        values: ``(G, N, K)`` float32, as the layer multiplies them.
        reads: How often the layer ran in one call of its block.
    """

    values: Tensor
    reads: int


@torch.no_grad()
def sample_layers(
    block: nn.Module,
    counts: Mapping[str, int],
    calls: Sequence[BlockCall],
    seed: int = 0,
    reads: int | None = None,
) -> dict[str, LayerSamples]:
    """Run a block on its calls again and keep samples of what layers read.

    Args:
        block: The block, in eval mode.
        counts: About how many samples are kept, by the layer's path inside the block.
        calls: Calls of the block, with the arguments to run it on.
        seed: Seed of the places, with the layer's path: the float and the quantized block give the same ones.
        reads: End each run once the layers have run so often together; ``None`` runs to the end.
    """
    frames = sum(_frames(call) for call in calls)
    samplers = {
        path: LayerSampler(block.get_submodule(path), count, frames, seed + sum(path.encode()))
        for path, count in counts.items()
    }
    done = 0

    def see(sampler: LayerSampler, x: Tensor) -> None:
        nonlocal done
        sampler.see(x)
        done += 1
        if done == reads:
            raise _Reached

    with ExitStack() as hooks:
        for path, sampler in samplers.items():
            module = block.get_submodule(path)
            hooks.enter_context(module.register_forward_pre_hook(lambda m, args, s=sampler: see(s, args[0])))
        for call in calls:
            done = 0
            with suppress(_Reached):
                block(*call.args, **call.kwargs)
    return {path: LayerSamples(s.samples(), s.reads // len(calls)) for path, s in samplers.items()}


def _frames(call: BlockCall) -> int:
    first = next(leaf for leaf in (*call.args, *call.kwargs.values()) if isinstance(leaf, Tensor))
    return int(first.shape[:-3].numel()) if first.ndim > 3 else len(first)
