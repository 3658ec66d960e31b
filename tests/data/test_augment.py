from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from layered import Apart, Whole
from ptq4vm.data.augmentation.augment import AugmentedClip, draw_augmented
from ptq4vm.data.augmentation.draws import draw_recipe
from ptq4vm.data.augmentation.motion import EasedMotion, Pose
from ptq4vm.data.augmentation.recipes import Augmentation, LayerRecipe, Recipe
from ptq4vm.data.base import ClipSets, LayeredClip
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.compositing import composite_uint8
from ptq4vm.data.datasets.stills import StillsDataset
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.flow.dis import DISFlow
from ptq4vm.types import Clip

STRONG = Augmentation(
    foreground_affine=0.5, background_affine=0.8, placement=0.7, noise=0.3, color_jitter=0.6, grayscale=0.1,
    sharpness=0.3, blur=0.4, hflip=0.5, pause=0.3, reverse=0.5, speed=(0.5, 1.0, 2.0, 3.0),
)  # fmt: skip
CENTRE = (31.5, 23.5)


class Fixed:
    def __init__(self, *calibration: object) -> None:
        self.calibration = calibration

    def clips(self) -> ClipSets:
        return ClipSets(self.calibration, ())  # type: ignore[arg-type]


def module(augmentation: Augmentation | None = STRONG, clips: tuple = (), **options: object) -> MattingDataModule:
    options = {"clip_length": 4, "crop": (32, 32), "clips": 6, "batch_size": 2, **options}
    return MattingDataModule(Fixed(*(clips or (Apart("a"), Apart("b")))), **options, augmentation=augmentation)


def still_recipe(times: tuple[int, ...], **more: object) -> Recipe:
    return Recipe(times, times, **more)


@settings(max_examples=15, deadline=None)
@given(number=st.integers(0, 10_000), whole=st.booleans())
def test_an_augmented_clip_is_a_clip(number: int, whole: bool) -> None:
    source = Whole() if whole else Apart()
    clip = AugmentedClip(source, draw_recipe(STRONG, 4, 24, source.size, 0, number))
    read = clip.read()
    assert read.frames.shape == (4, 3, 48, 64) and read.alpha.shape == (4, 1, 48, 64)
    assert read.frames.dtype == read.alpha.dtype == torch.uint8
    assert torch.equal(clip.alpha(), read.alpha)
    part = clip.read(1, 3)
    assert torch.equal(part.frames, read.frames[1:3]) and torch.equal(part.alpha, read.alpha[1:3])
    assert (read.foreground is None) == whole


def test_the_composite_fits_the_rounded_layers() -> None:
    source = Apart()
    times = (3, 4, 5, 6)
    move = LayerRecipe(moves=(EasedMotion(Pose(CENTRE, 0.1), Pose(CENTRE, -0.2, 0.8)),))
    read = AugmentedClip(source, still_recipe(times, foreground=move)).read()
    assert read.foreground is not None
    assert torch.equal(read.frames, composite_uint8(read.foreground, read.alpha, source.read_background(times)))
    assert not torch.equal(read.alpha, source.read(3, 7).alpha)


@pytest.mark.parametrize("source", [Apart(), Whole()])
@pytest.mark.parametrize("times", [(2, 3, 4), (4, 3, 2), (5, 5, 6, 6), (1, 11, 21)])
def test_times(source: Apart | Whole, times: tuple[int, ...]) -> None:
    read, plain = AugmentedClip(source, still_recipe(times)).read(), source.read()
    assert torch.equal(read.frames, plain.frames[list(times)]) and torch.equal(read.alpha, plain.alpha[list(times)])
    assert read.frames[0, 2, 0, 0] == times[0], "the number of the frame"


def test_foreground_and_background_have_times_of_their_own() -> None:
    read = AugmentedClip(Apart(), Recipe((0, 1), (9, 30))).read()
    assert torch.equal(read.alpha, Apart().read(0, 2).alpha) and read.frames[:, 2, 0, 0].tolist() == [9, 30]


def test_a_window_outside_the_sample() -> None:
    with pytest.raises(DataError, match="sample of clip apart has 2 frames; 1:3"):
        AugmentedClip(Apart(), still_recipe((0, 1))).read(1, 3)


def equal(first: MattingDataModule, second: MattingDataModule) -> bool:
    """Whether all epochs' batches are the same."""
    batches = [[b for _ in range(2) for b in m.train_dataloader()] for m in (first, second)]
    return all(
        torch.equal(a, b)
        for one, two in zip(*batches, strict=True)
        for a, b in zip(one, two, strict=True)
        if a is not None
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_same_seed_same_clip_with_any_workers(workers: int) -> None:
    torch.manual_seed(workers)
    helped = module(num_workers=workers, memory_mib=0)
    assert equal(module(), helped)
    assert helped.content_hash() == module().content_hash()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000))
