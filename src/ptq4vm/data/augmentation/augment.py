"""Augmented calibration samples: each is a short clip of its own, with its own pixels, alpha and flow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.progress import track
from torch import Tensor

from ptq4vm.data.augmentation.draws import draw_recipe
from ptq4vm.data.augmentation.recipes import Augmentation, LayerRecipe, Recipe
from ptq4vm.data.base import LayeredClip
from ptq4vm.data.calibration.sampling import (
    CalibrationSample,
    check_clips,
    cut_sample,
    draw_order,
    sample_generator,
    window_with_subject,
)
from ptq4vm.data.clips.sources import may_be_empty
from ptq4vm.data.compositing import composite_uint8
from ptq4vm.errors import DataError
from ptq4vm.types import Clip, ClipSource

logger = logging.getLogger(__name__)

_ATTEMPTS = 8  # draws for a sample that shows nothing of the subject before it is left where it is
_SEEN = 13  # of 255: an alpha above it counts as subject, as it does for crops


@dataclass(frozen=True)
class AugmentedClip:
    """Some frames of a clip, augmented when they are read: always the same, whoever reads them.

    Foreground and background are augmented apart where the clip has them apart (:class:`LayeredClip`), and composited
    last. Else whole pictures are, with their alpha, by what is drawn for the background.

    Attributes:
        source: The clip whose frames are shown.
        recipe: What is done to it.
    """

    source: ClipSource
    recipe: Recipe

    @property
    def name(self) -> str:
        """The clip's own name, for messages: all samples of one clip share it."""
        return self.source.name

    @property
    def num_frames(self) -> int:
        """How many frames the sample has."""
        return len(self.recipe.times)

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the frames in pixels, which augmentation leaves as the clip has it."""
        return self.source.size

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        """Decode and augment all frames, and give those of ``start:stop``.

        The composite is that of the rounded layers, so it fits the alpha that is given to the last bit.

        Raises:
            DataError: A file is damaged, or the range is not inside the sample.
        """
        from ptq4vm.data.augmentation.effects import Layers, augment  # seconds to import

        window = self._window(start, stop)
        foreground, alpha = self._foreground()
        background = None
        if isinstance(self.source, LayeredClip):
            background = self.source.read_background(self.recipe.background_times).float() / 255
        made = augment(Layers(foreground.float() / 255, alpha.float() / 255, background), self.recipe)
        colours, matte = _eight_bits(made.foreground[window]), _eight_bits(made.alpha[window])
        if made.background is None:
            return Clip(self.name, colours, matte)
        frames = composite_uint8(colours, matte, _eight_bits(made.background[window]))
        return Clip(self.name, frames, matte, colours)

    def alpha(self) -> Tensor:
        """What :meth:`read` gives as alpha, ``(T, 1, H, W)`` uint8, for less work. Raises :class:`DataError`."""
        from ptq4vm.data.augmentation.effects import augment_alpha  # seconds to import

        alpha = self._foreground()[1].float() / 255
        return _eight_bits(augment_alpha(alpha, self.recipe, whole=not isinstance(self.source, LayeredClip)))

    def _foreground(self) -> tuple[Tensor, Tensor]:
        """Colours, or whole pictures, and alpha: uint8."""
        if isinstance(self.source, LayeredClip):
            return self.source.read_foreground(self.recipe.times)
        return _frames(self.source, self.recipe.times)

    def _window(self, start: int, stop: int | None) -> slice:
        count = self.num_frames
        stop = count if stop is None else stop
        if not 0 <= start < stop <= count:
            raise DataError(f"a sample of clip {self.name} has {count} frames; {start}:{stop} were asked for")
        return slice(start, stop)


def draw_augmented(
    clips: Sequence[ClipSource],
    augmentation: Augmentation,
    count: int,
    clip_length: int,
    crop: tuple[int, int] | None,
    hflip: float,
    seed: int,
    zoom: float = 1.0,
    size: tuple[int, int] | None = None,
) -> tuple[list[AugmentedClip], list[CalibrationSample]]:
    """Draw samples as :func:`ptq4vm.data.calibration.sampling.draw_samples` does, and augment each: one clip a sample.

    Crops are chosen by the augmented alpha. A sample that would show nothing of the subject is drawn again; one that
    never shows any is neither moved nor played at another speed.

    Args:
        clips: Calibration clips that samples are taken from.
        augmentation: Probabilities and ranges of all effects.
        count: How many samples to draw; every clip gives equally many, to within one.
        clip_length: Frames of each sample.
        crop: ``(h, w)`` of the samples in pixels, or ``None`` for whole frames.
        hflip: Probability of mirroring a whole sample, after all else.
        seed: The draw is a function of this, of the clips and of ``augmentation``.
        zoom: Largest factor by which half of the samples are enlarged; 1 for none.
        size: ``(h, w)`` that crops are scaled to, pixels.

    Raises:
        DataError: As :func:`~ptq4vm.data.calibration.sampling.draw_samples`.
        ConfigError: As :func:`~ptq4vm.data.calibration.sampling.draw_samples`; or a clip is too short for every speed.
    """
    check_clips(clips, clip_length, crop, zoom, size)
    output = size or crop or clips[0].size
    _tell_what_is_left_out(clips)
    augmented, samples = [], []
    for number, index in track(draw_order(len(clips), count, seed), description="augmented samples", transient=True):
        clip, alpha = _draw_visible(clips[index], augmentation, clip_length, seed, number)
        generator = sample_generator(seed, number)
        flip = bool(torch.rand(1, generator=generator) < hflip)
        samples.append(
            cut_sample(alpha, number, 0, crop=crop, flip=flip, zoom=zoom, generator=generator, output=output)
        )
        augmented.append(clip)
    return augmented, samples


def _frames(source: ClipSource, times: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Whole pictures and alpha at ``times``, each decoded once, and those between them only where they are few."""
    wanted = sorted(set(times))
    between = range(wanted[0], wanted[-1] + 1)
    if len(between) <= 2 * len(wanted):
        parts, shown = [source.read(wanted[0], wanted[-1] + 1)], list(between)
    else:
        parts, shown = [source.read(time, time + 1) for time in wanted], wanted
    order = [shown.index(time) for time in times]
    return torch.cat([part.frames for part in parts])[order], torch.cat([part.alpha for part in parts])[order]


