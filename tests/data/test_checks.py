"""What `ptq4vm data check` finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import LAYOUTS, draw_backgrounds, draw_layout
from ptq4vm import settings
from ptq4vm.api import load_data
from ptq4vm.data.checks import check
from ptq4vm.data.datasets.backgrounds import BackgroundsDataset
from ptq4vm.data.datasets.folder import FolderDataset
from ptq4vm.media.images import image_header
from ptq4vm.report.contact import write_contact_sheet

PARTS = {
    "folder": {"clips": 2},
    "videomatte": {"calibration": 3 * 2, "evaluation": 1},
    "videomatte240k": {"calibration": 2, "evaluation": 1},
    "d646": {"calibration": 2, "evaluation": 2},
    "aim": {"calibration": 2, "evaluation": 2},
    "footage": {"footage": 2},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_in_order(tmp_path: Path, name: str) -> None:
    arguments = {"pairs_per_clip": 2} if name == "videomatte" else {}
    found = check(load_data(name, root=draw_layout(name, tmp_path / "daten é"), **arguments))
    assert {part: len(clips) for part, clips in found.parts.items()} == PARTS[name]
    assert found.faults == [] and found.oddities == []
    assert write_contact_sheet(tmp_path / "sheet.png", found) == sum(PARTS[name].values())
    assert found.faults == [] and Image.open(tmp_path / "sheet.png").width > 300
    first = next(iter(found.as_json()["parts"].values()))
    frames, size = (100, [512, 512]) if name in ("d646", "aim") else (6, [64, 96])
    assert all(clip["frames"] == frames and clip["size"] == size for clip in first.values())
    if name == "folder":
        assert first["set é/clip 1"]["range"] == ["0000", "0005"]


def test_layouts_cover_every_data_set() -> None:
    made_up = {"demo", "backgrounds_video", "backgrounds_image"}
    assert set(LAYOUTS) == set(settings.choices("data")) - made_up


@pytest.mark.parametrize(("kind", "parts"), [("video", {"train": 2, "test": 2}), ("image", {"backgrounds": 2})])
def test_backgrounds_in_order(tmp_path: Path, kind: str, parts: dict[str, int]) -> None:
    found = check(BackgroundsDataset(draw_backgrounds(tmp_path) / kind, kind))
    assert {part: len(clips) for part, clips in found.parts.items()} == parts
    assert found.faults == [] and found.oddities == []
    assert write_contact_sheet(tmp_path / "sheet.png", found) == sum(parts.values())


def truncated(path: Path) -> None:
    jpeg = path.with_suffix(".jpg")
    Image.open(path).convert("RGB").resize((96, 64)).save(jpeg, quality=95)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    path.unlink()


def as_mode(mode: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        for each in sorted(path.parent.iterdir()):
            image = Image.open(each)
            if mode == "I;16":
                Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(each)
            else:
                image.convert(mode).save(each)

    return change


def moved(path: Path) -> None:
    for kind in ("com", "fgr"):
        (path.parents[1] / kind / path.name).rename(path.parents[1] / kind / "0009.png")


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "odd size": ("pha", lambda p: Image.open(p).resize((32, 32)).save(p), "is 32x32 but its clip is 96x64"),
    "truncated jpg": ("com", truncated, r"0003.jpg is damaged or truncated"),
    "truncated png": ("pha", lambda p: p.write_bytes(p.read_bytes()[:80]), "0003.png"),
    "not a picture": ("fgr", lambda p: p.write_bytes(b"x"), "0003.png cannot be read"),
    "broken link": (
        "com",
        lambda p: (p.unlink(), p.symlink_to("nowhere.png")),
        "does not exist (a broken link?)",
    ),
}
ODDITIES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "16-bit alpha": ("pha", as_mode("I;16"), "has 16 bits a channel; they are rounded to 8"),
    "16-bit composite": ("com", as_mode("I;16"), "has 16 bits a channel"),
    "gray composite": ("com", as_mode("L"), "is gray; the network was trained on colour"),
    "alpha stored as RGB": ("pha", as_mode("RGB"), "is stored as RGB; its first channel is taken for the alpha"),
    "names that differ": ("pha", moved, "com 0004.png goes with pha 0003.png, by position"),
    "numbers left out": (
        "pha",
        lambda p: [q.unlink() for q in p.parents[1].glob("*/0003.png")],
        "from frame 2 to 4",
    ),
}


@pytest.mark.parametrize("fault", [*FAULTS, *ODDITIES])
def test_what_is_wrong_or_odd_is_said_once(tmp_path: Path, fault: str) -> None:
    root = draw_layout("folder", tmp_path)
    kind, spoil, words = {**FAULTS, **ODDITIES}[fault]
    clip = root / "set é" / "clip 2"
    spoil(clip / kind / "0003.png")
    found = check(FolderDataset(root))
    (line,) = found.faults if fault in FAULTS else found.oddities
    assert words in line and "\n" not in line and ("clip 2" in line)
    assert not (found.oddities if fault in FAULTS else found.faults)
    if fault in ODDITIES:
        for source in FolderDataset(root).clips().evaluation:
            source.read()  # odd, but of use


def test_headers(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    assert image_header(tmp_path / "a.png") == ((4, 5), 3, 8, True)
    Image.new("L", (5, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"\0" * 20)
    assert image_header(tmp_path / "a.jpg") == ((4, 5), 1, 8, True), "padding after the end is harmless"
