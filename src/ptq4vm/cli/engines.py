"""Engines by what the user calls them: ``fp32``, a run folder, an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptq4vm import api
from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.engines.pytorch import PyTorchEngine
from ptq4vm.engines.step import StepEngine
from ptq4vm.errors import ConfigError
from ptq4vm.quant.checkpoint import read_info

ENGINES = ("pytorch", "onnx", "openvino")


@dataclass(frozen=True)
class Engines:
    """Engines to run side by side.

    Attributes:
        engines: The one that was asked for, or, for a comparison, the float network's before it.
        label: Of the one that was asked for, such as ``W4A4``.
    """

    engines: tuple[MattingEngine, ...]
    label: str


def load_engines(
    checkpoint: str,
    engine: str = "auto",
    model: str = "rvm_mobilenetv3",
    weights: str | None = None,
    downsample_ratio: float | None = None,
    compare: bool = False,
) -> Engines:
    """Load a network into the engine that it needs.

    Args:
        checkpoint: ``fp32``, a run folder, or an exported ``.onnx`` or ``.xml`` file.
        engine: One of :data:`ENGINES`, or ``auto``: by the checkpoint.
        model: The float network.
        weights: File with its weights; the usual places when ``None``.
        downsample_ratio: ``None``: automatic.
        compare: Also load the float network, as the first engine.

    Raises:
        ConfigError: The engine is unknown or does not run such a checkpoint.
        CheckpointError: The run folder is missing or damaged.
        ExportError: The exported file is missing, damaged or not one of ours.
        WeightsError: The float network's weights cannot be found.
    """
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"engine={engine} is unknown: use auto, {', '.join(ENGINES)}")
    able = _able(checkpoint)
    if engine not in ("auto", *able):
        raise ConfigError(
            f"engine={engine} does not run checkpoint={checkpoint}, which is for {' or '.join(able)}: "
            "leave engine out, or export the checkpoint first"
        )
    if able != ("pytorch",):
        return _exported(
            able[0] if engine == "auto" else engine, Path(checkpoint), downsample_ratio, (model, weights), compare
        )
    if checkpoint == "fp32":
        return Engines((PyTorchEngine(api.load_model(model, weights).network, downsample_ratio),), "FP32")
    chosen = PyTorchEngine(api.load_checkpoint(checkpoint), downsample_ratio)
    info = read_info(checkpoint)
    label = f"W{info.spec.weight.bits}A{info.spec.activation.bits}"
    if not compare:
        return Engines((chosen,), label)
    network = api.build_network(info.model["family"], info.model["arguments"], weights)
    return Engines((PyTorchEngine(network, downsample_ratio), chosen), label)


def _able(checkpoint: str) -> tuple[str, ...]:
    """Engines that can run a checkpoint, the usual one first."""
    suffix = "" if Path(checkpoint).is_dir() else Path(checkpoint).suffix.lower()
    return {".onnx": ("onnx", "openvino"), ".xml": ("openvino",)}.get(suffix, ("pytorch",))


def _exported(
    kind: str, path: Path, downsample_ratio: float | None, network: tuple[str, str | None], compare: bool
) -> Engines:
    """The engine of an exported file, which brings its own ratio."""
    if downsample_ratio is not None:
        raise ConfigError(f"downsample_ratio={downsample_ratio:g} was chosen when {path} was exported: leave it out")
    engine: StepEngine = OnnxEngine(path) if kind == "onnx" else OpenVinoEngine(path)
    if not compare:
        return Engines((engine,), path.name)
    first = PyTorchEngine(api.load_model(*network).network, engine.downsample_ratio)
    return Engines((first, engine), path.name)
