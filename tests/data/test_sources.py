from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import write_video
from ptq4vm.data.base import BoxedClip
from ptq4vm.data.clips.sources import CompositeClip, FolderClip, check_has_subject
from ptq4vm.data.compositing import composite, composite_uint8, ping_pong
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.errors import DataError
from ptq4vm.media.images import list_frames, natural_key
from ptq4vm.media.tensors import read_alpha, read_cover_stack, read_rgb, read_stack
from ptq4vm.media.video_file import VideoFile
from ptq4vm.types import ClipSource


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_natural_order() -> None:
    names = ["10.png", "2.png", "1.png", "a10b2", "a10b10", "a9", "", "x٣"]
    assert sorted(names, key=natural_key) == ["", "1.png", "2.png", "10.png", "a9", "a10b2", "a10b10", "x٣"]


def test_reads_a_clip(tmp_path: Path, make_clip) -> None:
    folder = make_clip(tmp_path / "subset ü" / "clip 客", count=12)
    clip = FolderClip.from_folder(folder, "subset ü/clip 客")
    assert isinstance(clip, ClipSource) and clip.num_frames == 12 and clip.size == (48, 64)
    whole, part = clip.read(), clip.read(9, 11)
    assert whole.frames.shape == (12, 3, 48, 64) and whole.alpha.shape == (12, 1, 48, 64)
    assert whole.frames.dtype == whole.alpha.dtype == torch.uint8
    assert whole.foreground is not None and part.foreground is not None
    assert torch.equal(part.frames, whole.frames[9:11]) and torch.equal(part.foreground, whole.foreground[9:11])
    expected = np.asarray(Image.open(folder / "com" / "0009.png"))
    assert np.array_equal(part.frames[0].permute(1, 2, 0).numpy(), expected), "RGB order, frame order"
    assert pickle.loads(pickle.dumps(clip)) == clip  # noqa: S301  (workers get sources by pickle)


def test_links_hidden_files_and_optional_foreground(tmp_path: Path, make_clip) -> None:
    real = make_clip(tmp_path / "real", kinds=("com", "pha"))
    (real / "com" / ".DS_Store.png").write_text("")
    (real / "com" / "notes.txt").write_text("")
    (tmp_path / "link").symlink_to(real)
    clip = FolderClip.from_folder(tmp_path / "link")
    assert clip.num_frames == 5 and clip.read().foreground is None


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "1", "P", "LA", "RGBA"])
def test_alpha_files_of_any_kind(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 255], [255, 0]] if mode in ("1", "P") else [[0, 255], [77, 128]], np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    elif mode == "RGB":
        image = Image.fromarray(np.dstack([values, values, values]))
    else:
        image = Image.fromarray(values).convert(mode)
    image.save(tmp_path / "a.png")
    alpha = read_alpha(tmp_path / "a.png")
    assert alpha.dtype == torch.uint8 and alpha.tolist() == [values.tolist()]


def test_grey_colour_files(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(tmp_path / "g.png")
    assert read_rgb(tmp_path / "g.png").shape == (3, 4, 5)
    Image.fromarray(np.full((4, 5), 77 * 257, np.uint16)).save(tmp_path / "wide.png")
    assert read_rgb(tmp_path / "wide.png").unique().tolist() == [77], "16 bits are rounded, not cut off"


def test_cover_keeps_the_shape_of_things(tmp_path: Path) -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 50:] = 200
    Image.fromarray(pixels).save(tmp_path / "b.png")
    covered = read_cover_stack([tmp_path / "b.png"], (20, 20))[0]
    assert covered.shape == (3, 20, 20)
    assert covered[:, :, :7].max() == 0 and covered[:, :, 13:].min() == 200


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.9])
def test_truncated_images_name_the_file(tmp_path: Path, make_clip, suffix: str, kept: float) -> None:
    clip = FolderClip.from_folder(make_clip(tmp_path / "clip", suffix=suffix))
    path = clip.com[3]
    content = path.read_bytes()
    path.write_bytes(content[: int(kept) if kept == int(kept) else int(kept * len(content))])
    clip.read(0, 3)
    with pytest.raises(DataError) as caught:
        clip.read()
    assert str(path) in one_line(caught)


@pytest.mark.parametrize("kind", ["com", "pha"])
def test_files_that_are_no_images(tmp_path: Path, make_clip, kind: str) -> None:
    clip = FolderClip.from_folder(make_clip(tmp_path / "clip"))
    path = getattr(clip, kind)[2]
    path.write_text("not a picture")
    with pytest.raises(DataError, match="cannot be read") as caught:
        clip.read()
    assert str(path) in one_line(caught)
    path.unlink()
    path.symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match="does not exist"):
        clip.read()


