"""Observers: from seen values to ranges."""

from ptq4vm.errors import ConfigError
from ptq4vm.quant.observers.base import Observer
from ptq4vm.quant.observers.minmax import MinMaxObserver
from ptq4vm.quant.observers.mse import MSEObserver, affine_qparams
from ptq4vm.quant.observers.percentile import PercentileObserver
from ptq4vm.quant.observers.weight import weight_scale
from ptq4vm.quant.spec import ActivationSpec

__all__ = [
    "MSEObserver",
    "MinMaxObserver",
    "Observer",
    "PercentileObserver",
    "activation_observer",
    "affine_qparams",
    "weight_scale",
]


def activation_observer(spec: ActivationSpec, seed: int = 0) -> Observer:
    """Build the observer that a spec names. Raises :class:`ConfigError` for an unknown name."""
    if spec.observer == "minmax":
        return MinMaxObserver(seed=seed)
    if spec.observer == "percentile":
        return PercentileObserver(spec.percentile, seed=seed)
    if spec.observer == "mse":
        return MSEObserver(spec.code_range[1], symmetric=not spec.affine, seed=seed)
    raise ConfigError(f"activation observer={spec.observer!r} is unknown: use minmax, percentile or mse")
