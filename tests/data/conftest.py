from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ClipMaker = Callable[..., Path]


def _disc(size: tuple[int, int], x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(rows - size[0] * 0.6, columns - x)
    return (np.clip((radius - distance) / 4 + 0.5, 0, 1) * 255).astype(np.uint8)


@pytest.fixture
def make_images() -> ClipMaker:
    """Writes ``count`` numbered images; kind is ``pha`` (a moving disc) or anything else (noise)."""

    def make(
        folder: Path, count: int = 5, size: tuple[int, int] = (48, 64), suffix: str = ".png", seed: int = 0
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        for index in range(count):
            if folder.parent.name == "pha" or folder.name == "pha":
                pixels = _disc(size, size[1] * 0.4 + index, size[0] * 0.25)
            else:
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:04d}{suffix}")
        return folder

    return make


@pytest.fixture
def make_clip(make_images: ClipMaker) -> ClipMaker:
    """Writes a clip in the folder layout: ``folder/{com,pha,fgr}``."""

    def make(folder: Path, kinds: tuple[str, ...] = ("com", "pha", "fgr"), **options: object) -> Path:
        for number, kind in enumerate(kinds):
            make_images(folder / kind, seed=number, **options)
        return folder

    return make
