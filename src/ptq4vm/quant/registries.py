"""Everything that can be chosen by name when a network is quantized: each name stands for one file of its folder.

A package from outside adds its own by the same decorator, or by an entry point of the group ``ptq4vm.<kind>s``:
``ptq4vm.activation_quantizers``, ``ptq4vm.weight_roundings``, ``ptq4vm.activation_observers``, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptq4vm.system.registry import Registry

if TYPE_CHECKING:
    from ptq4vm.quant.observers.base import Observer, WeightObserver
    from ptq4vm.quant.placement.plan import QuantizerPlacement
    from ptq4vm.quant.quantizers.base import ActivationQuantizer, WeightQuantizer

QUANTIZERS: Registry[type[ActivationQuantizer]] = Registry("activation quantizer", "ptq4vm.quant.quantizers")
"""What :attr:`ptq4vm.quant.spec.ActivationSpec.quantizer` may be."""

ROUNDINGS: Registry[type[WeightQuantizer]] = Registry("weight rounding", "ptq4vm.quant.quantizers")
"""What :attr:`ptq4vm.methods.method.ReconstructionForm.rounding` may be."""

OBSERVERS: Registry[type[Observer]] = Registry("activation observer", "ptq4vm.quant.observers")
"""What :attr:`ptq4vm.quant.spec.ActivationSpec.observer` may be."""

WEIGHT_OBSERVERS: Registry[WeightObserver] = Registry("weight observer", "ptq4vm.quant.observers")
"""What :attr:`ptq4vm.quant.spec.WeightSpec.observer` may be."""

PLACEMENTS: Registry[QuantizerPlacement] = Registry("placement", "ptq4vm.quant.placement")
"""What :attr:`ptq4vm.quant.spec.QuantSpec.placement` may be."""
