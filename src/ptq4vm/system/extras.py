"""Packages that only some targets need."""

from __future__ import annotations

import importlib
from typing import Any

from ptq4vm.errors import ConfigError


def needed(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: ``onnx``, ``onnxruntime``, ``openvino``, or a module below one of them.
        extra: The extra of ptq4vm that brings it.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(f"{package} is not installed ({error}): pip install 'ptq4vm[{extra}]'") from error
