"""Looking through a data set before anything takes its time: what is there, and what is wrong or odd about it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import track
from torch import Tensor

from ptq4vm.data.base import ClipDataset
from ptq4vm.data.clips.backgrounds import BackgroundClip, BackgroundSource, Frames, show
from ptq4vm.data.clips.foregrounds import StillClip
from ptq4vm.data.datasets.footage import Footage, FootageSource
from ptq4vm.errors import DataError
from ptq4vm.media.images import ImageHeader, image_header
from ptq4vm.media.tensors import read_rgb
from ptq4vm.media.video_file import VideoFile
from ptq4vm.system.cpu import usable_cpus
from ptq4vm.types import ClipSource

Item = ClipSource | BackgroundClip | Footage
_ROLES = {"com": "composite", "fgr": "foreground", "pha": "alpha", "background": "background"}


@dataclass(frozen=True)
class ClipFacts:
    """What the files of one clip say about it.

    Attributes:
        name: Name of the clip in its data set.
        frames: How many frames it has.
        size: ``(H, W)`` of the frames, pixels.
        first: Name of the first frame's file, without suffix; empty where frames have no files of their own.
        last: Name of the last frame's file, likewise.
    """

    name: str
    frames: int
    size: tuple[int, int]
    first: str = ""
    last: str = ""


@dataclass
class Findings:
    """What a check found.

    Attributes:
        parts: Part of the data set (``calibration``, ``evaluation``, ...) to its clips.
        items: The same, to be read.
        faults: A line for each thing that cannot be used.
        oddities: A line for each thing that is usable, but may not be what was meant.
    """

    parts: dict[str, list[ClipFacts]] = field(default_factory=dict)
    items: dict[str, list[Item]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The findings as plain dictionaries, lists and numbers, for ``check.json``."""
        parts = {
            part: {c.name: {"frames": c.frames, "size": list(c.size), "range": [c.first, c.last]} for c in clips}
            for part, clips in self.parts.items()
        }
        return {"parts": parts, "faults": self.faults, "oddities": self.oddities}


def check(dataset: ClipDataset) -> Findings:
    """List a data set and look at the header and the end of every file, in parallel; little is decoded.

    Raises:
        DataError: The layout is such that there are no clips to look at.
    """
    found = Findings(items=_listed(dataset))
    files: dict[Path, str] = {}
    for part, items in found.items.items():
        found.parts[part] = []
        for item in items:
            roles = _roles(item)
            try:
                found.parts[part].append(_facts(item, roles))
            except DataError as error:
                found.faults.append(str(error))
                continue
            found.oddities += _numbering(item.name, roles)
            for role, frames in roles.items():
                for path in () if isinstance(frames, VideoFile) else frames:
                    files.setdefault(path, role)
    sizes = _look_at_files(found, files)
    for items in found.items.values():
        for item in items:
            found.faults += [line for line in _sizes(item, sizes) if line not in found.faults]
    return found


def sample(item: Item, index: int) -> tuple[Tensor, Tensor | None]:
    """Frame ``index`` for a picture: colours ``(3, H, W)`` and alpha ``(1, H, W)`` where there is one, uint8.

    Raises:
        DataError: It cannot be decoded.
    """
    if isinstance(item, BackgroundClip | Footage):
        size = _size(item.frames)
        return show(item.frames, index, index + 1, size)[0], None
    clip = item.read(index, index + 1)
    return clip.frames[0], clip.alpha[0]


def _listed(dataset: ClipDataset) -> dict[str, list[Item]]:
    if isinstance(dataset, FootageSource):
        return {"footage": list(dataset.footage())}
    if isinstance(dataset, BackgroundSource):
        train, test = dataset.backgrounds("train"), dataset.backgrounds("test")
        return {"backgrounds": list(train)} if train == test else {"train": list(train), "test": list(test)}
    clips = dataset.clips()
    if clips.calibration == clips.evaluation:
        return {"clips": list(clips.evaluation)}
    return {"calibration": list(clips.calibration), "evaluation": list(clips.evaluation)}


