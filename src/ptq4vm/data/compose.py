"""Writing an evaluation set: foregrounds over backgrounds, as files, so that every network sees the same frames."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import Progress
from torch import Tensor

from ptq4vm.data.clips.backgrounds import BackgroundClip, Frames, show, turned
from ptq4vm.data.clips.foregrounds import Foreground
from ptq4vm.data.compositing import composite_uint8
from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.io import remedy, write_json
from ptq4vm.media.video_file import VideoFile
from ptq4vm.system.cpu import usable_cpus

logger = logging.getLogger(__name__)

MANIFEST, CLIP = "manifest.json", "clip.json"
KINDS = ("com", "fgr", "pha", "bgr")
_CHUNK = 4


@dataclass(frozen=True)
class ComposeSettings:
    """What an evaluation set is like.

    Attributes:
        size: ``(W, H)`` of its frames, pixels.
        frames: Frames of a clip; shorter foregrounds give shorter clips.
        clips: Clips of a subset.
        format: ``png`` or ``jpg``; alpha is always png.
        seed: Which foreground meets which background, and the motion of stills.

    Raises:
        ConfigError: A value is out of range.
    """

    size: tuple[int, int] = (512, 288)
    frames: int = 100
    clips: int = 25
    format: str = "png"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.frames < 1 or self.clips < 1:
            raise ConfigError(f"size={list(self.size)}, frames={self.frames} and clips={self.clips} must be at least 1")
        if self.format not in ("png", "jpg"):
            raise ConfigError(f"format={self.format!r} is unknown: use png or jpg")


@dataclass(frozen=True)
class ClipPlan:
    """One clip that is to be written.

    Attributes:
        name: Where it is written below the set's folder: ``<subset>/<clip>``.
        foreground: People with alpha that are shown in it.
        background: What they are put before.
        frames: How many frames the clip has.
    """

    name: str
    foreground: Foreground
    background: BackgroundClip
    frames: int


def plan(
    foregrounds: Sequence[Foreground], subsets: Mapping[str, Sequence[BackgroundClip]], settings: ComposeSettings
) -> tuple[ClipPlan, ...]:
    """Decide which foreground meets which background: each foreground as often as the others, to within one.

    Args:
        foregrounds: The people to choose from, at least one.
        subsets: Name of a subset (``videomatte_static``) to its backgrounds, at least one.
        settings: Number, length and seed of the set's clips.
    """
    plans = []
    for subset, backgrounds in subsets.items():
        order = _shuffled(len(backgrounds), f"{settings.seed}|{subset}|backgrounds")
        people = _shuffled(len(foregrounds), f"{settings.seed}|people")
        for number in range(settings.clips):
            person = foregrounds[people[number % len(people)]]
            # when pairs would begin to come again, the backgrounds go on by one
            turn = number + number // math.lcm(len(people), len(order))
            length = settings.frames if person.num_frames is None else min(person.num_frames, settings.frames)
            plans.append(ClipPlan(f"{subset}/{number:04d}", person, backgrounds[order[turn % len(order)]], length))
    return tuple(plans)


def write_set(
    out: Path | str,
    plans: Sequence[ClipPlan],
    settings: ComposeSettings,
    workers: int = 0,
    progress: bool = True,
    notes: Mapping[str, Any] | None = None,
) -> int:
    """Write ``<out>/<subset>/<clip>/{com,fgr,pha,bgr}/<frame>`` and ``manifest.json``, clips in parallel.

    A clip that is there as it would be written, to the last byte, is left alone; so an interrupted call goes on.

    Args:
        out: Folder that is written into.
        plans: What to write, from :func:`plan`.
        settings: What the set is like, as given to :func:`plan`.
        workers: Threads; as many as this process may use cores when 0.
        progress: Whether to show a progress bar.
        notes: Values that ``manifest.json`` shall hold besides.

    Returns:
        How many clips were written anew.

    Raises:
        DataError: A source is damaged.
        SaveError: A file cannot be written.
        ConfigError: ``out`` holds clips that are not of this set.
    """
    out = Path(out).expanduser()
    _check_folder(out, plans)
    count = workers or usable_cpus()
    with Progress(disable=not progress, transient=True) as bar, ThreadPoolExecutor(count) as pool:
        task = bar.add_task("composing", total=sum(p.frames for p in plans))
        futures = {pool.submit(_write_clip, out / p.name, p, settings): p for p in plans}
        try:
            for future in as_completed(futures):
                future.result()
                bar.advance(task, futures[future].frames)
        finally:
            for future in futures:
                future.cancel()
    records = [future.result() for future in futures]
    clips = {p.name: record for p, (record, _) in zip(futures.values(), records, strict=True)}
    write_json(out / MANIFEST, {**(notes or {}), "settings": asdict(settings), "clips": clips})
    return sum(new for _, new in records)


def _check_folder(out: Path, plans: Sequence[ClipPlan]) -> None:
    known = {p.name for p in plans}
    for path in sorted(out.glob(f"*/*/{CLIP}")):
        name = path.parent.relative_to(out).as_posix()
        if name not in known:
            raise ConfigError(f"{out} holds the clip {name}, which is not of this set; choose another out=")


def _write_clip(folder: Path, clip: ClipPlan, settings: ComposeSettings) -> tuple[dict[str, Any], bool]:
    """The clip's record, and whether it was written anew."""
    spec = _spec(clip, settings)
    there = _read_record(folder, spec)
    if there is not None:
        return there, False
    hashes: dict[str, str] = {}
    size = settings.size[1], settings.size[0]
    _check_ours(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CLIP, {**spec, "sha256": {}})  # the mark of what is ours, also where it is not finished
        for kind in KINDS:
            (folder / kind).mkdir(exist_ok=True)
            for old in (folder / kind).iterdir():
                old.unlink()
        for start in range(0, clip.frames, _CHUNK):
            stop = min(start + _CHUNK, clip.frames)
            fgr, pha = clip.foreground.read(start, stop, size)
            bgr = show(clip.background.frames, start, stop, size)
            images = {"com": composite_uint8(fgr, pha, bgr), "fgr": fgr, "pha": pha, "bgr": bgr}
            for kind, frames in images.items():
                for number, frame in enumerate(frames, start):
                    suffix = "png" if kind == "pha" else settings.format
                    name = f"{kind}/{number:04d}.{suffix}"
                    hashes[name] = _save(folder / name, frame)
    except OSError as error:
        raise SaveError(f"cannot write {folder}: {error}; {remedy(error, 'choose another out=')}") from error
    record = {**spec, "sha256": hashes}
    write_json(folder / CLIP, record)
    return record, True


