"""Post-training quantization for video matting networks.

Here are the names that a user of the library needs, each imported when it is first asked for; the rooms below do the
work. Another name enters when :mod:`ptq4vm.api` has it. Nothing is computed here, and importing this loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptq4vm.system.lazy import imported_late
from ptq4vm.version import __version__

if TYPE_CHECKING:
    from ptq4vm.api import (
        MattingResult,
        Model,
        benchmark,
        evaluate,
        explain,
        export,
        load_augmentation,
        load_checkpoint,
        load_data,
        load_flow,
        load_method,
        load_model,
        load_preset,
        matte,
        matte_all,
        open_engine,
        quantize,
        sensitivity,
        serve_page,
        verify,
        web_page,
    )

__all__ = [
    "MattingResult",
    "Model",
    "__version__",
    "benchmark",
    "evaluate",
    "explain",
    "export",
    "load_augmentation",
    "load_checkpoint",
    "load_data",
    "load_flow",
    "load_method",
    "load_model",
    "load_preset",
    "matte",
    "matte_all",
    "open_engine",
    "quantize",
    "sensitivity",
    "serve_page",
    "verify",
    "web_page",
]


__getattr__ = imported_late(__name__, {"ptq4vm.api": [name for name in __all__ if name != "__version__"]})
