"""Quantize what every layer reads, in front of each layer anew."""

from __future__ import annotations

from torch import nn

from ptq4vm.quant.placement.plan import Bits, Plan, Site
from ptq4vm.quant.registries import PLACEMENTS
from ptq4vm.quant.spec import ActivationSpec, Partition, QuantSpec


@PLACEMENTS.register("input")
def at_inputs(network: nn.Module, partition: Partition, spec: QuantSpec, bits: Bits) -> Plan:
    """One site for every layer, at its input: sums, products and concatenations are covered by who reads them."""
    sites = {path: input_site(network, path, partition, own) for path, own in bits.activations.items()}
    return Plan(bits.weights, sites)


def input_site(network: nn.Module, path: str, partition: Partition, spec: ActivationSpec) -> Site:
    """The site at the input of the layer at ``path``, with the scales that its granularity gives it."""
    return Site(path, path, "input", spec, _groups(network.get_submodule(path), partition.branches.get(path, ()), spec))


def _groups(layer: nn.Module, branches: tuple[int, ...], spec: ActivationSpec) -> tuple[int, ...]:
    """Channels of each part of a layer's input that has its own scale; empty for one scale."""
    if spec.granularity in ("branch", "mixed") and branches:
        return branches
    if spec.granularity in ("depthwise", "mixed") and isinstance(layer, nn.Conv2d) and is_depthwise(layer):
        return (1,) * layer.in_channels
    return ()


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each channel of a convolution's input reaches output channels of its own only."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