def test_samples_are_a_function_of_the_seed(seed: int) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (module(seed=s, clips=(Apart(),)) for s in (seed, seed, seed + 1))
    assert torch.equal(first.calibration_batch().frames, again.calibration_batch().frames)
    assert not torch.equal(first.calibration_batch().frames, other.calibration_batch().frames)
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator is left alone"


def test_the_first_samples_of_a_larger_draw_are_those_of_a_smaller_one() -> None:
    few, many = module(clips=(Apart(),)), module(clips=(Apart(),))
    few.clips, many.clips = 3, 5
    assert torch.equal(few.calibration_batch().frames, many.calibration_batch([0, 1, 2]).frames)


def test_the_hash_names_the_augmentation() -> None:
    hashes = {
        module(a).content_hash(flow=False) for a in (None, STRONG, replace(STRONG, noise=0.0), Augmentation(hflip=1))
    }
    assert len(hashes) == 4
    unused = replace(STRONG, noise=0.0, noise_strength=0.1), replace(STRONG, noise=0.0, noise_strength=0.2)
    assert module(unused[0]).content_hash() != module(unused[1]).content_hash()


def test_none_is_what_it_was_before_there_was_any() -> None:
    drawn = [
        (0, 16, 17, 28, (21, 21), False), (1, 21, 16, 19, (32, 32), False), (1, 2, 7, 23, (32, 32), False),
        (0, 8, 7, 7, (29, 29), False), (0, 6, 5, 21, (32, 32), False), (1, 8, 14, 27, (32, 32), False),
    ]  # fmt: skip
    for nothing in (None, Augmentation()):
        made = module(nothing, clip_length=3, zoom=2.0, seed=1)
        assert made.augmentation is None
        assert [(s.clip, s.start, s.top, s.left, s.size, s.flip) for s in made.samples] == drawn
        for index in (1, 2, 4):
            clip, start, top, left, _, _ = drawn[index]
            frames = made.clip_sets.calibration[clip].read(start, start + 3).frames
            assert torch.equal(made.calibration.pixels(index)[0], frames[..., top : top + 32, left : left + 32])
    assert made.content_hash() == module(None, clip_length=3, zoom=2.0, seed=1).content_hash()


class Corner(Apart):
    """Somebody small, at the frame's edge."""

    def read_foreground(self, times: object) -> tuple[Tensor, Tensor]:
        colours, alpha = super().read_foreground(times)  # type: ignore[arg-type]
        alpha = torch.zeros_like(alpha)
        alpha[..., -3:, -3:] = 255
        return colours, alpha


class Late(Apart):
    """Nobody is there before the last frames."""

    def read_foreground(self, times: object) -> tuple[Tensor, Tensor]:
        colours, alpha = super().read_foreground(times)  # type: ignore[arg-type]
        return colours, alpha * torch.tensor([t >= 22 for t in times])[:, None, None, None]  # type: ignore[union-attr]


class Never(Apart):
    def read_foreground(self, times: object) -> tuple[Tensor, Tensor]:
        colours, alpha = super().read_foreground(times)  # type: ignore[arg-type]
        return colours, torch.zeros_like(alpha)


@pytest.mark.parametrize("source", [Corner(), Late()])
def test_samples_show_the_subject(source: Apart) -> None:
    out = replace(STRONG, placement=1.0, foreground_affine=1.0, shift=0.3, foreground_scale=(1.0, 1.5))
    clips, samples = draw_augmented([source], out, 12, 4, (16, 16), 0.5, 0)
    for clip, sample in zip(clips, samples, strict=True):
        assert (clip.read().alpha > 13).any()
        box = clip.alpha()[..., sample.top : sample.top + 16, sample.left : sample.left + 16]
        assert (box > 13).any()


def test_nobody_in_a_clip() -> None:
    with pytest.raises(DataError, match="clip nobody has an alpha of zero in every frame"):
        _ = module(clips=(Never("nobody"),)).samples


def test_composites_are_augmented_whole_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _ = module(clips=(Apart("a"), Whole("b"), Whole("c"))).samples
    (line,) = caplog.messages
    assert "2 of 3 calibration clips (b, ...) have no background of their own" in line
    caplog.clear()
    _ = module().samples
    _ = module(None, clips=(Whole(),)).samples
    assert not caplog.messages


