from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layered import Apart
from ptq4vm.data.augmentation.draws import draw_recipe
from ptq4vm.data.augmentation.effects import Layers, augment, augment_alpha
from ptq4vm.data.augmentation.motion import EasedMotion, Pose
from ptq4vm.data.augmentation.recipes import Augmentation, Course, Grain, Jitter, LayerRecipe, Recipe

SIZE = (48, 64)
T = 5
CENTRE = (31.5, 23.5)
ALL = Augmentation(
    foreground_affine=0.6, background_affine=0.8, placement=0.6, noise=0.5, color_jitter=0.6, grayscale=0.3,
    sharpness=0.5, blur=0.8, hflip=0.5, pause=0.5, reverse=0.5, speed=(0.5, 1.0, 3.0), blur_sigma=30.0,
)  # fmt: skip
SHAPES = replace(ALL, noise=0.0, color_jitter=0.0, grayscale=0.0, sharpness=0.0)
numbers = st.integers(0, 10_000)
several = settings(max_examples=25, deadline=None)


def drawn(settings: Augmentation, number: int) -> Recipe:
    return draw_recipe(settings, T, 20, SIZE, 3, number)


def layers(times: range | tuple[int, ...] = range(T), background: bool = True) -> Layers:
    clip = Apart(size=SIZE)
    foreground, alpha = (part.float() / 255 for part in clip.read_foreground(times))
    return Layers(foreground, alpha, clip.read_background(times).float() / 255 if background else None)


def recipe(foreground: LayerRecipe | None = None, background: LayerRecipe | None = None, **more: object) -> Recipe:
    still = tuple(range(T))
    return Recipe(still, still, foreground or LayerRecipe(), background or LayerRecipe(), **more)


def shifted(x: float, y: float, easing: str = "linear", start: float = 0.0) -> EasedMotion:
    first, last = (Pose((CENTRE[0] + x * part, CENTRE[1] + y * part)) for part in (start, 1.0))
    return EasedMotion(first, last, easing)


@several
@given(number=numbers, whole=st.booleans())
def test_values_stay_in_range(number: int, whole: bool) -> None:
    made = augment(layers(background=not whole), drawn(ALL, number))
    for part in (*made, made.composite()):
        assert part is None or (part.isfinite().all() and part.min() >= 0 and part.max() <= 1)
    assert made.alpha.shape == (T, 1, *SIZE) and made.foreground.shape == (T, 3, *SIZE)
    assert (made.background is None) == whole


@several
@given(number=numbers)
def test_the_composite_is_that_of_the_layers(number: int) -> None:
    made = augment(layers(), drawn(ALL, number))
    assert made.background is not None
    expected = made.alpha * made.foreground + (1 - made.alpha) * made.background
    assert (made.composite() - expected).abs().max() < 1e-6


@several
@given(number=numbers, whole=st.booleans())
def test_foreground_and_alpha_get_the_same_geometry(number: int, whole: bool) -> None:
    made = augment(layers(background=not whole), drawn(SHAPES, number))
    assert (made.foreground[:, :1] - made.alpha).abs().max() < 1e-5, "the red channel is the alpha"


@several
@given(number=numbers)
def test_colours_leave_alpha_alone(number: int) -> None:
    recipe = drawn(ALL, number)
    plain = replace(
        recipe,
        foreground=replace(recipe.foreground, jitter=None, noise=0.0),
        grain=None, grey=False, sharpness=None,
    )  # fmt: skip
    before = layers()
    assert torch.equal(augment(before, recipe).alpha, augment(before, plain).alpha)
    assert torch.equal(augment(before, recipe).alpha, augment_alpha(before.alpha, recipe, whole=False))


@several
@given(number=numbers)
def test_what_is_given_is_left_as_it_was(number: int) -> None:
    before, same = layers(), layers()
    augment(before, drawn(ALL, number))
    assert all(torch.equal(a, b) for a, b in zip(before, same, strict=True) if a is not None and b is not None)


def test_nothing_drawn_is_nothing_done() -> None:
    before = layers()
    assert all(torch.equal(a, b) for a, b in zip(augment(before, drawn(Augmentation(), 7)), before, strict=True))


