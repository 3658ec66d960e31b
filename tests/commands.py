"""For tests of whole runs: the command line in this process, small clips in every layout, a small RVM run."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from networks import random_rvm
from ptq4vm.cli.main import main

SIZE = (64, 96)
FRAMES = 6
TINY = (
    "data.pairs_per_clip=1",
    "preset.calibration.clips=4",
    "preset.calibration.clip_length=3",
    "preset.calibration.crop=[64,64]",
    "preset.calibration.batch_size=2",
    "preset.reconstruction.steps=2",
    "preset.reconstruction.batch_frames=6",
    "preset.gac.epochs=3",
    "preset.gac.burn_in=1",
    "preset.gac.state_weight=0.01",
)
"""Overrides that bring a run down to seconds."""


class Done(NamedTuple):
    """How a command ended; ``err`` ends with the warnings."""

    status: int
    out: str
    err: str

    def line(self) -> str:
        """The one line on stderr of a command that failed."""
        assert self.status == 1, f"{self.out}\n{self.err}"
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert "Traceback" not in self.out + self.err
        assert self.err.startswith("ptq4vm ")
        return self.err


@contextlib.contextmanager
def as_found(cache: Path) -> Iterator[list[warnings.WarningMessage]]:
    """Put back what a command changes in its process: logging, warnings, determinism; with a cache of its own.

    Gives the warnings that a user would see.
    """
    handlers, level = list(logging.root.handlers), logging.root.level
    raising, previous = logging.raiseExceptions, os.environ.get("PTQ4VM_CACHE")
    deterministic = torch.are_deterministic_algorithms_enabled()
    os.environ["PTQ4VM_CACHE"] = str(cache)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", hidden)  # as Python does by itself
            yield caught
    finally:
        os.environ.pop("PTQ4VM_CACHE")
        if previous is not None:
            os.environ["PTQ4VM_CACHE"] = previous
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        logging.raiseExceptions = raising
        torch.use_deterministic_algorithms(deterministic)


def draw_clip(folders: dict[str, Path], seed: int, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> None:
    """Write the asked parts (``com``, ``fgr``, ``pha``, ``background``) of a disc that moves over a smooth picture."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    fgr, background = (
        np.asarray(Image.fromarray(c).resize((size[1], size[0]), Image.Resampling.BICUBIC)) for c in coarse
    )
    rows, columns = np.mgrid[: size[0], : size[1]]
    for index in range(frames):
        distance = np.hypot(rows - size[0] * 0.55, columns - size[1] * 0.35 - 2 * index - seed)
        alpha = np.clip((size[0] * 0.3 - distance) / 4 + 0.5, 0, 1)[..., None]
        pictures = {
            "pha": (alpha[..., 0] * 255),
            "fgr": fgr,
            "background": background,
            "com": alpha * fgr + (1 - alpha) * background,
        }
        for kind, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[kind].round().astype(np.uint8)).save(folder / f"{index:04d}.png")


def draw_folder_clip(clip: Path, seed: int, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> None:
    """One clip in the folder layout."""
    draw_clip({kind: clip / kind for kind in ("com", "pha")}, seed, frames, size)


def draw_videomatte(root: Path, evaluation: bool = True) -> Path:
    """Two foregrounds and two backgrounds in VideoMatte's layout, and two clips to evaluate."""
    for seed, name in enumerate(("a", "b")):
        train = {"fgr": root / "train" / "fgr" / name, "pha": root / "train" / "pha" / name}
        draw_clip({**train, "background": root / "backgrounds" / name}, seed)
        if evaluation:
            draw_folder_clip(root / "eval" / "set" / name, seed + 10)
    return root


def save_weights(path: Path) -> Path:
    """Seeded random RVM whose alpha spreads over [0, 1], so that metrics tell networks apart."""
    network = random_rvm("mobilenetv3", "fast_guided_filter")
    raw: list[torch.Tensor] = []
    handle = network.project_mat.register_forward_hook(lambda m, args, out: raw.append(out))
    with torch.no_grad():
        network(torch.rand(1, 3, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
        mean, std = raw[0].mean((0, 1, 3, 4)), raw[0].std((0, 1, 3, 4))
        conv = network.project_mat.conv
        conv.weight.mul_((0.2 / std)[:, None, None, None])
        conv.bias.copy_((conv.bias - mean) * 0.2 / std + 0.5)
    handle.remove()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    return path


class Workplace(NamedTuple):
    """Clips, weights and cache that commands share."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Workplace:
        """Draw the clips and the weights."""
        draw_videomatte(root / "videomatte")
        save_weights(root / "weights.safetensors")
        return cls(root)

    @property
    def data(self) -> Path:
        return self.root / "videomatte"

    @property
    def weights(self) -> Path:
        return self.root / "weights.safetensors"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def run(self, command: str, *arguments: str) -> Done:
        """``ptq4vm COMMAND ARGUMENTS`` in this process."""
        out, err = io.StringIO(), io.StringIO()
        with as_found(self.cache) as warned, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([command, *arguments])
        seen = "".join(f"{w.category.__name__}: {w.message}\n" for w in warned)
        return Done(status, out.getvalue(), err.getvalue() + seen)

    def tiny(self, run_dir: Path, *arguments: str) -> list[str]:
        """Arguments of a run of seconds."""
        data = f"data.root={self.data}"
        return [f"model.weights={self.weights}", "data=videomatte", data, *TINY, f"run_dir={run_dir}", *arguments]

    def quantize(self, run_dir: Path, *arguments: str) -> Done:
        """A run of seconds."""
        return self.run("quantize", *self.tiny(run_dir, *arguments))

    def evaluate(self, run_dir: Path, *arguments: str) -> Done:
        """Evaluate on the clips that the runs evaluate on."""
        clips = f"data.root={self.data / 'eval'}"
        return self.run(
            "evaluate", f"model.weights={self.weights}", "data=folder", clips, f"run_dir={run_dir}", *arguments
        )


def difference(first: Path, second: Path) -> list[str]:
    """Tensors of two ``model.safetensors`` (given their folders) that are not bit for bit the same."""
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys() and len(one) > 100
    return [key for key in one if not torch.equal(one[key], two[key])]


def files(folder: Path) -> set[str]:
    """Files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def same(first: dict, second: dict, names: Sequence[str] = ("mad", "mse", "grad", "conn", "dtssd")) -> bool:
    """Whether two sets of metrics agree to 1e-6."""
    return all(abs(first[name] - second[name]) < 1e-6 for name in names)
