"""Choices of ``conf`` by their names: presets, augmentations, methods."""

from __future__ import annotations

from ptq4vm import settings
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.methods.method import Method, Preset
from ptq4vm.quant.spec import QuantSpec


def load_preset(name: str) -> Preset:
    """Load a preset of ``conf/preset``; change it with :func:`dataclasses.replace`. Raises :class:`ConfigError`."""
    return settings.preset(settings.read_choice("preset", name))


def chosen_preset(preset: str | Preset | None, method: str | Method) -> Preset:
    """The schedules of a preset's name; of the one that the method's file chooses when ``preset`` is ``None``.

    Raises:
        ConfigError: A name is unknown.
    """
    if isinstance(preset, Preset):
        return preset
    return load_preset(preset or settings.preset_of(method if isinstance(method, str) else method.name))


def load_augmentation(name: str) -> Augmentation:
    """Load a choice of ``conf/augmentation``; change it with :func:`dataclasses.replace`. Raises
    :class:`ConfigError`."""
    return settings.augmentation(settings.read_choice("augmentation", name))


def load_method(name: str, bits: str = "w4a4", overflow: str = "safe") -> tuple[Method, QuantSpec]:
    """A method of ``conf/method`` and its quantizers.

    Args:
        name: Name of the method's file, such as ``ptq4vm``.
        bits: Bits of weights and activations, ``wXaY`` (``w4a4``), or ``fp32``.
        overflow: ``safe`` or ``vnni``; see :class:`ptq4vm.quant.spec.QuantSpec`.

    Raises:
        ConfigError: A name is unknown.
    """
    values = settings.read_choice("method", name, overflow=overflow)
    return settings.method(values), settings.quant_spec(settings.read_choice("bits", bits), values["quantizer"])


def needs_flow(method: Method, spec: QuantSpec, preset: Preset) -> bool:
    """Whether a run looks at optical flow."""
    return method.global_settings(preset.gac).flow_weight > 0 and not spec.is_float