def test_a_shift_moves_the_picture_by_whole_pixels() -> None:
    before = layers((0,) * T)
    made = augment(before, recipe(LayerRecipe(moves=(shifted(8, 4),))))
    assert made.background is not None and before.background is not None
    assert torch.equal(made.background, before.background), "the background has motions of its own"
    for time in range(T):
        x, y = 2 * time, time
        assert torch.allclose(made.alpha[time, :, y:, x:], before.alpha[time, :, : 48 - y, : 64 - x], atol=1e-5)
        assert not made.alpha[time, :, :y].any() and not made.alpha[time, :, :, :x].any(), "nobody is out there"


def test_a_common_motion_moves_layers_alike_whatever_their_own() -> None:
    before = layers((0,) * T)
    own = EasedMotion(Pose(CENTRE, 0.1, 0.8), Pose(CENTRE, 0.1, 0.8))
    still, moved = (augment(before, recipe(LayerRecipe((*m, own)), LayerRecipe(m))) for m in ((), (shifted(8, 0),)))
    for part in ("alpha", "background"):
        a, b = getattr(still, part)[-1], getattr(moved, part)[-1]
        assert torch.allclose(a[..., :-8], b[..., 8:], atol=1e-4), part


def test_poses() -> None:
    before = layers((18,) * T).alpha

    def posed(**pose: object) -> torch.Tensor:
        move = EasedMotion(Pose(CENTRE, **pose), Pose(CENTRE, **pose))
        return augment_alpha(before, recipe(LayerRecipe((move,))), whole=False)

    assert posed(scale=0.5).sum() == pytest.approx(float(before.sum()) / 4, rel=0.02)
    assert torch.allclose(posed(angle=torch.pi), before.flip((-2, -1)), atol=1e-4)
    quarter = posed(angle=torch.pi / 2)[..., 8:56]  # the square in the middle
    assert any(torch.allclose(before[..., 8:56].rot90(k, (-2, -1)), quarter, atol=1e-4) for k in (1, 3))
    wide = posed(stretch=1.21)
    columns, rows = ((wide.sum(d) > 0.5).sum() / (before.sum(d) > 0.5).sum() for d in (-2, -1))
    assert columns == pytest.approx(1.1, abs=0.04) and rows == pytest.approx(1 / 1.1, abs=0.04)
    assert posed(shear=(0.3, 0.0)).sum() == pytest.approx(float(before.sum()), rel=0.02)
    assert not torch.allclose(posed(shear=(0.3, 0.0)), before, atol=0.1)


def test_easing_sets_the_course() -> None:
    before = layers((0,) * T)
    made = augment(before, recipe(LayerRecipe((shifted(8, 0, "step"),)))).alpha
    assert torch.allclose(made[1], before.alpha[1], atol=1e-5)
    assert torch.allclose(made[2, ..., 8:], before.alpha[2, ..., :-8], atol=1e-5)


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("last", [3, 4])
def test_paused_frames_are_equal(first: int, last: int) -> None:
    noisy = {"grain": Grain(1.5, False, 9), "pause": (first, last)}
    layer = LayerRecipe(moves=(shifted(6, 3),), noise=0.1)
    made = augment(layers(), recipe(layer, layer, **noisy))
    free = augment(layers(), recipe(layer, layer, grain=noisy["grain"]))
    for part, before in zip((*made, made.composite()), (*free, free.composite()), strict=True):
        assert part is not None and before is not None
        assert (part[first : last + 1] == part[first]).all(), "the noise pauses too"
        assert torch.equal(part[: first + 1], before[: first + 1]) and torch.equal(part[last + 1 :], before[last + 1 :])
    assert (free.foreground[first] != free.foreground[first + 1]).any()


