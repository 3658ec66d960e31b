"""Engines by what the user calls them: ``fp32``, a run folder, an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptq4vm import api
from ptq4vm.deploy.engines.base import MattingEngine
from ptq4vm.deploy.engines.pytorch import PyTorchEngine
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.quant.checkpoint import read_info

EXPORTED = {".onnx": "onnx", ".xml": "openvino"}
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
        CheckpointError: The checkpoint is missing or damaged.
        WeightsError: The float network's weights cannot be found.
    """
    kind = "pytorch" if checkpoint == "fp32" else EXPORTED.get(Path(checkpoint).suffix.lower(), "pytorch")
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"engine={engine} is unknown: use auto, {', '.join(ENGINES)}")
    if engine not in ("auto", kind):
        raise ConfigError(
            f"engine={engine} does not run checkpoint={checkpoint}, which is for {kind}: export it first, "
            "or leave engine out"
        )
    if kind != "pytorch":
        chosen, label = _exported(kind, Path(checkpoint), downsample_ratio), Path(checkpoint).name
        network = api.load_model(model, weights).network if compare else None
    elif checkpoint == "fp32":
        chosen, label, network = PyTorchEngine(api.load_model(model, weights).network, downsample_ratio), "FP32", None
    else:
        chosen = PyTorchEngine(api.load_checkpoint(checkpoint), downsample_ratio)
        info = read_info(checkpoint)
        label = f"W{info.spec.weight.bits}A{info.spec.activation.bits}"
        network = api.build_network(info.model["family"], info.model["arguments"], weights) if compare else None
    first = () if network is None else (PyTorchEngine(network, downsample_ratio),)
    return Engines((*first, chosen), label)


def _exported(kind: str, path: Path, downsample_ratio: float | None) -> MattingEngine:
    """The engine of an exported file, which brings its own ratio."""
    if downsample_ratio is not None:
        raise ConfigError(f"downsample_ratio={downsample_ratio:g} was chosen when {path} was exported: leave it out")
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: write it with `ptq4vm export`")
    raise ConfigError(f"checkpoint={path}: no {kind} engine is here yet")
