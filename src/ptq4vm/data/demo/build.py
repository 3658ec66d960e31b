"""The list of demo clips, and writing them: all of them or none."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ptq4vm.data.demo.people import PEOPLE, CutOut, cut_out
from ptq4vm.data.demo.render import Placement, place, render
from ptq4vm.data.demo.scenes import SCENES, load_scene
from ptq4vm.errors import SaveError
from ptq4vm.io import remedy, write_tensors

logger = logging.getLogger(__name__)

_VERSION = 1  # raise when the rendering changes: the cache then starts afresh
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True)
class DemoRecipe:
    """What a demo clip is made of.

    Attributes:
        name: Name of the clip and of its folder.
        group: What the clip is for: ``calibration`` or ``evaluation``.
        person: Key of :data:`PEOPLE`.
        scene: Key of :data:`SCENES`.
        placement: Where the person stands in the frame.
    """

    name: str
    group: str
    person: str
    scene: str
    placement: Placement


RECIPES = (
    DemoRecipe("astronaut-meadow", "calibration", "astronaut", "meadow", Placement(272, 0.48)),
    DemoRecipe("astronaut-coffee", "calibration", "astronaut", "coffee", Placement(296, 0.60)),
    DemoRecipe("astronaut-launch-pad", "calibration", "astronaut", "launch-pad", Placement(240, 0.38)),
    DemoRecipe("man-wall", "calibration", "man-upright", "wall", Placement(216, beyond=True)),
    DemoRecipe("man-meadow", "calibration", "man-tilted", "meadow", Placement(208, beyond=True, mirror=True)),
    DemoRecipe("man-launch-pad", "calibration", "man-aside", "launch-pad", Placement(216, beyond=True)),
    DemoRecipe("hopper-street", "evaluation", "hopper", "street", Placement(276, 0.45)),
    DemoRecipe("hopper-bicycle", "evaluation", "hopper", "bicycle", Placement(248, 0.62)),
    DemoRecipe("hopper-garage", "evaluation", "hopper", "garage", Placement(290, 0.40)),
)
"""Calibration and evaluation share neither a person nor a scene."""


def demo_key(count: int, size: tuple[int, int], seed: int) -> str:
    """Short hash of everything that the demo clips depend on."""
    content = (_VERSION, RECIPES, PEOPLE, SCENES, count, size, seed)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def build_demo(target: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """Write all demo clips under ``target``, which appears once it is complete. Nothing to do where they are whole.

    What has been cut off or removed since is made again, with everything beside it.

    Args:
        target: Becomes ``target/{calibration,evaluation}/<clip>/{com,pha,fgr}/<frame>.png`` and ``flow.safetensors``.
        count: Frames of each clip.
        size: ``(H, W)`` of the frames, pixels.
        seed: Seed that all motions are drawn from.

    Raises:
        DataError: A package with pictures is not installed.
        SaveError: The folder cannot be written.
    """
    if _is_whole(target, count):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if _is_whole(target, count):  # another process was first
                return
            if target.is_dir():
                logger.warning("the demo clips in %s are damaged: they are made again", target)
            for left_over in target.parent.glob(f".{target.name}-*"):  # of a build that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                _build_all(part, count, size, seed)
                part.chmod(0o755)
                shutil.rmtree(target, ignore_errors=True)  # its name is a hash: nobody else's
                part.replace(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise SaveError(
            f"cannot write the demo clips to {target}: {error}; {remedy(error, 'set data.root')}"
        ) from error


def _is_whole(target: Path, count: int) -> bool:
    """Whether every clip has all its pictures, none of them cut off, and its flow."""
    for recipe in RECIPES:
        clip = target / recipe.group / recipe.name
        pictures = [clip / kind / f"{index:04d}.png" for kind in ("com", "pha", "fgr") for index in range(count)]
        try:
            with safe_open(clip / "flow.safetensors", framework="pt"):  # compares its length with what it says
                pass
            if not all(_ends(picture) for picture in pictures):
                return False
        except (OSError, SafetensorError):
            return False
    return True


def _ends(picture: Path) -> bool:
    """Whether a PNG file ends as one does."""
    with picture.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_PNG_END)))
        return file.read() == _PNG_END


def _build_all(folder: Path, count: int, size: tuple[int, int], seed: int) -> None:
    logger.info("making %d demo clips (once; the first time includes compiling PyMatting)", len(RECIPES))
    names = list(dict.fromkeys(recipe.person for recipe in RECIPES))
    with Progress(transient=True) as progress:
        cutting = progress.add_task("demo: cutting people out", total=len(names))
        people: dict[str, CutOut] = {}
        for name in names:
            people[name] = cut_out(PEOPLE[name])
            progress.advance(cutting)
        rendering = progress.add_task("demo: rendering clips", total=len(RECIPES) * count)
        for number, recipe in enumerate(RECIPES):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            scene = load_scene(SCENES[recipe.scene], size)
            layers = place(people[recipe.person], scene, recipe.placement, size, generator)
            clip = folder / recipe.group / recipe.name
            flows, visible = [], []
            for index, frame in enumerate(render(layers, count, size)):
                _write_images(clip, index, {"com": frame.frame, "pha": frame.alpha, "fgr": frame.foreground})
                if frame.flow is not None and frame.visible is not None:
                    flows.append(frame.flow.half())
                    visible.append(frame.visible.to(torch.uint8))
                progress.advance(rendering)
            write_tensors(clip / "flow.safetensors", {"flow": torch.stack(flows), "visible": torch.stack(visible)})


def _write_images(clip: Path, index: int, images: dict[str, Tensor]) -> None:
    for kind, image in images.items():
        path = clip / kind / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)
        Image.fromarray(pixels.contiguous().numpy()).save(path, compress_level=1)
