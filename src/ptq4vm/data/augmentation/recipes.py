"""How samples are augmented, and what is done to one of them: values, nothing that acts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ptq4vm.data.augmentation.easing import ease
from ptq4vm.data.augmentation.motion import EasedMotion
from ptq4vm.errors import ConfigError

_PROBABILITIES = (
    "foreground_affine", "background_affine", "placement", "noise", "color_jitter", "grayscale", "sharpness", "blur",
    "hflip", "pause", "reverse",
)  # fmt: skip
_AT_LEAST_0 = ("shift", "degrees", "scale", "shear", "jitter_strength", "noise_strength", "sharpness_max", "blur_sigma")


@dataclass(frozen=True)
class Augmentation:
    """How calibration samples are augmented; with the default values they are not.

    Attributes:
        foreground_affine: Probability that foreground and alpha move by an affine motion of their own.
        background_affine: Half of it is the probability that the background moves by one of its own, half that
            foreground and background move by a common one, as a camera makes them.
        placement: Probability of a fixed affine map besides: foregrounds within ``foreground_scale``, backgrounds
            within ``background_scale``.
        noise: Probability of noise, in colour or grey, of a grain of 1 to 4 pixels.
        color_jitter: Probability of other brightness, contrast, saturation and hue, for foreground and background
            apart.
        grayscale: Probability that all colours are taken out.
        sharpness: Probability of sharpening or softening.
        blur: Probability of a blur: a third each for the foreground with its alpha, the background, and both.
        hflip: Probability of mirroring, for foreground and background apart.
        pause: Probability that one frame is repeated for some time.
        reverse: Probability of playing backwards, for foreground and background apart.
        speed: Frames of the clip that one frame goes on by, of which one is drawn, for foreground and background
            apart: 3 takes every third frame, 0.5 each twice. What a clip is too short for is left out.
        shift: Largest displacement of a motion, as a part of the frame's size.
        degrees: Largest rotation of a motion, degrees.
        scale: Largest change of size in a motion: 0.1 is from 0.9 to 1.1.
        shear: Largest shear of a motion, degrees.
        foreground_scale: Smallest and largest size of placed foregrounds, relative to their own.
        background_scale: Smallest and largest size of placed backgrounds, relative to their own.
        aspect: Aspect ratio of what is placed: 0.1 is from 0.9 to 1.1.
        jitter_strength: Standard deviation of the factors on brightness, contrast and saturation; that of the hue is a
            tenth of it, in turns.
        noise_strength: Largest standard deviation of the noise, of the range of colours.
        sharpness_max: Largest sharpness; 1 leaves a picture as it is, 0 softens it.
        blur_sigma: Largest standard deviation of the blur, pixels in frames of 512.

    Raises:
        ConfigError: A value is out of range.
    """

    foreground_affine: float = 0.0
    background_affine: float = 0.0
    placement: float = 0.0
    noise: float = 0.0
    color_jitter: float = 0.0
    grayscale: float = 0.0
    sharpness: float = 0.0
    blur: float = 0.0
    hflip: float = 0.0
    pause: float = 0.0
    reverse: float = 0.0
    speed: tuple[float, ...] = (1.0,)
    shift: float = 0.1
    degrees: float = 10.0
    scale: float = 0.1
    shear: float = 5.0
    foreground_scale: tuple[float, float] = (0.5, 1.0)
    background_scale: tuple[float, float] = (1.0, 1.5)
    aspect: float = 0.1
    jitter_strength: float = 0.1
    noise_strength: float = 0.2
    sharpness_max: float = 8.0
    blur_sigma: float = 10.0

    def __post_init__(self) -> None:
        for key in _PROBABILITIES:
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key}={getattr(self, key)} must be a probability from 0 to 1")
        for key in _AT_LEAST_0:
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(f"{key}={getattr(self, key)} must be 0 or a positive number")
        for key in ("scale", "aspect"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"{key}={getattr(self, key)} must be at least 0 and below 1")
        if self.shear >= 45:
            raise ConfigError(f"shear={self.shear} must be below 45 degrees")
        for key in ("foreground_scale", "background_scale"):
            low, high = getattr(self, key)
            if not 0 < low <= high < math.inf:
                raise ConfigError(f"{key}={[low, high]} must be two positive numbers, the smaller first")
        if not self.speed or not all(0 < speed < math.inf for speed in self.speed):
            raise ConfigError(f"speed={list(self.speed)} must be one or more positive numbers")

    @property
    def active(self) -> bool:
        """Whether anything is done at all."""
        return any(getattr(self, key) > 0 for key in _PROBABILITIES) or self.speed != (1.0,)


@dataclass(frozen=True)
class Course:
    """A number that goes from one value to another.

    Attributes:
        first: In the first frame.
        last: In the last one.
        easing: See :func:`ptq4vm.data.augmentation.easing.ease`.
        reach: How much of the way is gone.
    """

    first: float
    last: float
    easing: str = "linear"
    reach: float = 1.0

    def at(self, time: float) -> float:
        """The number at ``time``, which goes from 0 to 1."""
        return self.first + (self.last - self.first) * self.reach * ease(self.easing, time)


@dataclass(frozen=True)
class Jitter:
    """Factors on brightness, contrast and saturation less 1, and a turn of the hue (1 is once around)."""

    brightness: Course
    contrast: Course
    saturation: Course
    hue: Course


@dataclass(frozen=True)
class LayerRecipe:
    """What is done to the foreground with its alpha, or to the background.

    Attributes:
        moves: Motions, from the frame inwards: the last one is the first that the picture goes through.
        flip: Whether it is mirrored, before any motion.
        jitter: Change of the colours; ``None`` leaves them.
        noise: Standard deviation of the noise as a share of the range of colours; 0 for none.
        blurs: Gaussian blurs, each by its standard deviation in pixels over time.
    """

    moves: tuple[EasedMotion, ...] = ()
    flip: bool = False
    jitter: Jitter | None = None
    noise: float = 0.0
    blurs: tuple[Course, ...] = ()


@dataclass(frozen=True)
class Grain:
    """What the noise of one sample is like, the same for all its layers.

    Attributes:
        size: Width and height of a grain, pixels.
        grey: Whether it has no colour.
        seed: Seed from which the values of the noise are drawn.
    """

    size: float
    grey: bool
    seed: int


@dataclass(frozen=True)
class Recipe:
    """All that is done to one sample.

    Attributes:
        times: Frames of the clip that are shown, in this order.
        background_times: The same for the background; it may go beyond the clip's end.
        foreground: What is done to the foreground and its alpha.
        background: What is done to the background, and to whole pictures where there is none.
        grain: What the noise is like; ``None`` where there is none.
        grey: Whether all colours are taken out.
        sharpness: Factor of sharpening: 0 softens a picture, 1 and ``None`` leave it as it is.
        pause: Indices ``(first, last)`` of the sample: frame ``first`` is shown until ``last``.
    """

    times: tuple[int, ...]
    background_times: tuple[int, ...]
    foreground: LayerRecipe = field(default_factory=LayerRecipe)
    background: LayerRecipe = field(default_factory=LayerRecipe)
    grain: Grain | None = None
    grey: bool = False
    sharpness: float | None = None
    pause: tuple[int, int] | None = None