@pytest.mark.parametrize("grey", [True, False])
def test_noise_has_its_strength_and_is_another_in_each_frame_and_layer(grey: bool) -> None:
    before = Layers(torch.full((T, 3, *SIZE), 0.5), torch.ones(T, 1, *SIZE), torch.full((T, 3, *SIZE), 0.5))
    layer = LayerRecipe(noise=0.05)
    made = augment(before, recipe(layer, layer, grain=Grain(1.0, grey, 4)))
    assert made.background is not None
    assert made.foreground.std() == pytest.approx(0.05, rel=0.05)
    assert (made.foreground[:, 0] == made.foreground[:, 1]).all() == grey
    assert (made.foreground[0] != made.foreground[1]).any() and (made.foreground != made.background).any()
    again = augment(before, recipe(layer, layer, grain=Grain(1.0, grey, 4)))
    assert torch.equal(made.foreground, again.foreground)


def test_jitter_follows_its_course_and_spares_the_other_layer() -> None:
    nothing = Course(0, 0)
    layer = LayerRecipe(jitter=Jitter(Course(-0.2, 0.0), nothing, nothing, nothing))
    before = layers()
    made = augment(before, recipe(layer))
    assert made.background is not None and before.background is not None
    assert torch.equal(made.background, before.background)
    assert torch.allclose(made.foreground[0], 0.8 * before.foreground[0], atol=1e-4)
    assert torch.allclose(made.foreground[-1], before.foreground[-1], atol=1e-4)


def test_a_third_of_a_turn_of_the_hue_makes_red_green() -> None:
    nothing, turn = Course(0, 0), Course(1 / 3, 1 / 3)
    red = torch.zeros(T, 3, *SIZE)
    red[:, 0] = 0.8
    made = augment(
        Layers(red, torch.ones(T, 1, *SIZE), None),
        recipe(None, LayerRecipe(jitter=Jitter(nothing, nothing, nothing, turn))),
    )
    assert torch.allclose(made.foreground, red[:, [1, 0, 2]], atol=1e-4)


def test_grey_and_sharp() -> None:
    made = augment(layers(), recipe(grey=True))
    assert made.background is not None
    assert all((part[:, 0] == part[:, 1]).all() and (part[:, 0] == part[:, 2]).all() for part in made[::2])
    rough = [augment(layers(), recipe(sharpness=value)).background for value in (0.0, 1.0, 4.0)]
    spread = [part.diff(dim=-1).abs().mean() for part in rough if part is not None]
    assert spread[0] < spread[1] < spread[2]
    assert torch.equal(augment(layers(), recipe(sharpness=4.0)).alpha, layers().alpha)


def test_blur_softens_foreground_and_alpha_and_keeps_their_sum() -> None:
    before = layers((0,) * T)
    made = augment(before, recipe(LayerRecipe(blurs=(Course(0, 4),))))
    assert made.background is not None and before.background is not None
    assert torch.equal(made.background, before.background)
    assert torch.allclose(made.alpha[0], before.alpha[0], atol=1e-4)
    edges = made.alpha.diff(dim=-1).abs().amax((1, 2, 3))
    assert (edges.diff() < 0).all()
    assert torch.allclose(made.alpha.sum((1, 2, 3)), before.alpha.sum((1, 2, 3)), rtol=0.02)


def test_flips() -> None:
    before = layers()
    made = augment(before, recipe(LayerRecipe(flip=True)))
    assert torch.equal(made.alpha, before.alpha.flip(-1)) and torch.equal(made.foreground, before.foreground.flip(-1))
    assert made.background is not None and before.background is not None
    assert torch.equal(made.background, before.background)


def test_whole_pictures_get_what_is_for_the_background_and_so_does_their_alpha() -> None:
    before = layers((0,) * T, background=False)
    made = augment(before, recipe(LayerRecipe(flip=True, moves=(shifted(0, 9),)), LayerRecipe(moves=(shifted(8, 0),))))
    assert torch.allclose(made.alpha[-1, ..., 8:], before.alpha[-1, ..., :-8], atol=1e-5)
    assert torch.allclose(made.foreground[-1, ..., 8:], before.foreground[-1, ..., :-8], atol=1e-5)
    mirrored = before.foreground[-1, ..., 1:9].flip(-1)
    assert torch.allclose(made.foreground[-1, ..., :8], mirrored, atol=1e-4), "beyond the edge is a reflection"
