"""Evaluation of predictions that lie in a folder of images, against a folder of truth: no network runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from ptq4vm.errors import ConfigError, DataError
from ptq4vm.evaluation.results import EvaluationResult, join_chunks
from ptq4vm.media.images import list_folders, list_frames
from ptq4vm.media.tensors import read_alpha, read_rgb
from ptq4vm.metrics.functional import METRIC_NAMES, FramePair, frame_metrics, last_frames
from ptq4vm.system.cpu import usable_cpus

logger = logging.getLogger(__name__)

_CHUNK = 4  # frames in memory for each thread; a second chunk's worth for what is computed of them


Advance = Callable[[int], None]
Reader = Callable[[Path], Tensor]


@dataclass(frozen=True)
class FramePairs:
    """The files of one clip, a predicted and a true one for each frame.

    Attributes:
        name: Name of the clip with its subset, ``[subset/]clip``.
        alpha: Files of the predicted and the true alpha of each frame.
        foreground: Files of the predicted and the true foreground of each frame; empty where one of them is not there.
    """

    name: str
    alpha: tuple[tuple[Path, Path], ...]
    foreground: tuple[tuple[Path, Path], ...] = ()


def pair_clips(pred: Path | str, true: Path | str) -> tuple[FramePairs, ...]:
    """Find the clips of two folders and pair their frames by file name, whatever the suffix.

    Both are laid out as RVM's evaluation sets are: ``[subset/]<clip>/{pha[,fgr]}/<frame>``.

    Args:
        pred: Folder of predictions.
        true: Folder of truth.

    Raises:
        DataError: A folder is missing or holds no clips, or a clip, frame or its counterpart is missing.
    """
    folders = {"pred": Path(pred).expanduser(), "true": Path(true).expanduser()}
    found = {key: dict(_clips(folder, key)) for key, folder in folders.items()}
    for key, other in (("pred", "true"), ("true", "pred")):
        missing = [name for name in found[other] if name not in found[key]]
        if missing:
            raise DataError(
                f"clip {missing[0]} of {folders[other]} is not in {folders[key]}; expected "
                f"{folders[key] / missing[0]}/pha ({len(missing)} of {len(found[other])} clips are missing)"
            )
    return tuple(_pair(name, found["pred"][name], folder) for name, folder in found["true"].items())


def evaluate_folders(
    pred: Path | str,
    true: Path | str,
    metrics: Sequence[str] = METRIC_NAMES,
    workers: int = 0,
    progress: bool = True,
) -> EvaluationResult:
    """Measure predictions against truth, clips in parallel, a few frames of each in memory.

    Args:
        pred: Folder of predictions; see :func:`pair_clips`.
        true: Folder of truth.
        metrics: Names of the metrics of alpha; those of one of :data:`ptq4vm.metrics.METRIC_SETS`. The foreground is
            measured besides in clips that have it in both folders.
        workers: Number of threads; as many as this process may use cores when 0.
        progress: Whether a progress bar is shown.

    Raises:
        DataError: As :func:`pair_clips`; an image is damaged, or the two of a pair differ in size.
        ConfigError: ``workers`` is negative.
    """
    if workers < 0:
        raise ConfigError(f"num_workers must be at least 0, not {workers}")
    clips = pair_clips(pred, true)
    count = min(workers or usable_cpus(), len(clips))
    logger.info("measuring %d clips in %d threads", len(clips), count)
    with Progress(disable=not progress, transient=True) as bar, ThreadPoolExecutor(count) as pool:
        task = bar.add_task("frames", total=sum(len(clip.alpha) for clip in clips))
        futures = [pool.submit(_measure, clip, metrics, lambda n: bar.advance(task, n)) for clip in clips]
        try:
            values = [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
    return EvaluationResult.from_frames({clip.name: value for clip, value in zip(clips, values, strict=True)})


@torch.inference_mode()
def _measure(clip: FramePairs, metrics: Sequence[str], advance: Advance) -> dict[str, tuple[float, ...]]:
    previous: FramePair | None = None
    parts = []
    for start in range(0, len(clip.alpha), _CHUNK):
        window = slice(start, start + _CHUNK)
        alpha, truth = _read(clip.alpha[window], read_alpha)
        colours = _read(clip.foreground[window], read_rgb) if clip.foreground else None
        if colours is not None and colours[1].shape[-2:] != truth.shape[-2:]:
            raise DataError(_sizes(clip.foreground[start][1], colours[1], clip.alpha[start][1], truth))
        if previous is not None and previous[1].shape[-2:] != truth.shape[-2:]:
            raise DataError(_sizes(clip.alpha[start][1], truth, clip.alpha[start - 1][1], previous[1]))
        parts.append(frame_metrics(alpha, truth, previous, metrics, colours))
        previous = last_frames(alpha, truth)
        advance(len(alpha))
    return join_chunks(parts)


def _read(pairs: Sequence[tuple[Path, Path]], read: Reader) -> tuple[Tensor, Tensor]:
    predicted: list[Tensor] = []
    true: list[Tensor] = []
    for one, other in pairs:
        images = read(one), read(other)
        if images[0].shape != images[1].shape:
            raise DataError(_sizes(one, images[0], other, images[1]))
        if true and images[1].shape != true[0].shape:
            raise DataError(_sizes(other, images[1], pairs[0][1], true[0]))
        predicted.append(images[0])
        true.append(images[1])
    return torch.stack(predicted), torch.stack(true)


def _sizes(one: Path, image: Tensor, other: Path, reference: Tensor) -> str:
    first, second = (f"{i.shape[-1]}x{i.shape[-2]}" for i in (image, reference))
    return f"image {one} is {first} but {other} is {second}; bring them to one size"


def _clips(root: Path, key: str) -> Iterator[tuple[str, Path]]:
    if not root.is_dir():
        raise DataError(f"folder {root} does not exist; set {key}= to a folder of clips")
    empty = True
    for folder in list_folders(root):
        inner = [folder] if (folder / "pha").is_dir() else list_folders(folder)
        for clip in inner:
            if (clip / "pha").is_dir():
                empty = False
                yield clip.relative_to(root).as_posix(), clip
    if empty:
        raise DataError(f"folder {root} holds no clips; expected {root}/[subset/]<clip>/pha with frames")


def _pair(name: str, pred: Path, true: Path) -> FramePairs:
    both = [folder / "fgr" for folder in (pred, true)]
    foreground = _frames(name, *both) if all(folder.is_dir() for folder in both) else ()
    alpha = _frames(name, pred / "pha", true / "pha")
    if foreground and len(foreground) != len(alpha):
        raise DataError(f"clip {name}: {true / 'fgr'} has {len(foreground)} frames but {true / 'pha'} has {len(alpha)}")
    return FramePairs(name, alpha, foreground)


def _frames(name: str, pred: Path, true: Path) -> tuple[tuple[Path, Path], ...]:
    predicted, truth = ({path.stem: path for path in list_frames(folder)} for folder in (pred, true))
    for folder, here, there in ((pred, predicted, truth), (true, truth, predicted)):
        missing = [stem for stem in there if stem not in here]
        if missing:
            raise DataError(
                f"clip {name}: {folder} has no frame {missing[0]} for {there[missing[0]]} "
                f"({len(missing)} of {len(there)} are missing)"
            )
    return tuple((predicted[stem], path) for stem, path in truth.items())
