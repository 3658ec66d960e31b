"""Post-training quantization for video matting networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptq4vm.version import __version__

if TYPE_CHECKING:
    from ptq4vm.api import (
        Model,
        evaluate,
        load_augmentation,
        load_checkpoint,
        load_data,
        load_flow,
        load_method,
        load_model,
        load_preset,
        quantize,
    )

__all__ = [
    "Model",
    "__version__",
    "evaluate",
    "load_augmentation",
    "load_checkpoint",
    "load_data",
    "load_flow",
    "load_method",
    "load_model",
    "load_preset",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """Give what :mod:`ptq4vm.api` defines when it is first asked for: importing the package stays light."""
    if name in __all__:
        return getattr(importlib.import_module("ptq4vm.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