def test_clips_too_short_for_the_speed() -> None:
    with pytest.raises(ConfigError, match=r"augmentation\.speed"):
        _ = module(Augmentation(speed=(9.0,))).samples
    with pytest.raises(DataError, match="has 3 frames but calibration needs 4"):
        _ = module(clips=(Apart(count=3),)).samples
    with pytest.raises(ConfigError, match=r"calibration\.crop 65x10"):
        _ = module(crop=(10, 65)).samples


def test_exact_flow_of_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"flow=analytic .*flow=dis or augmentation=none"):
        module(flow=FlowCache(tmp_path, AnalyticFlow()))
    assert module(Augmentation(), flow=FlowCache(tmp_path, AnalyticFlow())).augmentation is None


def test_flow_is_that_of_the_augmented_sample(tmp_path: Path) -> None:
    camera = Augmentation(background_affine=1.0, degrees=0.0, shear=0.0, scale=0.0, shift=0.15)
    made, plain = (
        module(a, flow=FlowCache(tmp_path / "flow", DISFlow("medium")), clips=(Apart(count=4),), crop=None, hflip=0.0)
        for a in (camera, None)
    )
    made.prepare_data()
    entries = set((tmp_path / "flow").rglob("*.safetensors"))
    assert len(entries) == 6, "an entry for each sample"
    cache = made.flow
    assert cache is not None
    moved = 0
    for index in range(6):
        sample, clip = made.samples[index], made._drawn[0][index]
        item = made.calibration[index]
        assert item.flow is not None and sample.start == 0
        direct = cache.estimator.estimate((item.frames * 255).round().to(torch.uint8))  # type: ignore[union-attr]
        assert torch.allclose(item.flow, direct.backward, atol=0.05)
        first, last = (
            torch.tensor([m.pose(t).centre for m in clip.recipe.background.moves]).sum(0)
            for t in (0, 1)
        )  # fmt: skip
        moved += bool((first - last).norm() > 3)
    assert moved, "some move far"
    plain.prepare_data()
    assert len(set((tmp_path / "flow").rglob("*.safetensors")) - entries) == 1, "the clip's own flow is another"
    again = FlowCache(tmp_path / "flow", DISFlow("medium"))
    module(camera, flow=again, clips=(Apart(count=4),), crop=None, hflip=0.0).fill_flow(whole=True)
    assert (again.misses, again.hits) == (0, 6)


def test_flow_of_a_camera_s_motion_is_that_motion(tmp_path: Path) -> None:
    shift = (EasedMotion(Pose(CENTRE), Pose((CENTRE[0] + 6, CENTRE[1]))),)
    clip = AugmentedClip(Apart(), still_recipe((0,) * 4, foreground=LayerRecipe(shift), background=LayerRecipe(shift)))
    pair = FlowCache(tmp_path, DISFlow("medium")).get(clip)
    inside = pair.backward[:, :, 12:36, 16:48].median(-1).values.median(-1).values
    assert torch.allclose(inside, torch.tensor([-2.0, 0.0]).expand(3, 2), atol=0.3)


@pytest.mark.parametrize("layout", ["videomatte", "stills"])
def test_clips_on_disk_have_their_layers(layout: str, tmp_path: Path, make_images) -> None:
    for number, kind in enumerate(("fgr", "pha")):
        folder = tmp_path / "train" / kind
        make_images(folder / "one" if layout == "videomatte" else folder, count=6, seed=number)
    make_images(tmp_path / "backgrounds" / "b", count=3, seed=5)
    data = VideoMatteDataset(tmp_path) if layout == "videomatte" else StillsDataset(tmp_path, frames=6, size=(48, 64))
    source = data.clips().calibration[0]
    assert isinstance(source, LayeredClip)
    plain = source.read()
    order = [4, 1, 1]
    foreground, alpha = source.read_foreground(order)
    assert plain.foreground is not None
    assert torch.equal(foreground, plain.foreground[order]) and torch.equal(alpha, plain.alpha[order])
    assert torch.equal(composite_uint8(foreground, alpha, source.read_background(order)), plain.frames[order])
    assert source.read_background([50]).shape == (1, 3, 48, 64), "beyond the end it plays on"
    batch = module(clips=(source,)).calibration_batch()
    assert batch.frames.shape == (6, 4, 3, 32, 32) and batch.alpha.max() > 0.05


def test_clip_type() -> None:
    assert isinstance(AugmentedClip(Apart(), still_recipe((0,))).read(), Clip)