@pytest.mark.parametrize("kind", ["pha", "fgr"])
def test_counts_that_differ_name_both_folders(tmp_path: Path, make_clip, kind: str) -> None:
    folder = make_clip(tmp_path / "clip")
    (folder / kind / "0002.png").unlink()
    with pytest.raises(DataError) as caught:
        FolderClip.from_folder(folder)
    message = one_line(caught)
    assert f"{folder / 'com'} has 5 frames" in message and f"{folder / kind} has 4" in message


@pytest.mark.parametrize("kind", ["com", "pha"])
def test_missing_and_empty_folders(tmp_path: Path, make_clip, kind: str) -> None:
    folder = make_clip(tmp_path / "clip")
    for path in (folder / kind).iterdir():
        path.unlink()
    with pytest.raises(DataError, match="holds no images") as caught:
        FolderClip.from_folder(folder)
    assert str(folder / kind) in one_line(caught)
    (folder / kind).rmdir()
    with pytest.raises(DataError, match="does not exist") as caught:
        FolderClip.from_folder(folder)
    assert str(folder / kind) in one_line(caught)


@pytest.mark.parametrize("kind", ["com", "pha", "fgr"])
def test_sizes_that_differ_name_the_file(tmp_path: Path, make_clip, make_images, kind: str) -> None:
    folder = make_clip(tmp_path / "clip")
    Image.open(folder / kind / "0003.png").resize((32, 24)).save(folder / kind / "0003.png")
    clip = FolderClip.from_folder(folder)
    with pytest.raises(DataError, match="32x24 but its clip is 64x48") as caught:
        clip.read()
    assert str(folder / kind / "0003.png") in one_line(caught)


def test_alpha_of_zero_in_every_frame(tmp_path: Path, make_clip) -> None:
    clip = FolderClip.from_folder(make_clip(tmp_path / "clip"))
    for path in clip.pha[:4]:
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)
    clip.read()
    clip.read(0, 2)
    check_has_subject(clip)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(clip.pha[4])
    clip.read(0, 2)
    with pytest.raises(DataError, match="clip clip has an alpha of zero in every frame"):
        clip.read()
    with pytest.raises(DataError, match="zero in every frame"):
        check_has_subject(clip)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 6), (3, 3), (4, 2)])
def test_ranges_outside_the_clip(tmp_path: Path, make_clip, start: int, stop: int) -> None:
    clip = FolderClip.from_folder(make_clip(tmp_path / "clip"))
    with pytest.raises(DataError, match=f"has 5 frames; frames {start}:{stop}"):
        clip.read(start, stop)


@pytest.fixture
def composite_clip(tmp_path: Path, make_images) -> CompositeClip:
    fgr = list_frames(make_images(tmp_path / "fgr" / "c", count=7, seed=1))
    pha = list_frames(make_images(tmp_path / "pha" / "c", count=7))
    background = list_frames(make_images(tmp_path / "bg" / "b", count=3, seed=2))
    return CompositeClip("c+b", fgr, pha, background)


def test_composites_by_the_equation_to_rounding(composite_clip: CompositeClip) -> None:
    clip = composite_clip.read()
    assert clip.foreground is not None
    played = [composite_clip.background[i] for i in (0, 1, 2, 1, 0, 1, 2)]
    background = torch.stack([read_rgb(path) for path in played]).double()
    expected = composite(clip.foreground.double(), clip.alpha.double() / 255, background)
    assert (clip.frames - expected).abs().max() <= 0.5 + 1e-4
    part = composite_clip.read(4, 6)
    assert torch.equal(part.frames, clip.frames[4:6])


def test_backgrounds_of_another_size_cover(composite_clip: CompositeClip, tmp_path: Path, make_images) -> None:
    wide = list_frames(make_images(tmp_path / "bg" / "wide", count=1, size=(30, 100)))
    clip = CompositeClip("c+wide", composite_clip.fgr, composite_clip.pha, wide)
    assert clip.read().frames.shape == (7, 3, 48, 64)


def test_composite_clips_check_their_lists(composite_clip: CompositeClip) -> None:
    with pytest.raises(DataError, match=r"fgr/c has 6 frames but .*pha/c has 7"):
        CompositeClip("c", composite_clip.fgr[1:], composite_clip.pha, composite_clip.background)
    with pytest.raises(DataError, match="no background"):
        CompositeClip("c", composite_clip.fgr, composite_clip.pha, ())


