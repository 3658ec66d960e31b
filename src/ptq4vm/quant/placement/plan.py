"""Every decision about one network before anything is changed: bits per layer, and where activations are quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import nn

from ptq4vm.errors import ConfigError
from ptq4vm.ops.junction import Operand
from ptq4vm.quant.overflow import grid_may_saturate
from ptq4vm.quant.partition import inside, layers
from ptq4vm.quant.placement.wiring import Segments
from ptq4vm.quant.registries import PLACEMENTS
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, Partition, QuantSpec, WeightSpec, with_bits


@dataclass(frozen=True)
class Site:
    """One place where activations are quantized.

    Attributes:
        layer: Path of the quantizable layer it belongs to; of the module where it belongs to several.
        module: Path of the module whose tensor is quantized: the layer itself, its activation function, or a junction.
        side: ``input`` or ``output`` of that module.
        spec: Bits, observer and zero point of its quantizer.
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

    def operand_bits(self, path: str) -> int:
        """Bits of a factor of a product of activations, by the path of its operand; 32 for float."""
        return self.sites[path].spec.bits if path in self.sites else FLOAT_BITS

    def activation_max(self, layer: str) -> int:
        """Largest code that a layer may read; 0 where it reads floats."""
        if layer in self.inputs:
            return self.sites[self.inputs[layer][0].site].spec.largest_code
        if layer in self.sites and self.sites[layer].side == "input":
            return self.sites[layer].spec.largest_code
        # placement ``output``: what others give, and which of them is not known here
        return max((site.spec.largest_code for site in self.sites.values() if site.side == "output"), default=0)

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


@dataclass(frozen=True)
class Bits:
    """How much every layer gets, before it is decided where.

    Attributes:
        weights: Choices for the weight of a layer, by its path; float ones are missing.
        activations: The same for what it reads.
    """

    weights: dict[str, WeightSpec]
    activations: dict[str, ActivationSpec]


class QuantizerPlacement(Protocol):
    """Decides where activations are quantized. One a file, registered in :data:`ptq4vm.quant.registries.PLACEMENTS`."""

    def __call__(self, network: nn.Module, partition: Partition, spec: QuantSpec, bits: Bits) -> Plan:
        """Plan the sites of a folded float network; ``partition`` is resolved."""
        ...


def make_plan(network: nn.Module, partition: Partition, spec: QuantSpec) -> Plan:
    """Decide bits and places for every layer.

    Args:
        network: The folded float network.
        partition: Resolved by :func:`ptq4vm.quant.partition.resolve`.
        spec: What to quantize, and how.

    Returns:
        The plan; empty for ``bits=fp32``.
    """
    bits = Bits({}, {})
    for path in layers(network, partition):
        weight, activation = spec.weight, spec.activation
        if path in partition.edge_layers:
            weight = with_bits(weight, max(spec.edge_bits, weight.bits))
            activation = with_bits(activation, max(spec.edge_bits, activation.bits))
        if weight.bits != FLOAT_BITS:
            bits.weights[path] = weight
        if activation.bits != FLOAT_BITS:
            bits.activations[path] = activation
        if path in spec.weight_bits:
            bits.weights[path] = replace(spec.weight, bits=spec.weight_bits[path])
    _check_known(spec.weight_bits, bits.weights, "weight_bits")
    for path in [path for path, weight in bits.weights.items() if weight.bits == FLOAT_BITS]:
        del bits.weights[path]
    plan = _with_operands(PLACEMENTS[spec.placement](network, partition, spec, bits), network, partition, spec)
    plan = _with_site_bits(plan, spec.activation_bits)
    return plan if spec.overflow == "vnni" else _without_overflow(plan)


def _with_operands(plan: Plan, network: nn.Module, partition: Partition, spec: QuantSpec) -> Plan:
    """Give the factors of products of activations a site of one scale each, where the placement gave them none."""
    if spec.activation.bits == FLOAT_BITS:
        return plan
    sites = dict(plan.sites)
    read = {segment.site for segments in plan.inputs.values() for segment in segments}
    for path, module in network.named_modules():
        if isinstance(module, Operand) and path not in read and not inside(path, partition.float_modules):
            own = spec.activation
            if path in partition.edge_layers:
                own = with_bits(own, max(spec.edge_bits, own.bits))
            sites[path] = Site(path, path, "output", own)
    return replace(plan, sites=sites)


def _with_site_bits(plan: Plan, chosen: Mapping[str, int]) -> Plan:
    """Give single sites their bits; those of a group share their codes, so the largest is everybody's.

    A site that stays float is left out; in placement ``engine`` layers are planned around their sites, which all stay.
    """
    _check_known(chosen, plan.sites, "activation_bits")
    widest: dict[str, int] = {}
    for path, bits in chosen.items():
        name = plan.sites[path].group or path
        widest[name] = max(bits, widest.get(name, 0))
    for path in chosen:
        if widest[plan.sites[path].group or path] == FLOAT_BITS and plan.inputs:
            raise ConfigError(f"activation_bits: {path!r} cannot stay float where an engine reads it: give 2 to 8 bits")
    sites = {
        path: replace(site, spec=replace(site.spec, bits=widest.get(site.group or path, site.spec.bits)))
        for path, site in plan.sites.items()
        if widest.get(site.group or path) != FLOAT_BITS
    }
    return replace(plan, sites=sites)


def _check_known(chosen: Mapping[str, int], known: Mapping[str, object], key: str) -> None:
    for path in chosen:
        if path not in known:
            raise ConfigError(f"{key}: nothing is quantized at {path!r}; ptq4vm sensitivity lists the names")


def _without_overflow(plan: Plan) -> Plan:
    """Keep every layer's weight codes so small that no sum of two products leaves 16 bits."""
    weights = {}
    for path, weight in plan.weights.items():
        saturates = grid_may_saturate(*weight.code_range, plan.activation_max(path))
        weights[path] = replace(weight, reduce_range=True) if saturates else weight
    return replace(plan, weights=weights)
