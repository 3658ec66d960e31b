"""Quantize what every layer gives, after its activation function: as PTQ4VM publishes it."""

from __future__ import annotations

from torch import nn

from ptq4vm.quant.placement.plan import Bits, Plan, Site
from ptq4vm.quant.placement.wiring import ACTIVATION_FUNCTIONS
from ptq4vm.quant.registries import PLACEMENTS
from ptq4vm.quant.spec import Partition, QuantSpec


@PLACEMENTS.register("output")
def at_outputs(network: nn.Module, partition: Partition, spec: QuantSpec, bits: Bits) -> Plan:
    """One site for every layer, at its output, always with one scale."""
    sites = {path: Site(path, _output_module(network, path), "output", own) for path, own in bits.activations.items()}
    return Plan(bits.weights, sites)


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
