"""Everything that a user can do from Python, and what the commands call: load, quantize, evaluate, export, verify,
open an engine, matte, benchmark. It puts the rooms below together and computes nothing itself. Each name is imported
when it is first asked for, so that matting with an exported file loads neither torch nor Lightning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptq4vm.api.choices import load_augmentation, load_method, load_preset, needs_flow
    from ptq4vm.api.clips import DATASETS, FLOWS, load_data, load_flow, recorded_clips
    from ptq4vm.api.evaluating import evaluate
    from ptq4vm.api.models import Model, build_model, build_network, float_model, load_checkpoint, load_model
    from ptq4vm.api.quantizing import quantize

__all__ = [
    "DATASETS",
    "FLOWS",
    "Model",
    "build_model",
    "build_network",
    "evaluate",
    "float_model",
    "load_augmentation",
    "load_checkpoint",
    "load_data",
    "load_flow",
    "load_method",
    "load_model",
    "load_preset",
    "needs_flow",
    "quantize",
    "recorded_clips",
]

# No module has the name of a function in it: importing the one would hide the other.
_MODULES = {
    "choices": ("load_augmentation", "load_method", "load_preset", "needs_flow"),
    "clips": ("DATASETS", "FLOWS", "load_data", "load_flow", "recorded_clips"),
    "evaluating": ("evaluate",),
    "models": ("Model", "build_model", "build_network", "float_model", "load_checkpoint", "load_model"),
    "quantizing": ("quantize",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """The names that can be asked for."""
    return sorted({*globals(), *__all__})