def _roles(item: Item) -> dict[str, Frames]:
    """The files of a clip by what they show."""
    if isinstance(item, BackgroundClip):
        return {"background": item.frames}
    if isinstance(item, Footage):
        return {"com": item.frames}
    if isinstance(item, StillClip):
        return {"fgr": (item.still.fgr,), "pha": (item.still.pha,), "background": item.background}
    return {role: frames for role in _ROLES if (frames := getattr(item, role, None)) is not None}


def _facts(item: Item, roles: Mapping[str, Frames]) -> ClipFacts:
    if isinstance(item, BackgroundClip | Footage):
        count, size = len(item.frames), _size(item.frames)
    else:
        count, size = item.num_frames, item.size
    main = next(iter(roles.values()), ())
    if isinstance(main, VideoFile) or isinstance(item, StillClip) or not main:
        return ClipFacts(item.name, count, size)
    return ClipFacts(item.name, count, size, main[0].stem, main[-1].stem)


def _size(frames: Frames) -> tuple[int, int]:
    return frames.size if isinstance(frames, VideoFile) else image_header(frames[0]).size


def _numbering(name: str, roles: Mapping[str, Frames]) -> list[str]:
    """Frames that are paired by position but have different names; else numbers that are left out."""
    lists = {r: f for r, f in roles.items() if not isinstance(f, VideoFile) and r != "background" and len(f) > 1}
    if not lists:
        return []
    (first, main), *others = lists.items()
    found = []
    for role, frames in others:
        for one, other in zip(main, frames, strict=False):
            if one.stem != other.stem:
                where = f"{first} {one.name} goes with {role} {other.name}"
                found.append(f"clip {name}: {where}, by position; is a frame missing?")
                break
    numbers = [int(path.stem) for path in main if path.stem.isdecimal()]
    gaps = [(a, b) for a, b in itertools.pairwise(numbers) if b - a != 1]
    if gaps and not found:
        found.append(f"clip {name}: {first} goes from frame {gaps[0][0]} to {gaps[0][1]} in {main[0].parent}")
    return found


def _look_at_files(found: Findings, roles: Mapping[Path, str]) -> dict[Path, tuple[int, int]]:
    """Damaged files are faults; grey composites, coloured alphas and more than 8 bits are oddities, one for a folder.

    Returns:
        Sizes of the files that are whole.
    """
    sizes = {}
    said: set[tuple[Path, str]] = set()
    with ThreadPoolExecutor(min(8, 2 * usable_cpus())) as pool:
        looked = pool.map(_look, roles)
        for (path, role), header in track(
            zip(roles.items(), looked, strict=True), "files", total=len(roles), transient=True
        ):
            if isinstance(header, DataError):
                found.faults.append(str(header))
                continue
            sizes[path] = header.size
            words = _odd(role, header)
            if words and (path.parent, words) not in said:
                said.add((path.parent, words))
                found.oddities.append(f"{_ROLES[role]} {path} {words}")
    return sizes


def _look(path: Path) -> ImageHeader | DataError:
    try:
        header = image_header(path)
        if not header.complete:
            read_rgb(path)  # says what is wrong, or that it can be read all the same
    except DataError as error:
        return error
    return header


def _odd(role: str, header: ImageHeader) -> str:
    if role == "pha" and header.channels in (2, 4):
        return "has transparency, which is taken for the alpha unless it is opaque and the colours are grey"
    if role == "pha" and header.channels == 3:
        return "is stored as RGB; its first channel is taken for the alpha"
    if header.bits > 8:
        return f"has {header.bits} bits a channel; they are rounded to 8"
    if role != "pha" and header.channels < 3:
        return "is gray; the network was trained on colour"
    return ""


def _sizes(item: Item, sizes: Mapping[Path, tuple[int, int]]) -> Iterator[str]:
    """A line for the first file that differs in size from the clip's first."""
    main: tuple[int, int] | None = None
    for role, frames in _roles(item).items():
        if isinstance(frames, VideoFile):
            main = main or frames.size
            continue
        for path in frames if role != "background" or isinstance(item, BackgroundClip) else ():
            size = sizes.get(path)
            main = main or size
            if size is not None and main is not None and size != main:
                yield (
                    f"image {path} is {size[1]}x{size[0]} but its clip is {main[1]}x{main[0]}; "
                    "bring all images of the clip to one size"
                )
                return
