from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq4vm.data.augmentation.draws import draw_recipe, take_frames
from ptq4vm.data.augmentation.recipes import Augmentation, Recipe
from ptq4vm.errors import ConfigError
from ptq4vm.settings import augmentation, read_choice

SIZE = (48, 64)
NAMES = ("none", "mild", "rvm")


def chosen(name: str) -> Augmentation:
    return augmentation(read_choice("augmentation", name))


def draw(settings: Augmentation, number: int = 0, **options: int) -> Recipe:
    return draw_recipe(settings, options.pop("length", 6), options.pop("available", 30), SIZE, 0, number, **options)


@given(length=st.integers(1, 12), speed=st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 5.0]), start=st.integers(0, 9))
def test_reverse_of_reverse(length: int, speed: float, start: int) -> None:
    forward = take_frames(length, speed, start=start)
    assert take_frames(length, speed, reverse=True, start=start) == forward[::-1]
    assert forward[0] == start and len(forward) == length and list(forward) == sorted(forward)


def test_speeds() -> None:
    assert take_frames(4, 3) == (0, 3, 6, 9)
    assert take_frames(5, 0.5, start=2) == (2, 2, 3, 3, 4)
    assert take_frames(3, 2, reverse=True) == (4, 2, 0)


@settings(max_examples=50, deadline=None)
@given(number=st.integers(0, 10_000), available=st.integers(6, 40))
def test_frames_are_in_the_clip(number: int, available: int) -> None:
    recipe = draw(chosen("rvm"), number, available=available)
    assert min(recipe.times) >= 0 and max(recipe.times) < available and len(recipe.times) == 6
    steps = {b - a for a, b in zip(recipe.times, recipe.times[1:], strict=False)}
    assert len({step > 0 for step in steps if step}) <= 1, "one direction"


def test_a_clip_that_is_too_short_for_every_speed() -> None:
    with pytest.raises(
        ConfigError, match=r"6 frames at speed=2 need a clip of 11, but one has 10.*augmentation\.speed"
    ):
        draw(Augmentation(speed=(5.0, 2.0)), available=10)
    assert draw(Augmentation(speed=(5.0, 2.0)), available=11).times == (0, 2, 4, 6, 8, 10)


def test_draws_depend_on_seed_and_number_alone() -> None:
    settings = chosen("rvm")
    drawn = [draw_recipe(settings, 6, 30, SIZE, seed, number) for seed in (0, 1) for number in range(20)]
    assert drawn == [draw_recipe(settings, 6, 30, SIZE, seed, number) for seed in (0, 1) for number in range(20)]
    assert len({repr(recipe) for recipe in drawn}) == 40
    assert draw(settings, attempt=1) != draw(settings)


def test_one_effect_does_not_change_what_is_drawn_for_another() -> None:
    some = Augmentation(foreground_affine=1, noise=1, reverse=0.5)
    more = Augmentation(foreground_affine=1, noise=1, reverse=0.5, pause=1, color_jitter=1, blur=1, sharpness=1)
    for number in range(10):
        first, second = draw(some, number), draw(more, number)
        assert first.times == second.times and first.grain == second.grain
        assert first.foreground.moves == second.foreground.moves and second.pause is not None


def test_rvm_s_probabilities_are_met() -> None:
    settings, count = chosen("rvm"), 3000
    seen: Counter[str] = Counter()
    for number in range(count):
        recipe = draw(settings, number)
        seen["noise"] += recipe.grain is not None
        seen["grayscale"] += recipe.grey
        seen["sharpness"] += recipe.sharpness is not None
        seen["pause"] += recipe.pause is not None
        seen["reverse"] += recipe.times[0] > recipe.times[-1]
        for name, layer in (("foreground", recipe.foreground), ("background", recipe.background)):
            seen[f"{name} jitter"] += layer.jitter is not None
            seen[f"{name} flip"] += layer.flip
            seen[f"{name} moves"] += len(layer.moves)
            seen[f"{name} blurs"] += len(layer.blurs)
        seen["flips agree"] += recipe.foreground.flip == recipe.background.flip
    expected = {
        "noise": 0.1, "grayscale": 0.02, "sharpness": 0.1, "pause": 0.03, "reverse": 0.5, "flips agree": 0.5,
        "foreground jitter": 0.3, "background jitter": 0.3, "foreground flip": 0.5, "background flip": 0.5,
        "foreground moves": 1.45, "background moves": 1.3, "foreground blurs": 0.04 / 3, "background blurs": 0.04 / 3,
    }  # fmt: skip
    assert {key: seen[key] / count for key in expected} == pytest.approx(expected, abs=0.03)
    assert seen["grayscale"] > 0 and seen["foreground blurs"] > 0


def test_ranges() -> None:
    recipes = [draw(chosen("rvm"), number) for number in range(300)]
    poses = [m.first for r in recipes for m in (*r.foreground.moves, *r.background.moves)]
    placed = [r.foreground.moves[-1 if len(r.foreground.moves) == 1 else 0] for r in recipes]
    assert all(abs(p.centre[0] - 31.5) <= 6.4 and abs(p.centre[1] - 23.5) <= 4.8 for p in poses)
    assert all(abs(p.angle) < 0.175 and 0.5 <= p.scale <= 1.5 and abs(p.shear[0]) < 0.0873 for p in poses)
    assert min(m.first.scale for m in placed) < 0.6
    assert all(r.pause[0] < r.pause[1] < 6 for r in recipes if r.pause is not None)


@pytest.mark.parametrize("name", NAMES)
def test_choices(name: str) -> None:
    assert chosen(name).active == (name != "none")
    assert (chosen(name) == Augmentation()) == (name == "none")


@pytest.mark.parametrize("length", [1, 2])
def test_short_samples(length: int) -> None:
    recipe = draw(Augmentation(pause=1, foreground_affine=1, speed=(1.0, 3.0)), length=length, available=2)
    assert recipe.pause == (None if length == 1 else (0, 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise": 1.5}, "noise=1.5 must be a probability"),
        ({"blur": -0.1}, "blur=-0.1 must be a probability"),
        ({"shift": -1.0}, "shift=-1.0 must be 0 or a positive number"),
        ({"scale": 1.0}, "scale=1.0 must be at least 0 and below 1"),
        ({"shear": 50.0}, "shear=50.0 must be below 45"),
        ({"foreground_scale": (1.0, 0.5)}, "foreground_scale="),
        ({"speed": ()}, "speed="),
        ({"speed": (0.0,)}, "speed="),
        ({"blur_sigma": float("nan")}, "blur_sigma=nan"),
    ],
)
def test_values_out_of_range(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(**wrong)
