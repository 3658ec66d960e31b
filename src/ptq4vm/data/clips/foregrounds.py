"""People with alpha before they are composited: clips, and stills that are set in motion."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ptq4vm.data.augmentation.motion import Motion, frame_points
from ptq4vm.data.base import frame_window
from ptq4vm.data.clips.backgrounds import Frames, show, show_at
from ptq4vm.data.compositing import composite_uint8
from ptq4vm.errors import DataError
from ptq4vm.media.images import open_alpha, open_rgb
from ptq4vm.types import Clip

Size = tuple[int, int]

_SHIFT, _TURN, _ZOOM = 0.1, math.radians(10), 0.1  # largest motion of a still: of the frame's size, of its own


@runtime_checkable
class Foreground(Protocol):
    """People with alpha, over no background yet; cheap to hold, picklable."""

    @property
    def name(self) -> str:
        """Unique name inside a dataset."""
        ...

    @property
    def num_frames(self) -> int | None:
        """How many frames it has; ``None`` for as many as are wanted."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that its pixels are read from."""
        ...

    def read(self, start: int, stop: int, size: Size) -> tuple[Tensor, Tensor]:
        """Colours ``(n, 3, H, W)`` and alpha ``(n, 1, H, W)`` of frames ``start:stop`` at ``size``, uint8."""
        ...


@runtime_checkable
class ForegroundSource(Protocol):
    """A collection of foregrounds that can be listed, split by split."""

    def foregrounds(self, split: str = "train") -> tuple[Foreground, ...]:
        """List the foregrounds of a split. Raises :class:`ptq4vm.errors.DataError` when there are none."""
        ...


@dataclass(frozen=True)
class ClipForeground:
    """A foreground with a file of colours and one of alpha for each frame, scaled to cover the size asked for.

    Attributes:
        name: Unique name inside the dataset.
        fgr: Colours of each frame.
        pha: Alpha of each frame.
    """

    name: str
    fgr: Sequence[Path]
    pha: Sequence[Path]

    @property
    def num_frames(self) -> int | None:
        """How many frames the clip has."""
        return len(self.fgr)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of colours in order, then those of alpha."""
        return (*self.fgr, *self.pha)

    def read(self, start: int, stop: int, size: Size) -> tuple[Tensor, Tensor]:
        """See :meth:`Foreground.read`. Raises :class:`DataError`."""
        colours, alphas = [], []
        for fgr, pha in zip(self.fgr[start:stop], self.pha[start:stop], strict=True):
            images = _same_size(fgr, pha)
            # bilinear, which Pillow widens when it shrinks, never overshoots as sharper filters do
            fitted = [ImageOps.fit(i, (size[1], size[0]), method=Image.Resampling.BILINEAR) for i in images]
            colours.append(_tensor(np.asarray(fitted[0])))
            alphas.append(_tensor(np.asarray(fitted[1])))
        return torch.stack(colours), torch.stack(alphas)


@dataclass(frozen=True)
class StillForeground:
    """A still picture in mild affine motion: shift, rotation and scale that come and go smoothly.

    The picture is scaled to fit into the frame; the motion is a function of the seed and the name. Colours and alpha
    always move alike.

    Attributes:
        name: Unique name inside the dataset.
        fgr: Image file with the colours.
        pha: Image file with alpha, as large as the colours.
        seed: Seed that the motion is drawn from, together with the name.
    """

    name: str
    fgr: Path
    pha: Path
    seed: int = 0

    @property
    def num_frames(self) -> int | None:
        """Always ``None``: a still gives as many frames as are wanted."""
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of colours and that of alpha."""
        return self.fgr, self.pha

    def motion(self, size: Size) -> Motion:
        """How the picture, scaled to a frame of ``size``, moves through it."""
        digest = hashlib.sha256(f"{self.seed}|{self.name}".encode()).digest()
        draws = np.random.default_rng(int.from_bytes(digest[:8], "little")).uniform(size=8)
        height, width = size
        centre = ((width - 1) / 2, (height - 1) / 2)
        return Motion(
            frame_anchor=centre,
            layer_anchor=centre,
            sway=(_SHIFT * width * draws[0], _SHIFT * height * draws[1]),
            sway_phase=(2 * math.pi * draws[2], 2 * math.pi * draws[3]),
            period=80 + 160 * draws[4],
            tilt=_TURN * (2 * draws[5] - 1),
            zoom=_ZOOM * (2 * draws[6] - 1),
        )

    def read(self, start: int, stop: int, size: Size) -> tuple[Tensor, Tensor]:
        """See :meth:`Foreground.read`. Raises :class:`DataError`."""
        return self.at(range(start, stop), size)

    def at(self, times: Sequence[int], size: Size) -> tuple[Tensor, Tensor]:
        """:meth:`read` at any ``times``, in any order."""
        images = _same_size(self.fgr, self.pha)
        fitted = [ImageOps.pad(i, (size[1], size[0]), method=Image.Resampling.BILINEAR) for i in images]
        fgr, pha = (np.asarray(image) for image in fitted)
        motion, points = self.motion(size), frame_points(size)
        colours, alphas = [], []
        for time in times:
            x, y = motion(time, points).float().numpy()
            colours.append(_tensor(cv2.remap(fgr, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)))
            alphas.append(_tensor(cv2.remap(pha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)))
        return torch.stack(colours), torch.stack(alphas)


@dataclass(frozen=True)
class StillClip:
    """A clip made of a still in motion over a background, when read.

    Attributes:
        name: Unique name inside the dataset.
        still: Still picture with alpha that is moved.
        background: Frames of the background; one is enough.
        num_frames: Frames of the clip.
        size: ``(H, W)`` of the clip.
    """

    name: str
    still: StillForeground
    background: Frames
    num_frames: int
    size: Size

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        """Decode, move and composite frames ``start:stop``. Raises :class:`DataError`."""
        window = frame_window(self, start, stop)
        foreground, alpha = self.still.read(window.start, window.stop, self.size)
        background = show(self.background, window.start, window.stop, self.size)
        return Clip(self.name, composite_uint8(foreground, alpha, background), alpha, foreground)

    def read_foreground(self, times: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :class:`ptq4vm.data.base.LayeredClip`."""
        return self.still.at(times, self.size)

    def read_background(self, times: Sequence[int]) -> Tensor:
        """See :class:`ptq4vm.data.base.LayeredClip`."""
        return show_at(self.background, times, self.size)


def _same_size(fgr: Path, pha: Path) -> tuple[Image.Image, Image.Image]:
    colours, alpha = open_rgb(fgr), open_alpha(pha)
    if colours.size != alpha.size:
        sizes = [f"{image.width}x{image.height}" for image in (colours, alpha)]
        raise DataError(f"image {pha} is {sizes[1]} but {fgr} is {sizes[0]}; bring both to one size")
    return colours, alpha


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(
        pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    )


def stills(folder: Path, fgr: Sequence[Path], pha: Sequence[Path], seed: int) -> tuple[StillForeground, ...]:
    """Pair stills by file name, whatever the suffix.

    Raises:
        DataError: One lacks its counterpart; the message names it and the folder.
    """
    colours, alphas = ({path.stem: path for path in paths} for paths in (fgr, pha))
    for kind, here, there in (("pha", alphas, colours), ("fgr", colours, alphas)):
        missing = [stem for stem in there if stem not in here]
        if missing:
            raise DataError(
                f"{folder / kind} has no {missing[0]!r} for {there[missing[0]]}; add it or remove the other"
            )
    return tuple(StillForeground(stem, path, alphas[stem], seed) for stem, path in colours.items())
