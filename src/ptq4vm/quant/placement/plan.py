"""Every decision about one network before anything is changed: bits per layer, and where activations are quantized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import nn

from ptq4vm.quant.overflow import grid_may_saturate
from ptq4vm.quant.partition import layers
from ptq4vm.quant.placement.wiring import ACTIVATION_FUNCTIONS, Segments, trace
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, Partition, QuantSpec, WeightSpec

BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Hardswish: (-3.0, math.inf),
    nn.Sigmoid: (-7.0, 7.0),
    nn.Tanh: (-3.5, 3.5),
}
"""Of what goes into a function: beyond them its result stays, to within a quarter of an 8-bit code."""

Spec = TypeVar("Spec", WeightSpec, ActivationSpec)


@dataclass(frozen=True)
class Site:
    """One place where activations are quantized.

    Attributes:
        layer: Path of the quantizable layer it belongs to; of the module where it belongs to several.
        module: Path of the module whose tensor is quantized: the layer itself, its activation function, or a junction.
        side: ``input`` or ``output`` of that module.
        spec: How.
        sizes: Channels of each branch where scales differ by branch, else empty.
        group: Sites of one group share their zero point, since layers read them side by side; empty for none.
        own_scale: Whether a site of a group keeps one scale of its own; else the largest of the group is everybody's.
        known: Range that is known beforehand, ``None`` for one that is to be observed.
        bounds: Beyond them values make no difference: they are looked at as if they lay there.
    """

    layer: str
    module: str
    side: str
    spec: ActivationSpec
    sizes: tuple[int, ...] = ()
    group: str = ""
    own_scale: bool = False
    known: tuple[float, float] | None = None
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """Every decision about one network, before anything is changed.

    Attributes:
        weights: How the weight of a layer is quantized, by its path.
        sites: Where activations are quantized: by the layer's path, or (placement ``engine``) by the module's where
            several layers read it.
        inputs: Placement ``engine``: the sites that a layer reads, where it does not quantize its input itself.
        regrids: Placement ``engine``: the sites whose grid a resampled tensor keeps, by the module's path.
        carriers: Placement ``engine``: layers whose weights are rounded together with the scales of the channels that
            they read, since an engine has one scale for all of them.
    """

    weights: dict[str, WeightSpec]
    sites: dict[str, Site]
    inputs: dict[str, Segments] = field(default_factory=dict)
    regrids: dict[str, Segments] = field(default_factory=dict)
    carriers: frozenset[str] = frozenset()

    def activation_bits(self, layer: str) -> int:
        """Bits of what a layer reads; 32 for float."""
        site = self.sites.get(self.inputs[layer][0].site if layer in self.inputs else layer)
        return FLOAT_BITS if site is None else site.spec.bits

    def activation_max(self, layer: str) -> int:
        """Largest code that a layer may read; 0 where it reads floats."""
        if layer in self.inputs:
            return self.sites[self.inputs[layer][0].site].spec.code_range[1]
        if layer in self.sites and self.sites[layer].side == "input":
            return self.sites[layer].spec.code_range[1]
        # placement ``output``: what others give, and which of them is not known here
        return max((site.spec.code_range[1] for site in self.sites.values() if site.side == "output"), default=0)

    def frozen(self, site: str) -> bool:
        """Whether a site's scales must stay: weights carry them (a scale for each channel), or other sites share them.

        Those that depthwise convolutions read may go on learning: a factor of one output channel is no matter of the
        grid.
        """
        found = self.sites[site]
        if found.group or found.known:
            return True
        return bool(found.sizes) and any(
            path in self.carriers for path, read in self.inputs.items() if any(s.site == site for s in read)
        )

    def separate_scales(self, segments: Segments) -> bool:
        """Whether channels of a tensor made of these segments may have different scales."""
        found = [self.sites[segment.site] for segment in segments]
        return any(site.sizes for site in found) or (found[0].own_scale and len({s.site for s in segments}) > 1)


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
    if spec.granularity in ("depthwise", "mixed") and _is_depthwise(layer):
        return (1,) * layer.in_channels  # type: ignore[operator]
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
    activations: dict[str, ActivationSpec] = {}
    for path in layers(network, partition):
        weight, activation = spec.weight, spec.activation
        if path in partition.edge_layers:
            weight = _with_bits(weight, max(spec.edge_bits, weight.bits))
            activation = _with_bits(activation, max(spec.edge_bits, activation.bits))
        if weight.bits != FLOAT_BITS:
            weights[path] = weight
        if activation.bits != FLOAT_BITS:
            activations[path] = activation
    if spec.placement == "engine":
        plan = _engine_plan(network, partition, spec, weights, activations)
    else:
        plan = _layer_plan(network, partition, spec, weights, activations)
    return plan if spec.overflow == "vnni" else _without_overflow(plan)


def _layer_plan(
    network: nn.Module,
    partition: Partition,
    spec: QuantSpec,
    weights: dict[str, WeightSpec],
    activations: dict[str, ActivationSpec],
) -> Plan:
    """Quantize what every layer reads, or what it gives."""
    sites = {}
    for path, activation in activations.items():
        module = path if spec.placement == "input" else _output_module(network, path)
        sizes = _groups(network, path, partition, activation) if spec.placement == "input" else ()
        sites[path] = Site(path, module, spec.placement, activation, sizes)
    return Plan(weights, sites)


def _without_overflow(plan: Plan) -> Plan:
    """Keep every layer's weight codes so small that no sum of two products leaves 16 bits."""
    weights = {}
    for path, weight in plan.weights.items():
        saturates = grid_may_saturate(*weight.code_range, plan.activation_max(path))
        weights[path] = replace(weight, reduce_range=True) if saturates else weight
    return replace(plan, weights=weights)


