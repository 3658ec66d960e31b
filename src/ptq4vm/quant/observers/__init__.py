"""From seen values to ranges: one observer a file, chosen by its name. Tensors come in, numbers go out; no network and
no quantizer is known here. Another observer is a file and its name in the registry."""

from ptq4vm.quant.observers.base import JointObserver, Observer, Range
from ptq4vm.quant.observers.minmax import MinMaxObserver
from ptq4vm.quant.observers.mse import MSEObserver
from ptq4vm.quant.observers.percentile import PercentileObserver
from ptq4vm.quant.observers.weight import weight_scale
from ptq4vm.quant.registries import OBSERVERS
from ptq4vm.quant.spec import ActivationSpec

__all__ = [
    "JointObserver",
    "MSEObserver",
    "MinMaxObserver",
    "Observer",
    "PercentileObserver",
    "Range",
    "activation_observer",
    "weight_scale",
]


def activation_observer(spec: ActivationSpec, seed: int = 0) -> Observer:
    """Build the observer that a spec names. Raises :class:`ptq4vm.errors.ConfigError` for an unknown name."""
    return OBSERVERS[spec.observer].from_spec(spec, seed)
