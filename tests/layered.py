"""A clip whose foreground, alpha and background are known apart, drawn without files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ptq4vm.data.compositing import composite_uint8
from ptq4vm.types import Clip


class Apart:
    """A disc that moves over a smooth picture; the foreground's red channel is its alpha.

    The number of a frame can be read off the background's blue channel.
    """

    def __init__(self, name: str = "apart", count: int = 24, size: tuple[int, int] = (48, 64)) -> None:
        self.name = name
        self.num_frames = count
        self.size = size

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        times = range(start, self.num_frames if stop is None else stop)
        foreground, alpha = self.read_foreground(times)
        frames = composite_uint8(foreground, alpha, self.read_background(times))
        return Clip(self.name, frames, alpha, foreground)

    def read_foreground(self, times: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows, columns = self._grid()
        alpha = torch.stack(
            [((10 - torch.hypot(columns - 22 - t / 2, rows - 24)) / 4 + 0.5).clamp(0, 1)[None] for t in times]
        )
        texture = torch.stack([(columns * 9 + rows * 5) % 256, (columns * 3 + rows * 8) % 256])
        colours = torch.cat([alpha * 255, texture.expand(len(times), -1, -1, -1)], dim=1)
        return colours.to(torch.uint8), (alpha * 255).to(torch.uint8)

    def read_background(self, times: Sequence[int]) -> Tensor:
        rows, columns = self._grid()
        wave = 100 + 60 * torch.sin(columns / 5) + 60 * torch.cos(rows / 4)
        return torch.stack([torch.stack([wave, 255 - wave, torch.full_like(wave, t)]) for t in times]).to(torch.uint8)

    def _grid(self) -> tuple[Tensor, Tensor]:
        rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in self.size), indexing="ij")
        return rows, columns


class Whole:
    """The same, of which only the composite and its alpha can be had."""

    def __init__(self, name: str = "whole", count: int = 24, size: tuple[int, int] = (48, 64)) -> None:
        self.name = name
        self.num_frames = count
        self.size = size
        self.read = Apart(name, count, size).read
