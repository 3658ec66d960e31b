"""Everything that a user can do from Python, and what the commands call: load, quantize, evaluate, export, verify,
explain, open an engine, matte, benchmark, make a page for browsers. It puts the rooms below together and computes
nothing itself. Each name is imported when it is first asked for, so that matting with an exported file loads neither
torch nor Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptq4vm.system.lazy import imported_late

if TYPE_CHECKING:
    from ptq4vm.api.batches import BatchResult, batch_of, matte_all
    from ptq4vm.api.benchmarking import benchmark
    from ptq4vm.api.choices import load_augmentation, load_method, load_preset, needs_flow
    from ptq4vm.api.clips import DATASETS, FLOWS, load_data, load_flow, recorded_clips
    from ptq4vm.api.evaluating import evaluate
    from ptq4vm.api.explaining import explain
    from ptq4vm.api.exporting import export, verify
    from ptq4vm.api.matting import MattingResult, matte
    from ptq4vm.api.models import Model, build_model, build_network, float_model, load_checkpoint, load_model
    from ptq4vm.api.opening import open_engine
    from ptq4vm.api.quantizing import quantize
    from ptq4vm.api.sensitivities import sensitivity
    from ptq4vm.api.training import load_schedule, train, untrained, untrained_model
    from ptq4vm.api.webpages import serve_page, web_page

__all__ = [
    "DATASETS",
    "FLOWS",
    "BatchResult",
    "MattingResult",
    "Model",
    "batch_of",
    "benchmark",
    "build_model",
    "build_network",
    "evaluate",
    "explain",
    "export",
    "float_model",
    "load_augmentation",
    "load_checkpoint",
    "load_data",
    "load_flow",
    "load_method",
    "load_model",
    "load_preset",
    "load_schedule",
    "matte",
    "matte_all",
    "needs_flow",
    "open_engine",
    "quantize",
    "recorded_clips",
    "sensitivity",
    "serve_page",
    "train",
    "untrained",
    "untrained_model",
    "verify",
    "web_page",
]

__getattr__ = imported_late(
    __name__,
    {
        "ptq4vm.api.batches": ("BatchResult", "batch_of", "matte_all"),
        "ptq4vm.api.benchmarking": ("benchmark",),
        "ptq4vm.api.choices": ("load_augmentation", "load_method", "load_preset", "needs_flow"),
        "ptq4vm.api.clips": ("DATASETS", "FLOWS", "load_data", "load_flow", "recorded_clips"),
        "ptq4vm.api.evaluating": ("evaluate",),
        "ptq4vm.api.explaining": ("explain",),
        "ptq4vm.api.exporting": ("export", "verify"),
        "ptq4vm.api.matting": ("MattingResult", "matte"),
        "ptq4vm.api.models": ("Model", "build_model", "build_network", "float_model", "load_checkpoint", "load_model"),
        "ptq4vm.api.opening": ("open_engine",),
        "ptq4vm.api.quantizing": ("quantize",),
        "ptq4vm.api.sensitivities": ("sensitivity",),
        "ptq4vm.api.training": ("load_schedule", "train", "untrained", "untrained_model"),
        "ptq4vm.api.webpages": ("serve_page", "web_page"),
    },
)
