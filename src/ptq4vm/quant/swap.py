"""From a folded float network to one with quantizers: plan the sites, observe ranges, swap layers by type."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.quant.modules import QuantActivation, QuantConv2d, QuantLayer, QuantLinear
from ptq4vm.quant.observers import Observer, activation_observer, affine_qparams, weight_scale
from ptq4vm.quant.observers.shared import SharedZeroObserver
from ptq4vm.quant.partition import layers
from ptq4vm.quant.quantizers.activation import ActivationQuantizer
from ptq4vm.quant.quantizers.weight import WeightQuantizer
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, Partition, QuantSpec, WeightSpec

Spec = TypeVar("Spec", WeightSpec, ActivationSpec)

ACTIVATION_FUNCTIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU)


@dataclass(frozen=True)
class Site:
    """One place where activations are quantized.

    Attributes:
        layer: Path of the quantizable layer it belongs to.
        module: Path of the module whose tensor is quantized: the layer itself or its activation function.
        side: ``input`` or ``output`` of that module.
        spec: How.
        sizes: Channels of each branch where scales differ by branch, else empty.
    """

    layer: str
    module: str
    side: str
    spec: ActivationSpec
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Every decision about one network, before anything is changed: specs per layer and activation sites."""

    weights: dict[str, WeightSpec]
    sites: dict[str, Site]


def _with_bits(spec: Spec, bits: int) -> Spec:
    return replace(spec, bits=bits) if spec.bits != FLOAT_BITS else spec


def _output_module(network: nn.Module, path: str) -> str:
    """The activation function that follows a layer among its siblings, or the layer itself."""
    parent_path, _, name = path.rpartition(".")
    parent = network.get_submodule(parent_path)
    if isinstance(parent, nn.Sequential):
        children = list(parent.named_children())
        for sibling, module in children[[n for n, _ in children].index(name) + 1 :]:
            if isinstance(module, ACTIVATION_FUNCTIONS):
                return f"{parent_path}.{sibling}".lstrip(".")
            if not isinstance(module, nn.Identity):
                break
    return path


def _groups(network: nn.Module, path: str, partition: Partition, spec: ActivationSpec) -> tuple[int, ...]:
    """Channels of each part of a layer's input that has its own scale; empty for one scale."""
    layer = network.get_submodule(path)
    if spec.granularity in ("branch", "mixed") and path in partition.branches:
        return partition.branches[path]
    if spec.granularity in ("depthwise", "mixed") and isinstance(layer, nn.Conv2d):
        depthwise = layer.groups == layer.in_channels > 1
        return (1,) * layer.in_channels if depthwise else ()
    return ()


def make_plan(network: nn.Module, partition: Partition, spec: QuantSpec) -> Plan:
    """Decide bits and places for every layer.

    Args:
        network: Folded float network.
        partition: Resolved by :func:`ptq4vm.quant.partition.resolve`.
        spec: The choices.

    Returns:
        The plan; empty for ``bits=fp32``.
    """
    weights: dict[str, WeightSpec] = {}
    sites: dict[str, Site] = {}
    for path in layers(network, partition):
        weight, activation = spec.weight, spec.activation
        if path in partition.edge_layers:
            weight = _with_bits(weight, max(spec.edge_bits, weight.bits))
            activation = _with_bits(activation, max(spec.edge_bits, activation.bits))
        if weight.bits != FLOAT_BITS:
            weights[path] = weight
        if activation.bits != FLOAT_BITS:
            module = path if spec.placement == "input" else _output_module(network, path)
            sizes = _groups(network, path, partition, activation) if spec.placement == "input" else ()
            sites[path] = Site(path, module, spec.placement, activation, sizes)
    return Plan(weights, sites)


def observe(
    network: nn.Module, plan: Plan, run: Callable[[], None], seed: int = 0
) -> dict[str, list[tuple[float, float]]]:
    """Run the float network, let every site's observer see its tensors, and find the ranges.

    The network is not changed.

    Args:
        network: Folded float network.
        plan: Says which tensors to look at.
        run: Feeds calibration clips through ``network``.
        seed: Seeds the observers' sampling.

    Returns:
        ``(low, high)`` of every group of channels with a scale of its own (one where there are none), by layer path.
    """
    observers = {path: _SiteObserver(site, seed) for path, site in plan.sites.items()}
    handles = []
    for path, site in plan.sites.items():
        module, see = network.get_submodule(site.module), observers[path].see
        if site.side == "input":
            handles.append(module.register_forward_pre_hook(lambda m, args, see=see: see(args[0])))
        else:
            handles.append(module.register_forward_hook(lambda m, args, out, see=see: see(out)))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {path: observer.ranges() for path, observer in observers.items()}