def _check_ours(folder: Path) -> None:
    """Refuse to write over a clip that has no record of ours: published sets have the same names."""
    if not (folder / CLIP).is_file() and any(any((folder / kind).glob("*")) for kind in KINDS):
        raise ConfigError(f"{folder} holds frames that are not of a composed set: choose another out=")


def _spec(clip: ClipPlan, settings: ComposeSettings) -> dict[str, Any]:
    """All that decides what a clip looks like, but for the pixels of its sources, which are told by size and time."""
    frames = clip.background.frames
    background = (frames.path,) if isinstance(frames, VideoFile) else frames
    people = clip.foreground.files
    return {
        "foreground": clip.foreground.name,
        "background": clip.background.name,
        "frames": clip.frames,
        "size": list(settings.size),
        "format": settings.format,
        "seed": settings.seed,
        "sources": {
            "foreground": _source(people, people[:1] + people[len(people) // 2 :][:1]),
            "background": _source(background, background[:1]) | _marks(frames),
        },
    }


def _marks(frames: Frames) -> dict[str, str]:
    marks = turned(frames)
    return {"turned": marks} if marks else {}


def _source(files: Sequence[Path], shown: Sequence[Path]) -> dict[str, Any]:
    """Where something comes from: some of its files, and a hash over what all of them say of themselves."""
    digest = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"file {path} cannot be read ({error}); restore it") from error
        digest.update(f"{path.name}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return {"files": [str(path) for path in shown], "count": len(files), "state": digest.hexdigest()}


def _read_record(folder: Path, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a clip that is there, whole and as ``spec`` says, else ``None``."""
    try:
        record = json.loads((folder / CLIP).read_text(encoding="utf-8"))
        hashes = record.pop("sha256")
        if record != spec or not hashes:  # of another set, or not finished
            return None
        if any(_sha256((folder / name).read_bytes()) != value for name, value in hashes.items()):
            logger.warning("%s was changed since it was written; writing it again", folder)
            return None
    except (OSError, ValueError, KeyError, AttributeError):  # none yet, or not what we write
        return None
    return {**record, "sha256": hashes}


def _save(path: Path, frame: Tensor) -> str:
    """Write one picture; its SHA-256."""
    picture = Image.fromarray(frame.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
    options: dict[str, Any] = {"compress_level": 3} if path.suffix == ".png" else {"quality": 95, "subsampling": 0}
    picture.save(path, **options)
    return _sha256(path.read_bytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _shuffled(count: int, key: str) -> list[int]:
    """A permutation that is a function of the key alone."""
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{key}|{i}".encode()).digest())
