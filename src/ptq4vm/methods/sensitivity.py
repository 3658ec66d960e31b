"""Sensitivity: how far alpha moves when one layer's weights, or one stored tensor, alone are quantized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import enable_activations, observe, quantized_layers, swap, watched
from ptq4vm.quant.layers import QuantActivation
from ptq4vm.quant.partition import block_of
from ptq4vm.quant.placement.plan import Plan, make_plan
from ptq4vm.quant.quantizers.base import ActivationQuantizer, WeightQuantizer
from ptq4vm.quant.spec import Partition, QuantSpec, with_bits


@dataclass
class Item:
    """One thing that has bits of its own: a layer's weight, or the sites that share their codes.

    Attributes:
        elements: Weights, or values of a frame.
        bits: Bits that it has as things are.
        errors: Mean absolute error of alpha by bit-width, in [0, 1]; empty where the bits are not to be changed.
        members: Paths of the sites; of the layer, for weights.
    """

    elements: float
    bits: int
    errors: dict[int, float] = field(default_factory=dict)
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sensitivity:
    """What every item costs when it alone is quantized.

    Attributes:
        weights: By the layer's path.
        activations: By the name of a site, or of the group of sites that layers read side by side.
    """

    weights: dict[str, Item]
    activations: dict[str, Item]


class _Replay(nn.Module):
    """Takes the place of a block that is not affected: gives what it gave."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self._output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The recorded output, whatever comes in."""
        return self._output


@torch.no_grad()
def measure_sensitivity(
    teacher: MattingNetwork,
    partition: Partition,
    spec: QuantSpec,
    frames: Tensor,
    widths: Sequence[int],
    seed: int = 0,
    edges: bool = False,
) -> Sensitivity:
    """Quantize every layer's weights and every site alone, rounded to nearest, and see how far alpha moves.

    Blocks that come before the one in question are not computed again: their outputs are replayed.

    Args:
        teacher: Folded float network, in eval mode; not changed.
        partition: The blocks of the network, with patterns resolved.
        spec: Placement, observers and the bits of what is not to be changed (the edge layers).
        frames: Clips to look at and to find ranges on, ``(N, T, 3, H, W)`` float in [0, 1].
        widths: Bit-widths to measure.
        seed: Seed of the observers.
        edges: Whether the edge layers are measured too, whose bits are otherwise not to be changed.
    """
    found = _items(teacher, partition, spec, frames)
    for bits in widths:
        weight, activation = with_bits(spec.weight, bits), with_bits(spec.activation, bits)
        one = replace(spec, weight=weight, activation=activation, edge_bits=bits if edges else spec.edge_bits)
        plan = make_plan(teacher, partition, one)
        ranges = observe(teacher, plan, partial(show, teacher, frames), seed)
        _measure_width(teacher, swap(teacher, plan, ranges), partition, plan, frames, bits, found)
    return found


def show(network: MattingNetwork, clips: Tensor) -> None:
    """Run a network over clips ``(N, T, 3, H, W)``, one after another, for those who watch."""
    for clip in clips.split(1):
        network.matte(clip)


def _items(teacher: MattingNetwork, partition: Partition, spec: QuantSpec, frames: Tensor) -> Sensitivity:
    """All items with their elements, without errors."""
    plan = make_plan(teacher, partition, spec)
    sizes = _site_sizes(teacher, plan, frames[:1, :1])
    weights = {
        path: Item(teacher.get_submodule(path).weight.numel(), weight.bits, members=(path,))  # type: ignore[operator]
        for path, weight in plan.weights.items()
    }
    activations: dict[str, Item] = {}
    for path, site in plan.sites.items():
        item = activations.setdefault(site.group or path, Item(0.0, site.spec.bits))
        item.elements += sizes.get(path, 0)
        item.members += (path,)
    return Sensitivity(weights, activations)


