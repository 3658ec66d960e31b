from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import draw_backgrounds, draw_layout
from ptq4vm.data.clips.backgrounds import BackgroundFolder
from ptq4vm.data.compose import KINDS, ClipPlan, ComposeSettings, plan, write_set
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.data.datasets.stills import StillsDataset
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.errors import ConfigError, DataError

SMALL = ComposeSettings(size=(48, 32), frames=5, clips=3)


@pytest.fixture
def plans(tmp_path: Path) -> tuple[ClipPlan, ...]:
    """Two subsets of clips and one of stills."""
    videos = VideoMatteDataset(draw_layout("videomatte240k", tmp_path / "vm")).foregrounds("train")
    stills = StillsDataset(draw_layout("d646", tmp_path / "d646")).foregrounds("test")
    root = draw_backgrounds(tmp_path / "backgrounds")
    static = BackgroundFolder(root / "image", "image").backgrounds()
    motion = BackgroundFolder(root / "video", "video").backgrounds("test")
    return plan(videos, {"vm_static": static, "vm_motion": motion}, SMALL) + plan(stills, {"d646": motion}, SMALL)


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_writes_what_the_equation_says(plans: tuple[ClipPlan, ...], tmp_path: Path) -> None:
    assert write_set(tmp_path / "out", plans, SMALL, progress=False) == 9
    clips = find_clips(tmp_path / "out")
    assert len(clips) == 9 and {c.name.split("/")[0] for c in clips} == {"vm_static", "vm_motion", "d646"}
    for clip in clips:
        folder = tmp_path / "out" / clip.name
        assert clip.num_frames == 5 and clip.size == (32, 48)
        for index in range(5):
            com, fgr, pha, bgr = (np.asarray(Image.open(folder / k / f"{index:04d}.png")).astype(float) for k in KINDS)
            alpha = pha[..., None] / 255
            assert np.abs(com - (alpha * fgr + (1 - alpha) * bgr)).max() <= 0.5 + 1e-4
        assert clip.read().alpha.any()
    static = tmp_path / "out" / "vm_static" / "0000" / "bgr"
    moving = tmp_path / "out" / "vm_motion" / "0000" / "bgr"
    assert (static / "0000.png").read_bytes() == (static / "0004.png").read_bytes()
    assert (moving / "0000.png").read_bytes() != (moving / "0004.png").read_bytes()


def test_a_function_of_the_seed_on_any_number_of_threads(plans: tuple[ClipPlan, ...], tmp_path: Path) -> None:
    for number, workers in enumerate((1, 4)):
        write_set(tmp_path / str(number), plans, SMALL, workers, progress=False)
    assert content(tmp_path / "0") == content(tmp_path / "1")
    people = {p.foreground.name for p in plans[:3]}
    assert people == {"0000", "0001", "ein clip"}, "each as often as the others"
    others = {
        tuple(
            p.background.name
            for p in plan(
                [p.foreground for p in plans[:3]],
                {"s": [p.background for p in plans[3:5]]},
                ComposeSettings(clips=6, seed=seed),
            )
        )
        for seed in range(8)
    }
    assert len(others) > 1


def test_what_is_there_is_not_written_again(plans: tuple[ClipPlan, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_set(out, plans[:4], SMALL, progress=False)
    (out / "manifest.json").unlink()  # as after an interruption
    whole = content(out)
    assert write_set(out, plans, SMALL, progress=False) == 5
    assert write_set(out, plans, SMALL, progress=False) == 0
    assert {name: value for name, value in content(out).items() if name in whole} == whole
    damaged = out / plans[0].name / "com" / "0002.png"
    damaged.write_bytes(b"x")
    (out / plans[1].name / "clip.json").write_bytes(b"x")
    assert write_set(out, plans, SMALL, progress=False) == 2
    assert damaged.read_bytes() == whole[damaged.relative_to(out).as_posix()]


def test_the_manifest_says_where_all_comes_from(plans: tuple[ClipPlan, ...], tmp_path: Path) -> None:
    write_set(tmp_path / "out", plans, SMALL, progress=False, notes={"data": "vm"})
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["data"] == "vm" and manifest["settings"]["seed"] == 0 and len(manifest["clips"]) == 9
    clip = manifest["clips"][plans[0].name]
    assert clip["foreground"] == plans[0].foreground.name and clip["sources"]["background"]["files"]
    assert set(clip["sha256"]) == {f"{kind}/{i:04d}.png" for kind in KINDS for i in range(5)}


def test_jpg_and_what_is_refused(plans: tuple[ClipPlan, ...], tmp_path: Path) -> None:
    write_set(tmp_path / "out", plans[:1], ComposeSettings((48, 32), 2, 1, "jpg"), progress=False)
    names = {p.name for p in (tmp_path / "out" / plans[0].name).rglob("*.*g")}
    assert names == {f"{i:04d}.{s}" for i in range(5) for s in ("jpg", "png")}
    with pytest.raises(ConfigError, match="which is not of this set; choose another out="):
        write_set(tmp_path / "out", plans[1:], SMALL, progress=False)
    for wrong in ({"format": "gif"}, {"clips": 0}, {"size": (0, 5)}):
        with pytest.raises(ConfigError):
            ComposeSettings(**wrong)
    path = plans[0].foreground.files[1]
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=str(path)):
        write_set(tmp_path / "other", plans[:1], SMALL, progress=False)
    assert not (tmp_path / "other" / "manifest.json").exists()


def test_frames_of_others_stay(plans: tuple[ClipPlan, ...], tmp_path: Path) -> None:
    """Published sets have the same folders; a clip that was not finished has our record and is written again."""
    out = tmp_path / "out"
    theirs = out / plans[0].name / "pha" / "0000.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(ConfigError, match=r"0000 holds frames that are not of a composed set: choose another out="):
        write_set(out, plans[:1], SMALL, progress=False)
    assert content(out) == {theirs.relative_to(out).as_posix(): b"theirs"}
    theirs.unlink()
    write_set(out, plans[:1], SMALL, progress=False)
    whole = content(out)
    record = json.loads((theirs.parents[1] / "clip.json").read_text())
    (theirs.parents[1] / "clip.json").write_text(json.dumps({**record, "sha256": {}}))
    theirs.unlink()
    assert write_set(out, plans[:1], SMALL, progress=False) == 1 and content(out) == whole