class _SiteObserver:
    """Feeds one site's tensors to its observers: one for each group, or one for all channels of equal groups."""

    def __init__(self, site: Site, seed: int) -> None:
        self._sizes = site.sizes
        spec = site.spec
        self._joint: SharedZeroObserver | None = None
        self._parts: list[Observer] = []
        if site.sizes and spec.observer == "mse":
            self._joint = SharedZeroObserver(len(site.sizes), spec.code_range[1], spec.affine, seed=seed)
        else:
            self._parts = [activation_observer(spec, seed) for _ in site.sizes or (0,)]

    def see(self, tensor: Tensor) -> None:
        """Take in one tensor, channels at dimension -3 where there are groups."""
        if self._joint is not None:
            self._joint.observe([part.flatten() for part in tensor.split(self._sizes, dim=-3)])
            return
        parts = tensor.split(self._sizes, dim=-3) if self._sizes else (tensor,)
        for observer, part in zip(self._parts, parts, strict=True):
            observer.observe(part)

    def ranges(self) -> list[tuple[float, float]]:
        """Range of each group."""
        return self._joint.ranges() if self._joint is not None else [observer.range() for observer in self._parts]


def activation_quantizer(site: Site, ranges: Iterable[tuple[float, float]]) -> ActivationQuantizer:
    """Build a site's quantizer from the observed ``(low, high)`` of each branch.

    Branches share the zero point that the branch reaching furthest down, relative to its range, needs.
    """
    lows, highs = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*ranges, strict=True))
    levels = site.spec.code_range[1]
    if not site.spec.affine and bool((lows < 0).any()):
        highs = torch.maximum(-lows, highs)
        lows = -highs
    scale, zero = affine_qparams(lows, highs, levels)
    if not site.spec.affine and bool((lows < 0).any()):
        zero = torch.full_like(zero, 2 ** (site.spec.bits - 1))  # exactly halfway: not left to rounding
    shared = zero.max()
    if len(zero) > 1:
        if bool((highs > 0).any()):  # a branch that is never positive must leave the others a code above 0
            shared = shared.clamp(max=levels - 1)
        room = torch.where(highs > 0, highs / (levels - shared).clamp_min(1), scale)
        depth = torch.where(lows < 0, -lows / shared.clamp_min(1), torch.zeros_like(scale))
        scale = torch.maximum(room, depth).clamp_min(1e-8)
    return ActivationQuantizer(site.spec.bits, scale.float(), int(shared), site.sizes)


def swap(network: nn.Module, plan: Plan, ranges: dict[str, list[tuple[float, float]]]) -> nn.Module:
    """Copy a folded float network with every planned layer replaced by its quantized counterpart.

    Args:
        network: Folded float network; not changed.
        plan: From :func:`make_plan`.
        ranges: Observed ``(low, high)`` per branch, by layer path, for every site.

    Returns:
        The quantized network in eval mode, weights rounded to nearest; no parameter requires gradients but the
        activation scales.

    Raises:
        ConfigError: A site was not observed.
    """
    quantized = copy.deepcopy(network).eval().requires_grad_(False)
    for path in dict.fromkeys([*plan.weights, *plan.sites]):
        layer = quantized.get_submodule(path)
        new: QuantLayer = QuantConv2d(layer) if isinstance(layer, nn.Conv2d) else QuantLinear(layer)  # type: ignore[arg-type]
        new.requires_grad_(False)
        if path in plan.weights:
            spec = plan.weights[path]
            new.weight_quantizer = WeightQuantizer(spec.bits, weight_scale(new.weight, spec))
            new.harden()
        quantized.set_submodule(path, new)
    for path, site in plan.sites.items():
        if path not in ranges:
            raise ConfigError(f"layer {path!r} has no observed range: the calibration clips never reached it")
        _insert(quantized, site, activation_quantizer(site, ranges[path]))
    return quantized.eval()


def _insert(network: nn.Module, site: Site, quantizer: ActivationQuantizer) -> None:
    module = network.get_submodule(site.module)
    if site.side == "input":
        module.input_quantizer = quantizer
    elif isinstance(module, QuantLayer):
        module.output_quantizer = quantizer
    else:
        network.set_submodule(site.module, QuantActivation(module, quantizer))


def quantized_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """Quantized layers by path, in definition order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantLayer)}


def activation_quantizers(network: nn.Module) -> dict[str, ActivationQuantizer]:
    """Activation quantizers by path, in definition order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, ActivationQuantizer)}
