"""Every kind of damage in every layout: what is said of it, or that it does no harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from layouts import LAYOUTS, draw_backgrounds, draw_layout
from ptq4vm.api import load_data
from ptq4vm.data.checks import check, sample
from ptq4vm.errors import DataError
from ptq4vm.types import ClipSource


class Tree(NamedTuple):
    """Where in a layout the damage is done, and which values keep the clips small."""

    colour: str
    alpha: str | None
    values: Mapping[str, object] = MappingProxyType({})


STILLS = Tree("train/fgr/frau 1.png", "train/pha/frau 1.png", {"frames": 6, "size": (64, 96)})
VIDEOMATTE = Tree("train/fgr/0001/0003.png", "train/pha/0001/0003.png", {"pairs_per_clip": 1})
TREES = {
    "folder": Tree("set é/clip 2/com/0003.png", "set é/clip 2/pha/0003.png"),
    "videomatte": VIDEOMATTE,
    "videomatte240k": VIDEOMATTE,
    "d646": STILLS,
    "aim": STILLS,
    "footage": Tree("my clip/0003.png", None),
    "backgrounds_video": Tree("video/train/a street/0003.png", None),
    "backgrounds_image": Tree("image/bild 1.png", None),
}
PAIRED = [name for name, tree in TREES.items() if tree.alpha]
STILL = ("d646", "aim")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each layout in a folder of its name."""
    root = tmp_path_factory.mktemp("trees")
    for name in LAYOUTS:
        draw_layout(name, root / name)
    for kind in ("video", "image"):
        draw_backgrounds(root / f"backgrounds_{kind}")
    return root


