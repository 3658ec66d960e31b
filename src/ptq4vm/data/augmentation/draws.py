"""Draws what is done to each augmented sample from settings, a seed and the sample's number, and nothing else."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import fields

from ptq4vm.data.augmentation.easing import EASINGS
from ptq4vm.data.augmentation.motion import EasedMotion, Pose
from ptq4vm.data.augmentation.recipes import Augmentation, Course, Grain, Jitter, LayerRecipe, Recipe
from ptq4vm.errors import ConfigError

_DRIFT = 0.2  # how far colours may go from their first jitter to another within a clip
_SIGMA_SIZE = 512  # height or width of the frames for which blur_sigma is meant, pixels


def take_frames(length: int, speed: float = 1.0, reverse: bool = False, start: int = 0) -> tuple[int, ...]:
    """Which frames of a clip a sample shows.

    Args:
        length: Frames of the sample.
        speed: Frames of the clip that each goes on by; below 1 some come more than once.
        reverse: Whether they are shown from the last to the first.
        start: Index of the earliest frame that is taken.
    """
    taken = tuple(start + math.floor(index * speed) for index in range(length))
    return taken[::-1] if reverse else taken


def draw_recipe(
    settings: Augmentation, length: int, available: int, size: tuple[int, int], seed: int, number: int, attempt: int = 0
) -> Recipe:
    """Draw what is done to sample ``number``; no effect's settings change what is drawn for another.

    Args:
        settings: Probabilities and ranges.
        length: Frames of the sample.
        available: Frames of its clip.
        size: ``(H, W)`` of its frames, pixels.
        seed: Seed of the whole draw, shared by all samples.
        number: Number of the sample in the draw, from 0.
        attempt: Counts the draws for this sample, from 0: each gives another recipe.

    Raises:
        ConfigError: The clip is too short for every speed.
    """
    draws = _Draws(settings, size, (seed, number, attempt))
    times, background_times = draws.times(length, available)
    foreground, background = draws.layers()
    dice = draws.dice("pause")
    pause = None
    if length > 1 and draws.happens("pause"):
        first = dice.randrange(length - 1)
        pause = (first, dice.randint(first + 1, length - 1))
    sharpness = draws.dice("sharpness").uniform(0, settings.sharpness_max) if draws.happens("sharpness") else None
    grey = draws.happens("grayscale")
    return Recipe(times, background_times, foreground, background, draws.grain(), grey, sharpness, pause)


class _Draws:
    """Draws for one sample, each effect with dice of its own."""

    def __init__(self, settings: Augmentation, size: tuple[int, int], key: Sequence[int]) -> None:
        self.settings = settings
        self.size = size
        self.key = key

    def dice(self, name: str) -> random.Random:
        """Dice for what is called ``name``: the same at each call."""
        digest = hashlib.sha256(repr((*self.key, name)).encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "little"))

    def happens(self, key: str, name: str = "", part: float = 1.0) -> bool:
        """Whether an effect happens, at ``part`` of the probability in ``settings``."""
        return self.dice(f"{key} {name} happens").random() < getattr(self.settings, key) * part

    def grain(self) -> Grain | None:
        """Noise of all layers, if any."""
        dice = self.dice("grain")
        return Grain(dice.uniform(1, 4), dice.random() < 0.5, dice.getrandbits(32)) if self.happens("noise") else None

    def times(self, length: int, available: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Frames of the foreground, and of the background."""
        fitting = [s for s in self.settings.speed if take_frames(length, s)[-1] < available]
        if not fitting:
            slowest = min(self.settings.speed)
            raise ConfigError(
                f"{length} frames at speed={slowest:g} need a clip of {take_frames(length, slowest)[-1] + 1}, "
                f"but one has {available}: add a lower augmentation.speed"
            )
        dice = self.dice("times")
        forward = take_frames(length, dice.choice(fitting))
        start = dice.randint(0, available - 1 - forward[-1])
        foreground = tuple(start + time for time in forward)
        background = take_frames(length, dice.choice(self.settings.speed), start=start)
        return (
            foreground[::-1] if self.happens("reverse", "foreground") else foreground,
            background[::-1] if self.happens("reverse", "background") else background,
        )

    def layers(self) -> tuple[LayerRecipe, LayerRecipe]:
        """Foreground and background."""
        common = (self._motion("common"),) if self.happens("background_affine", "common", 0.5) else ()
        blur = (self._blur("common"),) if self.happens("blur", "common", 1 / 3) else ()
        parts = (
            ("foreground", self.settings.foreground_scale, self.happens("foreground_affine")),
            ("background", self.settings.background_scale, self.happens("background_affine", "own", 0.5)),
        )
        foreground, background = (
            LayerRecipe(
                moves=common
                + ((self._placed(name, scales),) if self.happens("placement") else ())
                + ((self._motion(name),) if moves else ()),
                flip=self.happens("hflip", name),
                jitter=self._jitter(name) if self.happens("color_jitter", name) else None,
                noise=self._noise(name),
                blurs=((self._blur(name),) if self.happens("blur", name, 1 / 3) else ()) + blur,
            )
            for name, scales, moves in parts
        )
        return foreground, background

    def _pose(self, dice: random.Random, scales: tuple[float, float], aspect: float = 0.0) -> Pose:
        settings, (height, width) = self.settings, self.size
        x, y = (settings.shift * dice.uniform(-1, 1) for _ in range(2))
        return Pose(
            centre=((width - 1) / 2 + x * width, (height - 1) / 2 + y * height),
            angle=math.radians(dice.uniform(-settings.degrees, settings.degrees)),
            scale=dice.uniform(*scales),
            shear=(
                math.radians(dice.uniform(-settings.shear, settings.shear)),
                math.radians(dice.uniform(-settings.shear, settings.shear)),
            ),
            stretch=math.exp(dice.uniform(math.log(1 - aspect), math.log(1 + aspect))),
        )

    def _motion(self, name: str) -> EasedMotion:
        dice, scales = self.dice(f"motion {name}"), (1 - self.settings.scale, 1 + self.settings.scale)
        return EasedMotion(self._pose(dice, scales), self._pose(dice, scales), _easing(dice))

    def _placed(self, name: str, scales: tuple[float, float]) -> EasedMotion:
        pose = self._pose(self.dice(f"placement {name}"), scales, self.settings.aspect)
        return EasedMotion(pose, pose)

    def _jitter(self, name: str) -> Jitter:
        dice, spread = self.dice(f"jitter {name}"), self.settings.jitter_strength
        reach, easing = dice.uniform(0, _DRIFT), _easing(dice)
        courses = {
            key.name: Course(dice.gauss(0, spread), dice.gauss(0, spread), easing, reach) for key in fields(Jitter)
        }
        hue = courses["hue"]
        return Jitter(**{**courses, "hue": Course(hue.first / 10, hue.last / 10, easing, reach)})

    def _noise(self, name: str) -> float:
        grain, strength = self.grain(), self.dice(f"noise {name}").uniform(0, self.settings.noise_strength)
        return 0.0 if grain is None else strength / grain.size  # coarse noise is seen more easily

    def _blur(self, name: str) -> Course:
        dice, largest = self.dice(f"blur {name}"), self.settings.blur_sigma * min(self.size) / _SIGMA_SIZE
        return Course(dice.uniform(0, largest), dice.uniform(0, largest), _easing(dice))


def _easing(dice: random.Random) -> str:
    """A fifth of all motions are steady."""
    return "linear" if dice.random() < 0.2 else dice.choice(EASINGS[1:])
