"""Demo clips in the cache that were cut off or removed are made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ptq4vm.data.demo import build


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a cut picture": lambda clip: cut(clip / "com" / "0001.png"),
    "an empty picture": lambda clip: (clip / "pha" / "0000.png").write_bytes(b"") and None,
    "no picture": lambda clip: (clip / "fgr" / "0001.png").unlink(),
    "a cut flow": lambda clip: cut(clip / "flow.safetensors"),
    "no flow": lambda clip: (clip / "flow.safetensors").unlink(),
    "no clip": lambda clip: shutil.rmtree(clip),
    "nothing": lambda clip: shutil.rmtree(clip.parents[1]),
}


def quick(folder: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """Clips without anybody, in no time."""
    for recipe in build.RECIPES:
        clip = folder / recipe.group / recipe.name
        for index in range(count):
            build._write_images(clip, index, {kind: torch.zeros(1, *size).byte() for kind in ("com", "pha", "fgr")})
        save_file({"flow": torch.zeros(count - 1, 2, *size)}, clip / "flow.safetensors")


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_demo_clips_are_made_again(
    tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_build_all", quick)
    target = tmp_path / "demo"
    build.build_demo(target, 2, (4, 6), 0)
    whole = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    stamp = (target / "calibration").stat().st_ino
    build.build_demo(target, 2, (4, 6), 0)
    assert (target / "calibration").stat().st_ino == stamp, "whole clips are left as they are"
    damage(target / "evaluation" / build.RECIPES[-1].name)
    build.build_demo(target, 2, (4, 6), 0)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == whole
