"""Which calibration samples are drawn, and in which order they come: functions of a seed, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from ptq4vm.data.clips.sources import may_be_empty
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.types import ClipSource

_CANDIDATES = 32  # crop boxes tried before the best is taken


@dataclass(frozen=True)
class CalibrationSample:
    """Where one sample is cut out of a calibration clip: which frames, and which part of them.

    Attributes:
        clip: Index of the clip in the list of calibration clips.
        start: Index of the first frame in the clip.
        stop: Index of the frame after the last.
        top: First row of the crop, pixels.
        left: First column of the crop, pixels.
        size: ``(h, w)`` of the crop in the clip, pixels.
        flip: Whether it is mirrored left to right, after cropping.
        output: ``(h, w)`` in pixels that the crop is scaled to; ``None`` leaves it as it is.
    """

    clip: int
    start: int
    stop: int
    top: int
    left: int
    size: tuple[int, int]
    flip: bool
    output: tuple[int, int] | None = None


class EpochShuffleSampler(DistributedSampler[int]):
    """Shuffles as a pure function of seed and epoch, so that a resumed run goes on in the same order.

    Several processes take turns in that one order: their batches number k are together what one process with a larger
    batch would get as its batch k. No sample comes twice; up to ``processes - 1`` at the end of an epoch's order are
    left out, others in every epoch, so that all processes have equally many.

    It is a DistributedSampler so that Lightning does not put one of its own, with another order, in its place.

    Args:
        length: Number of samples.
        seed: Seed of all epochs.
        shuffle: Off, samples come in their own order.
        processes: How many processes share the samples.
        rank: Number of this process.
    """

    def __init__(self, length: int, seed: int = 0, shuffle: bool = True, processes: int = 1, rank: int = 0) -> None:
        super().__init__(range(length), processes, rank, shuffle, seed, drop_last=True)  # type: ignore[arg-type]
        self.length = length

    def __len__(self) -> int:
        return self.length // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.length))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator).tolist()
        return iter(order[: len(self) * self.num_replicas][self.rank :: self.num_replicas])


def draw_samples(
    clips: Sequence[ClipSource],
    count: int,
    clip_length: int,
    crop: tuple[int, int] | None,
    hflip: float,
    seed: int,
    zoom: float = 1.0,
    size: tuple[int, int] | None = None,
) -> list[CalibrationSample]:
    """Draw calibration samples, using every clip equally often (to within one).

    Crops show foreground, background and the edge between them where the clip allows it, and never nothing of the
    subject. The first samples of a larger draw are those of a smaller one.

    Args:
        clips: Where to cut from.
        count: Samples to draw.
        clip_length: Frames of each.
        crop: ``(h, w)`` of each, pixels; whole frames when ``None``, those of clips that may be empty (unlabelled
            pictures) cut and scaled to the size of the first clip's.
        hflip: Probability of mirroring.
        zoom: Half of the samples show a smaller box, enlarged by up to this factor: close and blurred, as people are in
            calls and in upscaled footage. 1 enlarges none; needs ``crop`` or ``size``.
        seed: The draw is a function of this and of the clips.
        size: ``(h, w)`` that crops are scaled to, pixels. Whole frames, then of any sizes, are cut to its shape before.

    Raises:
        DataError: A clip is too short, cannot be read or has an alpha of zero in every frame.
        ConfigError: The crop is larger than a clip's frames, or crops and ``size`` are off and clips differ in size.
    """
    check_clips(clips, clip_length, crop, zoom, size)
    cut = partial(cut_sample, crop=crop, zoom=zoom, output=size or crop or clips[0].size)
    samples = []
    for number, clip in track(draw_order(len(clips), count, seed), description="calibration samples", transient=True):
        samples.append(_draw_one(clips[clip], clip, clip_length, hflip, sample_generator(seed, number), cut))
    return samples


def within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """``(h, w)`` of frames of ``size`` once their longer side has ``longest`` pixels at most."""
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def draw_order(clips: int, count: int, seed: int) -> list[tuple[int, int]]:
    """``(number of the sample, index of its clip)`` of ``count`` samples from ``clips`` clips."""
    drawn = []
    order: list[int] = []
    for number in range(count):
        if not order:
            order = torch.randperm(clips, generator=sample_generator(seed, -1 - number)).tolist()
        drawn.append((number, order.pop()))
    return drawn


def check_clips(
    clips: Sequence[ClipSource],
    clip_length: int,
    crop: tuple[int, int] | None,
    zoom: float,
    size: tuple[int, int] | None = None,
) -> None:
    """Whether samples can be cut from ``clips``. Raises what :func:`draw_samples` does."""
    if zoom < 1 or (zoom > 1 and crop is None and size is None):
        raise ConfigError(f"calibration.zoom={zoom}: use at least 1, and a calibration.crop with more than 1")
    first = clips[0].size
    for clip in clips:
        if clip.num_frames < clip_length:
            raise DataError(
                f"clip {clip.name} has {clip.num_frames} frames but calibration needs {clip_length}; "
                "remove the clip or lower calibration.clip_length"
            )
        height, width = clip.size
        if crop is None and size is None and (height, width) != first and not may_be_empty(clip):
            raise ConfigError(
                f"clip {clip.name} is {width}x{height} but {clips[0].name} is {first[1]}x{first[0]}; "
                "set calibration.crop so that clips can be batched"
            )
        if crop is not None and (crop[0] > height or crop[1] > width):
            raise ConfigError(
                f"calibration.crop {crop[1]}x{crop[0]} does not fit into clip {clip.name}, {width}x{height}"
            )


def check_numbers(
    clip_length: int,
    clips: int,
    batch_size: int,
    num_workers: int,
    eval_chunk: int,
    crop: Sequence[int] | None,
    hflip: float,
    size: Sequence[int] | None = None,
    longest: int | None = None,
) -> None:
    """Check what a data module is given. Raises :class:`ConfigError`."""
    lowest = {"clip_length": (clip_length, 1), "clips": (clips, 1), "batch_size": (batch_size, 1)}
    lowest |= {"num_workers": (num_workers, 0), "eval_chunk": (eval_chunk, 1)}
    if longest is not None:
        lowest["longest"] = (longest, 1)
    for key, (value, least) in lowest.items():
        if value < least:
            raise ConfigError(f"calibration.{key} must be at least {least}, not {value}")
    for key, sides in (("crop", crop), ("size", size)):
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise ConfigError(f"calibration.{key} must be two positive numbers, height and width, not {list(sides)}")
    if not 0 <= hflip <= 1:
        raise ConfigError(f"calibration.hflip must be a probability from 0 to 1, not {hflip}")


def sample_generator(seed: int, number: int) -> torch.Generator:
    """Make the source of randomness of one sample, which does not depend on how many are drawn.

    Args:
        seed: Seed of the whole draw, shared by all samples.
        number: Number of the sample, from 0; below 0 for the order of clips.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 63))