def _engine_plan(
    network: nn.Module,
    partition: Partition,
    spec: QuantSpec,
    weights: dict[str, WeightSpec],
    activations: dict[str, ActivationSpec],
) -> Plan:
    """Quantize every tensor once, where it is made, as an integer engine stores it."""
    wiring = trace(network)
    inputs = {path: wiring.inputs[path] for path in activations if path in wiring.inputs}
    sites = {
        path: Site(path, path, "input", activation, _groups(network, path, partition, activation))
        for path, activation in activations.items()
        if path not in inputs
    }
    readers: dict[str, list[str]] = {}
    for path, segments in inputs.items():
        for segment in segments:
            readers.setdefault(segment.site, []).append(path)
    groups = _joined(inputs)
    members = Counter(groups.values())
    operations = spec.stores == "operations"
    bits = dict.fromkeys(members, 0)
    separate = dict.fromkeys(members, spec.activation.granularity == "channel")
    for site, paths in readers.items():
        group = groups[site]
        bits[group] = max(bits[group], *(activations[path].bits for path in paths))
        joined = members[group] > 1 and spec.activation.granularity in ("branch", "mixed")
        separate[group] |= joined or _reads_depthwise(network, paths, spec.activation)
    for site, count in wiring.channels.items():
        if site in readers:
            group = groups[site]
            own = replace(spec.activation, bits=bits[group])
            sizes = (1,) * count if separate[group] else ()
            sites[site] = Site(site, site, "output", own, sizes, group if members[group] > 1 else "", operations)
        elif (operations or site in wiring.gates) and spec.activation.bits != FLOAT_BITS:
            known = _known_range(network.get_submodule(site), spec.activation) if operations else None
            sites[site] = Site(site, site, "output", spec.activation, known=known)
    if operations:
        for path, function in wiring.results.items():
            if path in activations:
                bounds = None if function is None else BOUNDS.get(type(network.get_submodule(function)))
                sites[f"{path}:result"] = Site(path, path, "output", spec.activation, bounds=bounds)
    regrids = {path: found for path, found in wiring.regrids.items() if all(s.site in sites for s in found)}
    plan = Plan(weights, sites, inputs, regrids)
    carriers = frozenset(
        path
        for path, segments in inputs.items()
        if plan.separate_scales(segments) and not _is_depthwise(network.get_submodule(path))
    )
    return replace(plan, carriers=carriers)


def _known_range(function: nn.Module, spec: ActivationSpec) -> tuple[float, float] | None:
    """Range of a gate on whose grid an engine can compute it: 1, and 0 or -1, are codes."""
    if isinstance(function, (nn.Sigmoid, nn.Hardsigmoid)):
        return (0.0, 1.0)
    if isinstance(function, nn.Tanh):
        half = 2 ** (spec.bits - 1)
        return (-1.0, half / (half - 1))
    return None


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _reads_depthwise(network: nn.Module, readers: Iterable[str], spec: ActivationSpec) -> bool:
    """Whether a tensor shall have a scale for each channel because a depthwise convolution reads it."""
    wanted = spec.granularity in ("depthwise", "mixed")
    return wanted and any(_is_depthwise(network.get_submodule(path)) for path in readers)


def _joined(inputs: Mapping[str, Segments]) -> dict[str, str]:
    """Name of every site's group: sites that some layer reads side by side are in one."""
    groups: dict[str, str] = {}
    for segments in inputs.values():
        names = {groups.setdefault(segment.site, segment.site) for segment in segments}
        first = min(names)
        groups = {site: first if group in names else group for site, group in groups.items()}
    return groups