def _draw_visible(
    source: ClipSource, augmentation: Augmentation, length: int, seed: int, number: int
) -> tuple[AugmentedClip, Tensor]:
    for attempt in range(_ATTEMPTS):
        recipe = draw_recipe(augmentation, length, source.num_frames, source.size, seed, number, attempt)
        clip = AugmentedClip(source, recipe)
        alpha = clip.alpha()
        if (alpha > _SEEN).any() or may_be_empty(source):
            return clip, alpha
    start, _ = window_with_subject(source, length)
    times = tuple(range(start, start + length))
    clip = AugmentedClip(
        source,
        replace(
            recipe,
            times=times,
            background_times=times,
            foreground=_unmoved(recipe.foreground),
            background=_unmoved(recipe.background),
            pause=None,
        ),
    )
    return clip, clip.alpha()


def _unmoved(layer: LayerRecipe) -> LayerRecipe:
    return replace(layer, moves=(), flip=False, blurs=())


def _tell_what_is_left_out(clips: Sequence[ClipSource]) -> None:
    whole = [clip.name for clip in clips if not isinstance(clip, LayeredClip)]
    if whole:
        logger.warning(
            "%d of %d calibration clips (%s) have no background of their own: whole pictures are augmented, "
            "with what is drawn for backgrounds",
            len(whole), len(clips), whole[0] if len(whole) == 1 else f"{whole[0]}, ...",
        )  # fmt: skip


def _eight_bits(images: Tensor) -> Tensor:
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)