def test_compositing_rounds_rather_than_cuts() -> None:
    foreground, background = torch.tensor([255, 10, 3]), torch.tensor([0, 20, 3])
    for alpha in range(256):
        got = composite_uint8(
            foreground.to(torch.uint8).view(3, 1, 1),
            torch.full((1, 1, 1), alpha, dtype=torch.uint8),
            background.to(torch.uint8).view(3, 1, 1),
        )
        exact = (alpha * foreground + (255 - alpha) * background) / 255
        assert (got.flatten() - exact).abs().max() <= 0.5


def test_compositing_in_whole_numbers_is_that_in_floating_point() -> None:
    colours = torch.arange(256, dtype=torch.uint8)
    foreground = colours.view(1, 256, 1).expand(3, 256, 256)
    background = colours.view(1, 1, 256).expand(3, 256, 256)
    for start in range(0, 256, 32):
        alpha = torch.arange(start, start + 32).to(torch.uint8).view(32, 1, 1, 1)
        got = composite_uint8(foreground, alpha.expand(32, 1, 256, 256), background)
        blend = composite(foreground[:1].float(), alpha.float() / 255, background[:1].float())
        assert torch.equal(got[:, :1], blend.round().to(torch.uint8)) and got.shape == (32, 3, 256, 256)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (5, 3)])
def test_planes_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pixels.transpose(2, 0, 1)
    assert np.array_equal(read_rgb(tmp_path / "a.png").numpy(), expected)
    stack = read_stack([tmp_path / "a.png"] * 2, 3, size, (0, 0, 1, size[0]))
    assert np.array_equal(stack.numpy(), np.stack([expected[..., :1]] * 2))


def test_a_box_is_what_is_cut_from_the_whole(composite_clip: CompositeClip, tmp_path: Path, make_clip) -> None:
    folder = FolderClip.from_folder(make_clip(tmp_path / "clip", count=7))
    video = dataclasses.replace(composite_clip, background=VideoFile(write_video(tmp_path / "v.mp4", frames=3)))
    for clip in (composite_clip, video, folder):
        assert isinstance(clip, BoxedClip)
        whole = clip.read(2, 7)
        part = clip.read_box(2, 7, (5, 10, 50, 41))
        assert torch.equal(part.frames, whole.frames[..., 10:41, 5:50])
        assert torch.equal(part.alpha, whole.alpha[..., 10:41, 5:50])


def test_frames_are_kept_as_names(tmp_path: Path, make_images) -> None:
    frames = list_frames(make_images(tmp_path / "c", count=12))
    assert [path.name for path in frames[9:11]] == ["0009.png", "0010.png"] and frames[
        -1
    ] == tmp_path / "c" / "0011.png"
    assert frames == list_frames(tmp_path / "c") and hash(frames) == hash(pickle.loads(pickle.dumps(frames)))  # noqa: S301
    with pytest.raises(IndexError):
        frames[12]
    other = list_frames(make_images(tmp_path / "d", count=12))
    assert all(a is b for a, b in zip(frames.names, other.names, strict=True)), "equal names are kept once"


class Entry:
    """A file in a folder that counts how often it is looked at."""

    looked = 0

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self._entry = entry.name, entry

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        Entry.looked += follow_symlinks and self._entry.is_symlink()
        return self._entry.is_dir(follow_symlinks=follow_symlinks)


def test_listing_looks_at_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up of a data set of a million files: nothing may be asked about each of them."""
    (tmp_path / "real.jpg").write_bytes(b"is not opened")
    for kind in ("train/fgr", "train/pha", "backgrounds"):
        for clip in range(3):
            (tmp_path / kind / str(clip)).mkdir(parents=True)
            for frame in range(50):
                (tmp_path / kind / str(clip) / f"{frame:04d}.jpg").symlink_to(tmp_path / "real.jpg")
    asked, scandir, stat = [], os.scandir, os.stat

    class Folder:
        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> Iterator[Entry]:
            return map(Entry, self.entries.__enter__())

        def __exit__(self, *details: object) -> None:
            self.entries.__exit__(*details)

    def counted(path: object, *arguments: object, **options: object) -> os.stat_result:
        asked.append(path)
        return stat(path, *arguments, **options)

    opened = []
    monkeypatch.setattr("ptq4vm.media.images.os.scandir", Folder)
    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr("ptq4vm.media.images.Image.open", opened.append)
    clips = VideoMatteDataset(tmp_path).clips().calibration
    monkeypatch.undo()
    assert len(clips) == 3 and all(clip.num_frames == 50 for clip in clips)
    assert opened == [] and Entry.looked == 0
    assert len(asked) < 60, "a few for each of nine folders, none for their 450 files"


def test_ping_pong() -> None:
    assert [ping_pong(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [ping_pong(i, 1) for i in range(3)] == [0, 0, 0]
