"""Engines by what the user calls them: ``fp32``, a run folder, an exported file.

PyTorch is imported where a network runs in it and nowhere else: an exported file is opened in a tenth of the time that
importing it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptq4vm.engines.anysize import AUTO, AnySizeEngine
from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.registry import ENGINES, engines_for
from ptq4vm.engines.registry import open_engine as open_file
from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_threads

if TYPE_CHECKING:
    from ptq4vm.engines.step import StepEngine
    from ptq4vm.models.base import MattingNetwork

PYTORCH = "pytorch"
"""The engine of networks that are in no exported file."""
FLOAT = "fp32"
"""The checkpoint that is no file: the float network."""


@dataclass(frozen=True)
class Engines:
    """Engines to run side by side.

    Attributes:
        engines: The one that was asked for, or, for a comparison, the float network's before it.
        label: What pictures and tables call the one that was asked for, such as ``W4A4``.
    """

    engines: tuple[MattingEngine, ...]
    label: str


def open_engine(
    checkpoint: str | Path = FLOAT,
    *,
    engine: str = "auto",
    downsample_ratio: float | None = None,
    threads: int | None = None,
    model: str = "rvm_mobilenetv3",
    weights: str | Path | None = None,
    size: tuple[int, int] | str = AUTO,
) -> MattingEngine:
    """Open what mattes one frame after another.

    Args:
        checkpoint: ``fp32`` for the float network, a run folder, or an exported file (``.onnx``, ``.xml``, ...).
        engine: ``pytorch``, ``onnx``, ``openvino``, ``litert``, ``bits``, or ``auto``: by the checkpoint.
        downsample_ratio: Fraction of the frames' size at which the network runs, in (0, 1]. By default the longer side
            is brought to 512 pixels. An exported file has its own, and takes no other.
        threads: CPU threads of the engine, as many as it likes by default. Those of PyTorch are the whole process's.
        model: Name of the float network in ``conf/model``.
        weights: A file with the float network's weights; the usual places when not given.
        size: ``(H, W)`` at which an exported file runs whatever the frames' size is; ``file`` for the size that it was
            exported for, ``auto`` for one of the frames' aspect and about that area, where the file permits it.

    Returns:
        The engine. Its ``matte`` takes frames ``(H, W, 3)`` uint8 RGB and gives alpha ``(H, W)`` and foreground
        ``(H, W, 3)``, float32 in [0, 1].

    Raises:
        ConfigError: The engine is unknown or does not run such a checkpoint, or a value is out of range.
        CheckpointError: The run folder is missing or damaged.
        ExportError: The exported file is missing, damaged or not one of ours.
        WeightsError: The float network's weights cannot be found.
    """
    return open_engines(checkpoint, engine, model, weights, downsample_ratio, threads, size=size).engines[0]


def open_engines(
    checkpoint: str | Path,
    engine: str = "auto",
    model: str = "rvm_mobilenetv3",
    weights: str | Path | None = None,
    downsample_ratio: float | None = None,
    threads: int | None = None,
    compare: bool = False,
    size: tuple[int, int] | str = AUTO,
) -> Engines:
    """Open the engine of a checkpoint and, for a comparison, the float network's before it.

    Args and raises: as :func:`open_engine`; ``compare`` also opens the float network, in PyTorch.
    """
    if engine not in ("auto", PYTORCH, *ENGINES.names()):
        raise ConfigError(f"engine={engine} is unknown: use auto, {', '.join((PYTORCH, *ENGINES.names()))}")
    able = _able(checkpoint)
    if size != AUTO and (compare or able == (PYTORCH,)):
        other = (
            "compare=true takes frames of the file's size" if compare else f"checkpoint={checkpoint} is no such file"
        )
        raise ConfigError(f"size is what an exported file runs at, and {other}: leave it out")
    if engine not in ("auto", *able):
        raise ConfigError(
            f"engine={engine} does not run checkpoint={checkpoint}, which is for {' or '.join(able)}: "
            "leave engine out, or export the checkpoint first"
        )
    if able != (PYTORCH,):
        chosen = _exported(able[0] if engine == "auto" else engine, Path(checkpoint), downsample_ratio, threads)
        label, ratio = Path(checkpoint).name, chosen.downsample_ratio
        if not compare:
            return Engines((AnySizeEngine(chosen, threads, size),), label)
        return Engines((_float_engine(model, weights, ratio, threads), chosen), label)
    if checkpoint == FLOAT:
        return Engines((_float_engine(model, weights, downsample_ratio, threads),), "FP32")
    return _of_a_run(checkpoint, weights, downsample_ratio, threads, compare)


def _able(checkpoint: str | Path) -> tuple[str, ...]:
    """Engines that can run a checkpoint, the usual one first."""
    return (PYTORCH,) if Path(checkpoint).is_dir() else engines_for(Path(checkpoint)) or (PYTORCH,)


def _exported(kind: str, path: Path, downsample_ratio: float | None, threads: int | None) -> StepEngine:
    """The engine of an exported file, which brings its own ratio."""
    if downsample_ratio is not None:
        raise ConfigError(f"downsample_ratio={downsample_ratio:g} was chosen when {path} was exported: leave it out")
    return open_file(path, threads, kind)


def _of_a_run(
    folder: str | Path, weights: str | Path | None, downsample_ratio: float | None, threads: int | None, compare: bool
) -> Engines:
    """The quantized network of a run folder, after the float one that it was made from where both are asked for."""
    from ptq4vm.api.models import build_network, load_checkpoint
    from ptq4vm.quant.checkpoint import read_info

    _use_threads(threads)
    chosen = _in_pytorch(load_checkpoint(folder), downsample_ratio)
    info = read_info(folder)
    if not compare:
        return Engines((chosen,), info.label)
    network = build_network(info.model["family"], info.model["arguments"], weights)
    return Engines((_in_pytorch(network, downsample_ratio), chosen), info.label)


def _float_engine(
    model: str, weights: str | Path | None, downsample_ratio: float | None, threads: int | None
) -> MattingEngine:
    from ptq4vm.api.models import load_model

    _use_threads(threads)
    return _in_pytorch(load_model(model, weights).network, downsample_ratio)


def _in_pytorch(network: MattingNetwork, downsample_ratio: float | None) -> MattingEngine:
    from ptq4vm.engines.pytorch import PyTorchEngine

    return PyTorchEngine(network, downsample_ratio)


def _use_threads(threads: int | None) -> None:
    import torch

    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
