"""From a quantized network to a file for an engine, and the proof that the file computes the same. Targets, graph
passes and metadata live here. No file is opened to matte with it: that is :mod:`ptq4vm.engines`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package, which can be called: ``ptq4vm.export(checkpoint, out)`` has its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        """:func:`ptq4vm.api.export`."""
        return importlib.import_module("ptq4vm.api").export(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
