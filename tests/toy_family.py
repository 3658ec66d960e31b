"""A family of networks from outside the package: tiny, without recurrent states, with a weights file of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from networks import randomize
from ptq4vm.models.base import MattingNetwork, Replacements
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.weights.cache import Wanted
from ptq4vm.models.weights.files import check_entries
from ptq4vm.ops.junction import Junction


class Lift(nn.Module):
    """Enlarges what a small image gave to the size of the large one."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


class SoftLift(Lift):
    """A subclass, which :class:`Toy` does not name where it says what is exported in another form."""


class SeparateLift(nn.Module):
    """The same, foreground and alpha apart: the form in which the toy is exported."""

    def __init__(self, lift: Lift) -> None:
        super().__init__()
        self.lift = lift

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.cat([self.lift(part, size) for part in x.split([3, 1], 1)], 1)


def _block(inp: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inp, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Toy(MattingNetwork):
    """Two convolutions at half of the size, one more over them and the small picture, a projection."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = _block(3, width, 2)
        self.body = _block(width, width)
        self.small = Junction()
        self.mix = _block(width + 3, width)
        self.project = nn.Conv2d(width, 4, 1)
        self.lift = SoftLift()

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        frames = src.flatten(0, 1) if src.ndim == 5 else src
        base = frames if downsample_ratio == 1 else F.interpolate(frames, scale_factor=downsample_ratio)
        small = self.small(F.avg_pool2d(base, 2, 2, ceil_mode=True, count_include_pad=False))
        features = torch.cat([self.body(self.stem(base)), small], 1)
        result = self.lift(self.project(self.mix(features)), (frames.shape[-2], frames.shape[-1]))
        result = result.unflatten(0, src.shape[:2]) if src.ndim == 5 else result
        residual, alpha = result.split([3, 1], -3)
        return [(residual + src).clamp(0, 1), alpha.clamp(0, 1)]

    def export_replacements(self, target: str) -> Replacements:
        return {Lift: SeparateLift}


@FAMILIES.register("toy")
class ToyFamily(NetworkFamily):
    """Its only argument is ``width``; its weights are nowhere to be fetched."""

    licence = "weights drawn at random, in the public domain"

    def build(self, arguments: Arguments) -> Toy:
        return Toy(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        title = f"the toy of width {arguments.get('width', 8)}"
        check = partial(check_entries, network=self.build(arguments), title=title)
        return Wanted(title, "toy.safetensors", "toy", (), check)

    def model_name(self, arguments: Arguments) -> str:
        return f"toy_{arguments.get('width', 8)}"

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        width = arguments.get("width", 8)
        return {
            "blocks": ["stem", "body", "mix", "project"],
            "edge_layers": ["stem.0", "project"],
            "branches": {"mix.0": [width, 3]},
        }


@torch.no_grad()
def save_toy_weights(path: Path, width: int = 8) -> Path:
    """Seeded random weights whose alpha spreads over [0, 1], so that metrics tell networks apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Toy(width)
        frames = torch.rand(4, 3, 64, 96)
    randomize(network, 0)
    raw: list[Tensor] = []
    with network.project.register_forward_hook(lambda module, args, out: raw.append(out)):
        network(frames)
    factor = 0.2 / raw[0].std((0, 2, 3))
    network.project.weight.mul_(factor[:, None, None, None])
    network.project.bias.copy_((network.project.bias - raw[0].mean((0, 2, 3))) * factor + torch.tensor([0, 0, 0, 0.5]))
    save_file(network.state_dict(), path)
    return path