def _site_sizes(network: MattingNetwork, plan: Plan, frame: Tensor) -> dict[str, int]:
    """Values of every site's tensor in one frame."""
    sizes: dict[str, int] = {}
    with watched(network, plan.sites, lambda path, tensor: sizes.__setitem__(path, tensor.numel())):
        network.matte(frame)
    return sizes


def _measure_width(
    teacher: MattingNetwork,
    network: nn.Module,
    partition: Partition,
    plan: Plan,
    frames: Tensor,
    bits: int,
    found: Sensitivity,
) -> None:
    """Measure all items at one bit-width on a network that has all quantizers, of which one at a time acts."""
    assert isinstance(network, MattingNetwork)
    enable_activations(network, False)
    layers = quantized_layers(network)
    roundings: dict[str, WeightQuantizer] = {}
    for path, layer in layers.items():
        if layer.weight_quantizer is not None:
            roundings[path] = layer.weight_quantizer
            layer.weight_quantizer = None
    reference, outputs = _run(network, partition.blocks, frames)
    sites = _site_quantizers(network, plan)
    first = {name: _first_block(item.members, partition.blocks, plan) for name, item in found.activations.items()}
    blocks = ["", *partition.blocks]
    for number, block in enumerate(track(blocks, description=f"sensitivity at {bits} bits", transient=True)):
        for name, item in found.activations.items():
            if first[name] == number and _free(item, plan.sites[item.members[0]].spec.bits, bits):
                with _acting([q for member in item.members for q in sites[member]]):
                    item.errors[bits] = _error(network, frames, reference)
        for path, rounding in roundings.items():
            item = found.weights[path]
            if _number(path, partition.blocks) == number and _free(item, plan.weights[path].bits, bits):
                layers[path].weight_quantizer = rounding
                item.errors[bits] = _error(network, frames, reference)
                layers[path].weight_quantizer = None
        if block:
            network.set_submodule(block, _Replay(outputs.pop(block)))


def _free(item: Item, planned: int, bits: int) -> bool:
    """Whether an item took the bits that are measured: those of the edges do not."""
    return planned == bits and bits not in item.errors


def _run(network: MattingNetwork, blocks: Sequence[str], frames: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Alpha, and what each block gives on the way to it."""
    outputs: dict[str, Any] = {}
    with ExitStack() as hooks:
        for path in blocks:
            module = network.get_submodule(path)
            hooks.enter_context(
                module.register_forward_hook(lambda m, a, out, path=path: outputs.__setitem__(path, out))
            )
        return network.matte(frames).alpha, outputs


def _site_quantizers(network: nn.Module, plan: Plan) -> dict[str, list[ActivationQuantizer]]:
    """The quantizers that act where a site is quantized, and those that round resampled copies of it again."""
    found: dict[str, list[ActivationQuantizer]] = {}
    for path, site in plan.sites.items():
        module = network.get_submodule(site.module)
        slot = "input_quantizer" if site.side == "input" else "output_quantizer"
        found[path] = [getattr(module, slot)]
    for path, segments in plan.regrids.items():
        module = network.get_submodule(path)
        assert isinstance(module, QuantActivation)
        for site_path in dict.fromkeys(segment.site for segment in segments):
            found[site_path].append(module.output_quantizer)  # type: ignore[arg-type]
    return found


def _number(path: str, blocks: Sequence[str]) -> int:
    """Number of the block that holds a module, counted from 1; 0 for what comes before any block."""
    try:
        return 1 + blocks.index(block_of(path, blocks))
    except KeyError:
        return 0


def _first_block(members: Sequence[str], blocks: Sequence[str], plan: Plan) -> int:
    return min(_number(plan.sites[member].module, blocks) for member in members)


@contextmanager
def _acting(quantizers: Sequence[ActivationQuantizer]) -> Iterator[None]:
    for quantizer in quantizers:
        quantizer.enabled = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.enabled = False


def _error(network: MattingNetwork, frames: Tensor, reference: Tensor) -> float:
    return float((network.matte(frames).alpha - reference).abs().mean())