def _uniform(high: int, generator: torch.Generator) -> int:
    """Integer in ``[0, high]``."""
    return int(torch.randint(high + 1, (1,), generator=generator))


def _draw_one(
    source: ClipSource,
    clip: int,
    clip_length: int,
    hflip: float,
    generator: torch.Generator,
    cut: Callable[..., CalibrationSample],
) -> CalibrationSample:
    start = _uniform(source.num_frames - clip_length, generator)
    flip = bool(torch.rand(1, generator=generator) < hflip)
    alpha = source.read(start, start + clip_length).alpha
    if not alpha.any() and not may_be_empty(source):
        start, alpha = window_with_subject(source, clip_length)
    return cut(alpha, clip, start, flip=flip, generator=generator)


def cut_sample(
    alpha: Tensor,
    clip: int,
    start: int,
    *,
    crop: tuple[int, int] | None,
    flip: bool,
    zoom: float,
    generator: torch.Generator,
    output: tuple[int, int],
) -> CalibrationSample:
    """Choose the crop of a sample by its alpha, ``(T, 1, H, W)`` uint8: where the subject is, where there is one.

    Args:
        alpha: True alpha of all frames of the sample, before cropping.
        clip: Index of the sample's clip.
        start: Index of the sample's first frame in that clip.
        crop: See :func:`draw_samples`.
        flip: Whether the sample is mirrored left to right.
        zoom: See :func:`draw_samples`.
        generator: Source of randomness, from :func:`sample_generator`.
        output: ``(h, w)`` in pixels that the sample has in the end; whole frames are cut to its shape.
    """
    sample = CalibrationSample(clip, start, start + len(alpha), 0, 0, output, flip)
    frame = (alpha.shape[-2], alpha.shape[-1])
    factor = 1.0
    if zoom > 1:
        factor = 1 + (zoom - 1) * max(0.0, 2 * float(torch.rand(1, generator=generator)) - 1)
    box = crop or _largest(frame, output)
    middle = ((frame[0] - box[0]) // 2, (frame[1] - box[1]) // 2)
    if factor > 1:
        box = (max(1, round(box[0] / factor)), max(1, round(box[1] / factor)))
    top, left = middle if crop is None and factor == 1 else _choose_crop(alpha, box, generator)
    return replace(sample, top=top, left=left, size=box, output=None if box == output else output)


def _largest(frame: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest box in a frame that has the shape of ``shape``; all are ``(h, w)`` in pixels."""
    share = min(frame[0] / shape[0], frame[1] / shape[1])
    return max(1, int(shape[0] * share + 1e-6)), max(1, int(shape[1] * share + 1e-6))


def window_with_subject(source: ClipSource, clip_length: int) -> tuple[int, Tensor]:
    """First frame and alpha of the first window that shows something. Raises :class:`DataError` when none does."""
    last = source.num_frames - clip_length
    for start in [*range(0, last, clip_length), last]:
        alpha = source.read(start, start + clip_length).alpha
        if alpha.any():
            return start, alpha
    raise DataError(f"clip {source.name} has an alpha of zero in every frame; remove the clip or mend its alpha")


def _choose_crop(alpha: Tensor, crop: tuple[int, int], generator: torch.Generator) -> tuple[int, int]:
    """Take the first random box with a tenth of foreground, a tenth of background and some edge, else the best one."""
    height, width = alpha.shape[-2:]
    best, best_score = (0, 0), -1.0
    for _ in range(_CANDIDATES):
        top, left = _uniform(height - crop[0], generator), _uniform(width - crop[1], generator)
        box = alpha[..., top : top + crop[0], left : left + crop[1]]
        foreground = float((box > 242).float().mean())
        background = float((box < 13).float().mean())
        edge = 1 - foreground - background
        score = min(foreground, 0.1) + min(background, 0.1) + min(edge, 0.005)
        if score > best_score:
            best, best_score = (top, left), score
        if foreground >= 0.1 and background >= 0.1 and edge >= 0.005:
            return best
    top, left = best
    if alpha.any() and not (alpha[..., top : top + crop[0], left : left + crop[1]] > 13).any():
        return _centred_crop(alpha, crop)
    return best


def _centred_crop(alpha: Tensor, crop: tuple[int, int]) -> tuple[int, int]:
    """Box around the strongest pixel of the clip: for subjects so small that no random box met them."""
    height, width = alpha.shape[-2:]
    row, column = divmod(int(alpha.amax(dim=(0, 1)).flatten().argmax()), width)
    top = min(max(row - crop[0] // 2, 0), height - crop[0])
    left = min(max(column - crop[1] // 2, 0), width - crop[1])
    return top, left