class Place:
    """A copy of a tree that may be spoilt."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root, self.tree = name, root, TREES[name]
        self.colour = root / self.tree.colour
        self.alpha = root / self.tree.alpha if self.tree.alpha else self.colour

    def look(self) -> tuple[list[str], list[str]]:
        """What the check finds, faults and oddities; where it finds no fault, every frame is read."""
        below = {"backgrounds_video": "video", "backgrounds_image": "image"}.get(self.name, "")
        try:
            found = check(load_data(self.name, root=self.root / below, **self.tree.values))
            if not found.faults:
                for item in (item for items in found.items.values() for item in items):
                    if isinstance(item, ClipSource):
                        item.read()
                    else:
                        for index in range(len(item.frames)):
                            sample(item, index)
        except DataError as error:
            return [str(error)], []
        return found.faults, found.oddities


@pytest.fixture
def place(request: pytest.FixtureRequest, drawn: Path, tmp_path: Path) -> Place:
    """The layout that the test is parametrised with."""
    name = request.node.callspec.params["name"]
    shutil.copytree(drawn / name, tmp_path / "tree", symlinks=True)
    return Place(name, tmp_path / "tree")


def one_line(lines: list[str], *words: str) -> None:
    (line,) = lines
    assert "\n" not in line and all(word in line for word in words), line


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("part", ["colour", "alpha"])
def test_missing_pair(place: Place, name: str, part: str) -> None:
    getattr(place, part).unlink()
    faults, _ = place.look()
    if name in STILL:
        missing, there = (place.colour, place.alpha) if part == "colour" else (place.alpha, place.colour)
        one_line(faults, f"{missing.parent} has no 'frau 1' for {there}; add it or remove the other")
    else:
        counts = (5, 6) if part == "colour" else (6, 5)
        one_line(faults, f"{place.colour.parent} has {counts[0]} frames but", "give every frame a file in both")
        assert f" has {counts[1]}; " in faults[0]


@pytest.mark.parametrize("name", TREES)
def test_odd_size(place: Place, name: str) -> None:
    Image.open(place.alpha).resize((32, 32)).save(place.alpha)
    faults, oddities = place.look()
    if name == "backgrounds_image":
        assert faults == oddities == [], "each is a clip of its own"
    else:
        one_line(
            faults, f"image {place.alpha} is 32x32 but its clip is 96x64; bring all images of the clip to one size"
        )


@pytest.mark.parametrize("name", TREES)
def test_sizes_that_no_block_divides(place: Place, name: str) -> None:
    folders = {place.colour.parent, place.alpha.parent} | (
        {place.root / "set é/clip 2/fgr"} if name == "folder" else set()
    )
    for folder in folders:
        for path in folder.iterdir():
            if path.suffix == ".png":
                Image.open(path).resize((77, 45)).save(path)
    assert place.look() == ([], [])


@pytest.mark.parametrize("name", TREES)
def test_truncated_jpg(place: Place, name: str) -> None:
    jpeg = place.colour.with_suffix(".jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(jpeg, quality=95)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    place.colour.unlink()
    one_line(place.look()[0], f"image {jpeg} is damaged or truncated", "replace it")


def rewrite(path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    for each in path.parent.glob("*.png"):
        change(Image.open(each)).save(each)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("part", ["colour", "alpha"])
def test_16_bit_png(place: Place, name: str, part: str) -> None:
    rewrite(getattr(place, part), lambda i: Image.fromarray(np.asarray(i.convert("L")).astype(np.uint16) * 257))
    faults, oddities = place.look()
    assert faults == [] and oddities
    for line in oddities:  # of still images, each is a clip
        one_line([line], "has 16 bits a channel; they are rounded to 8")


@pytest.mark.parametrize("name", TREES)
def test_gray_composite(place: Place, name: str) -> None:
    rewrite(place.colour, lambda i: i.convert("L"))
    faults, oddities = place.look()
    assert faults == []
    one_line(oddities, str(place.colour.parent), "is gray; the network was trained on colour")


@pytest.mark.parametrize("name", PAIRED)
def test_alpha_stored_as_rgb(place: Place, name: str) -> None:
    rewrite(place.alpha, lambda i: i.convert("RGB"))
    faults, oddities = place.look()
    assert faults == []
    one_line(oddities, f"alpha {place.alpha.parent}", "is stored as RGB; its first channel is taken for the alpha")


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("part", ["colour", "alpha"])
def test_empty_clip(place: Place, name: str, part: str) -> None:
    folder = getattr(place, part).parent
    for path in folder.iterdir():
        path.unlink()
    if name == "backgrounds_video":
        assert place.look() == ([], []), "there is the video file"
        (place.root / "video" / "train" / "café.mp4").unlink()
        (place.root / "video" / "test" / "café.mp4").unlink()
    if name == "footage":
        assert place.look() == ([], []), "there is the video file"
        (place.root / "büro 1.mp4").unlink()
    words = {
        "footage": f"folder {place.root} holds no videos; expected",
        "backgrounds_video": f"folder {place.root / 'video' / 'train'} is missing or holds no backgrounds; expected",
        "backgrounds_image": f"folder {folder} is missing or holds no backgrounds; expected",
    }
    one_line(place.look()[0], words.get(name, f"folder {folder} holds no images"))


@pytest.mark.parametrize("name", TREES)
def test_names_with_spaces_and_any_letters(place: Place, name: str) -> None:
    """Of files, clips and the root."""
    for path in {place.colour, place.alpha}:
        each = sorted(path.parent.glob("*.png"))
        for index, file in enumerate(each):
            file.rename(file.with_name(f"кадр {index} ü.png"))
    for folder in {place.colour.parent, place.alpha.parent}:
        if folder.name in ("com", "pha") and name == "folder":
            folder = folder.parent
            if not folder.exists():
                continue
            for index, file in enumerate(sorted((folder / "fgr").iterdir())):
                file.rename(file.with_name(f"кадр {index} ü.png"))
        if folder.name not in ("fgr", "pha", "image"):
            folder.rename(folder.with_name("クリップ nº 1"))
    root = place.root.with_name("mes données")
    place.root.rename(root)
    assert Place(name, root).look() == ([], [])


@pytest.mark.parametrize("name", TREES)
def test_symbolic_links(place: Place, name: str, tmp_path: Path) -> None:
    """Files that are links, in a folder that is one."""
    real = tmp_path / "real"
    for number, folder in enumerate(sorted({place.colour.parent, place.alpha.parent})):
        (real / str(number)).mkdir(parents=True)
        for path in list(folder.iterdir()):
            path.rename(real / str(number) / f"file {path.name}")
            path.symlink_to(real / str(number) / f"file {path.name}")
        folder.rename(real / f"folder {number}")
        folder.symlink_to(real / f"folder {number}")
    assert place.look() == ([], [])
    (real / "0" / f"file {place.colour.name}").unlink()
    one_line(place.look()[0], place.colour.name, "does not exist (a broken link?); restore it")
