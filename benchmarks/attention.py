"""Outliers of a transformer's activations beside those of its convolutions, and what GAC learned by kind of layer.

    python benchmarks/attention.py WEIGHTS RUN...

WEIGHTS is ``state/distill.safetensors`` of a training of ``vmformer_mini``, RUN a folder that ``ptq4vm quantize`` left
with ``method=ptq4vm``. Activations are those of the float network on the first six frames of each of the demo's clips
to evaluate on. Every tensor of a frame has its kurtosis and its ratios; the tables hold the median over tensors and
frames, and the largest in brackets.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import ptq4vm
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.junction import Operand
from ptq4vm.quant.fold import fold_batch_norm

_FRAMES = 6
_OPERANDS = {"query": "queries", "key": "keys", "weight": "softmax", "value": "values"}


def kind_of(path: str, module: nn.Module | None = None) -> str:
    """What a layer or a factor is called in the table."""
    last = path.rpartition(".")[2]
    if isinstance(module, Operand):
        return f"products: {_OPERANDS[last]}" if "attention" in path else "products: the matte's factors"
    if path.startswith(("backbone", "embed")):
        return "convolutions of the encoder"
    if path.startswith("decoder"):
        return "convolutions of the decoder"
    if last == "position":
        return "positions (depthwise convolutions)"
    if ".feed." in path:
        return "linear, first after a norm" if last == "0" else "linear, second behind GELU"
    return "linear, after attention" if path.endswith("attention.project") else "linear, queries, keys and values"


class Outliers:
    """Of every tensor: kurtosis, largest value over the 99.9th percentile, widest channel over the median one."""

    def __init__(self) -> None:
        self.kurtosis: list[float] = []
        self.peaks: list[float] = []
        self.channels: list[float] = []

    def see(self, x: Tensor, channel: int) -> None:
        """Take in one tensor with its channels at dimension ``channel``."""
        flat = x.flatten().double()
        centred = flat - flat.mean()
        variance = centred.square().mean().clamp_min(1e-20)
        self.kurtosis.append(float(centred.pow(4).mean() / variance**2))
        size = flat.abs()
        rank = max(1, round(0.999 * size.numel()))
        self.peaks.append(float(size.max() / size.kthvalue(rank).values.clamp_min(1e-12)))
        widest = x.transpose(0, channel).flatten(1).abs().amax(1)
        self.channels.append(float(widest.max() / widest.median().clamp_min(1e-12)))


@torch.no_grad()
def outliers(network: MattingNetwork) -> Iterator[str]:
    """Rows of the table: what layers read and what products take, by kind."""
    found: dict[str, Outliers] = {}

    def see(kind: str, channel: int, tensor: Tensor) -> None:
        found.setdefault(kind, Outliers()).see(tensor, channel)

    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                look = partial(see, kind_of(path), 1 if isinstance(module, nn.Conv2d) else -1)
                hooks.enter_context(module.register_forward_pre_hook(lambda m, a, look=look: look(a[0])))
            elif isinstance(module, Operand):
                look = partial(see, kind_of(path, module), -1 if "attention" in path else 1)
                hooks.enter_context(module.register_forward_hook(lambda m, a, out, look=look: look(out)))
        for clip in ptq4vm.load_data("demo").clips().evaluation:
            states = ()
            for frame in clip.read(0, _FRAMES).frames:
                states = network.matte(frame[None].float() / 255, states).states
    for kind, seen in found.items():
        values = (statistics.median(seen.kurtosis), statistics.median(seen.peaks), statistics.median(seen.channels))
        largest = max(seen.kurtosis), max(seen.peaks), max(seen.channels)
        cells = (f"{value:.1f} ({most:.0f})" for value, most in zip(values, largest, strict=True))
        yield f"| {kind} | {' | '.join(cells)} |"


def affines(run: Path) -> Iterator[tuple[str, float, float]]:
    """Kind, size of the logarithm of GAC's scale and of its shift against the bias's, of every layer of a run."""
    state = load_file(run / "state" / "gac.safetensors")
    for key, value in state.items():
        if key.endswith(".affine.log_scale"):
            path = key.removesuffix(".affine.log_scale")
            shift, bias = state[f"{path}.affine.shift"], state[f"{path}.bias"]
            size = bias.square().mean().sqrt().clamp_min(1e-6)
            yield kind_of(path), float(value.abs().mean()), float(shift.square().mean().sqrt() / size)


def main(weights: str, *runs: str) -> None:
    """Print both tables."""
    network = ptq4vm.load_model("vmformer_mini", weights).network.eval()
    fold_batch_norm(network)
    print("| read by | kurtosis | largest over 99.9th percentile | widest channel over median channel |")
    print("| :-- | --: | --: | --: |")
    for row in outliers(network):
        print(row)
    learned: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in runs:
        for kind, scale, shift in affines(Path(run)):
            learned.setdefault(kind, {}).setdefault(Path(run).name, []).append((scale, shift))
    print("\n| layers | how many |", " | ".join(f"{Path(run).name}: scale, shift" for run in runs), "|")
    print("| :-- | --: |", " | ".join("--:" for _ in runs), "|")
    for kind, by_run in learned.items():
        means = [tuple(statistics.mean(column) for column in zip(*values, strict=True)) for values in by_run.values()]
        cells = (f"{100 * scale:.2f} %, {100 * shift:.2f} %" for scale, shift in means)
        print(f"| {kind} | {len(next(iter(by_run.values())))} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
