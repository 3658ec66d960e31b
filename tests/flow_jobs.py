"""A job that asks for optical flow, as one of several processes do: importable by them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptq4vm.flow.base import TwoWayFlow
from ptq4vm.flow.cache import ClipFlow, FlowCache
from ptq4vm.types import Clip

CLIPS, SEGMENTS = 3, 3
LIMIT_MIB = 0.04


class Source:
    """Frames in memory."""

    def __init__(self, frames: Tensor, name: str = "clip") -> None:
        self.frames = frames
        self.name = name
        self.reads = 0

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        return (self.frames.shape[2], self.frames.shape[3])

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        self.reads += 1
        return Clip(self.name, self.frames[start:stop], self.frames[start:stop, :1])


class Counting:
    """Flow that tells which frames it belongs to; writes a letter to ``log`` for each call."""

    def __init__(self, log: Path, name: str = "counting", seconds: float = 0) -> None:
        self.log = log
        self.name = name
        self.seconds = seconds

    def estimate(self, frames: Tensor) -> TwoWayFlow:
        time.sleep(self.seconds)
        with self.log.open("a") as file:
            file.write("x")
        x = frames[1:, :2].float() / 1000
        return TwoWayFlow(x, -x)

    @property
    def calls(self) -> int:
        return len(self.log.read_text()) if self.log.exists() else 0


def make_source(count: int = 6, seed: int = 0) -> Source:
    generator = torch.Generator().manual_seed(seed)
    return Source(torch.randint(0, 256, (count, 3, 12, 16), dtype=torch.uint8, generator=generator))


def bits(flow: ClipFlow) -> list[str]:
    """Of both directions and their masks."""
    return [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in (*flow.get(), *flow.get_forward())]


def ask(cache: FlowCache, first: int = 0) -> list[list[str]]:
    """All clips, beginning with number ``first``."""
    found = {}
    for seed in sorted(range(CLIPS), key=lambda seed: (seed - first) % CLIPS):
        found[seed] = bits(cache.open(make_source(count=20, seed=seed)))
    return [found[seed] for seed in range(CLIPS)]


def job(folder: Path, number: int, barrier: Any, answers: Any) -> None:
    """Ask for all clips in a folder without a limit, then in one that is too small for them."""
    for name, limit in (("whole", None), ("small", LIMIT_MIB)):
        cache = FlowCache(folder / name, Counting(folder / f"{name} calls", seconds=0.05), segment=8, limit_mib=limit)
        barrier.wait(300)
        answer = ask(cache, number)
        answers.put((name, answer, cache.misses))
