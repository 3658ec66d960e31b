"""A network as a file for an engine, and the proof that the file computes the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ptq4vm.api.clips import recorded_clips
from ptq4vm.api.models import load_checkpoint, load_model
from ptq4vm.api.opening import FLOAT
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.errors import ConfigError, PTQ4VMError, SaveError, one_line
from ptq4vm.exporting.metadata import check_origin, checkpoint_hash, describe, describe_float
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import TARGETS, Target
from ptq4vm.exporting.verify import Parity, moving_portrait, open_engine
from ptq4vm.exporting.verify import verify as compare
from ptq4vm.ops.clips import fitted
from ptq4vm.pipeline.teacher import fingerprint, folded
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.types import Clip, ClipSource
from ptq4vm.version import __version__

ANY_SIZE = (288, 512)
"""``(H, W)`` of the drawn clip for a file that takes any size."""

log = logging.getLogger(__name__)


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    target: str | None = None,
    size: tuple[int, int] = (288, 512),
    dynamic: bool = False,
    downsample_ratio: float = 1.0,
    overwrite: bool = False,
    model: str = "rvm_mobilenetv3",
    weights: str | Path | None = None,
) -> Path:
    """Write a quantized network as an integer graph for an engine, or the float one to compare it with.

    Args:
        checkpoint: A run folder of :func:`ptq4vm.quantize`, or ``fp32``.
        out: The file: ``.onnx``, ``.trt.onnx``, ``.tflite``, ``.bits``, or ``.xml``, which has a ``.bin`` beside it.
        target: ``onnx``, ``tensorrt``, ``openvino``, ``litert`` or ``bits``; what the suffix of ``out`` says when not
            given.
        size: ``(H, W)`` of a frame, pixels.
        dynamic: Whether the file takes frames of any size.
        downsample_ratio: Fraction of the size at which the network runs, in (0, 1], fixed in the file.
        overwrite: Whether what is there may be replaced.
        model: Name of the float network in ``conf/model``, for ``fp32``.
        weights: A file with its weights; the usual places when not given.

    Returns:
        The path of the file.

    Raises:
        ConfigError: The target is unknown, ``out`` does not suit it, or a value is out of range.
        CheckpointError: The run folder is missing or damaged.
        ExportError: The network cannot be written for this target.
        SaveError: The file is there already or cannot be written.
        WeightsError: The float network's weights cannot be found.
    """
    path = Path(out)
    writer = _target(path, target)
    shape = FrameShape(*size, dynamic, downsample_ratio)
    if not overwrite:
        for file in writer.files(path):
            if file.exists():
                raise SaveError(f"{file} is there already: add overwrite=true or choose another name")
    if checkpoint == FLOAT:
        found = load_model(model, weights)
        network = folded(found.network, found.partition)
        metadata = describe_float(found.architecture, network, fingerprint(network, 1.0), shape, __version__)
    else:
        network = load_checkpoint(checkpoint)
        metadata = describe(Path(checkpoint), read_info(checkpoint), network, shape, __version__, writer)
    writer.write(network, path, shape, metadata)
    return path


def _target(out: Path, target: str | None) -> Target:
    """The target by its name or by the suffix of ``out``, which must be its own. Raises :class:`ConfigError`."""
    suffixes = {TARGETS[name].suffix: name for name in TARGETS.names()}
    # the longest decides: a.trt.onnx is TensorRT's, and another .onnx ONNX Runtime's
    found = max((suffix for suffix in suffixes if out.name.endswith(suffix)), key=len, default=None)
    if target is None and found is None:
        raise ConfigError(f"out={out}: use a name that ends in {' or '.join(suffixes)}, or give target=")
    kind = TARGETS[target or suffixes[str(found)]]
    if found != kind.suffix:
        others = f", and {found} is target={suffixes[found]}'s" if found and found.endswith(kind.suffix) else ""
        raise ConfigError(f"out={out}: target={kind.name} needs a name that ends in {kind.suffix}{others}")
    return kind()


def verify(
    checkpoint: str | Path,
    file: str | Path,
    *,
    frames: int = 24,
    clips: int = 3,
    clip: str | Path | None = None,
    threads: int | None = None,
    model: str = "rvm_mobilenetv3",
    weights: str | Path | None = None,
) -> Parity:
    """Compare an exported file with the network that it was made from, frame by frame, each with its own states.

    Args:
        checkpoint: The run folder, or ``fp32``.
        file: The exported file.
        frames: How many of each clip.
        clips: How many of the run's own evaluation clips, the first ones. Where they are gone, and for ``fp32``, a
            drawn portrait serves.
        clip: A folder with ``com/`` and ``pha/`` instead.
        threads: CPU threads of the engine, as many as it likes by default.
        model: Name of the float network in ``conf/model``, for ``fp32``.
        weights: A file with the float network's weights; the usual places when not given. A run needs them where the
            float network's alphas are the clips' truth.

    Returns:
        How far apart the two are. ``passed`` says whether within the limits, and its text is one line; what explains a
        failure is in it.

    Raises:
        ConfigError: A number is out of range, or the file is of no known kind.
        CheckpointError: The run folder is missing or damaged.
        DataError: The clip cannot be read.
        ExportError: The file is missing, damaged, not one of ours, or of another network.
        WeightsError: The float network's weights cannot be found.
    """
    for key, count in (("frames", frames), ("clips", clips)):
        if count < 1:
            raise ConfigError(f"{key}={count} is none: use 1 or more")
    engine = open_engine(Path(file), threads)
    if checkpoint == FLOAT:
        loaded = load_model(model, weights)
        network, architecture, info = folded(loaded.network, loaded.partition), loaded.architecture, None
        wanted = fingerprint(network, 1.0)
    else:
        network, info = load_checkpoint(checkpoint), read_info(checkpoint)
        architecture, wanted = info.model, checkpoint_hash(Path(checkpoint))
    check_origin(engine.metadata, Path(file), checkpoint, architecture, info)
    if engine.metadata.get("checkpoint") != wanted:
        log.warning("%s does not say that it was exported from %s", file, checkpoint)
    sources = _sources(checkpoint, clip, weights)[:clips]
    size = engine.frame_size
    # a drawn clip for a float network, which any picture will do for, and where there is nothing else
    chosen = [_beginning(source, frames) for source in sources] or [moving_portrait(size or ANY_SIZE, frames)]
    return compare(network, engine, [fitted(each, size) for each in chosen])


def _sources(checkpoint: str | Path, clip: str | Path | None, weights: str | Path | None) -> Sequence[ClipSource]:
    """The clip that was asked for, or the run's own evaluation clips, which its network knows; none where gone."""
    if clip is not None:
        return [FolderClip.from_folder(Path(clip))]
    if checkpoint == FLOAT:
        return []
    try:
        return recorded_clips(checkpoint, weights)
    except PTQ4VMError as error:
        log.warning("give clip=DIR: a drawn portrait says little of a trained network (%s)", one_line(error))
        return []


def _beginning(source: ClipSource, frames: int) -> Clip:
    return source.read(0, min(frames, source.num_frames))
