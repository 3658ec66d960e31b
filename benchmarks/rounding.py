"""How far a quantized network is from itself where it rounds otherwise, and its exported files from it.

    python benchmarks/rounding.py RUN FILE [FILE ...] [--frames 5] [--clip DIR]

Mean difference of alpha, in 1/255, over the first frames of the run's first evaluation clip: of the network in PyTorch
without oneDNN, in float64, and with all that is rounded to codes larger or smaller by a small share of itself; of the
files; and how far any layer of a file is from what PyTorch computes from the file's own results before it."""

from __future__ import annotations

import argparse
import copy
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.backends import mkldnn

from ptq4vm import api
from ptq4vm.api.clips import recorded_clips
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.engines.registry import open_engine
from ptq4vm.exporting.deviations import nudged, stepwise
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.clips import fitted
from ptq4vm.types import States


def alphas(
    network: MattingNetwork, frames: torch.Tensor, ratio: float, context: AbstractContextManager[None] | None = None
) -> np.ndarray:
    """Alpha ``(N, H, W)`` of frames ``(N, 3, H, W)`` uint8, in the network's own type."""
    found: list[np.ndarray] = []
    states: States = ()
    kind = next(network.parameters()).dtype
    with torch.no_grad(), context or nullcontext():
        for frame in frames:
            output = network.matte(frame[None].to(kind) / 255, states, ratio)
            states = output.states
            found.append(output.alpha[0, 0].double().numpy())
    return np.stack(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--clip")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = api.load_checkpoint(options.run)
    engines = [open_engine(Path(file), 1) for file in options.files]
    source = FolderClip.from_folder(Path(options.clip)) if options.clip else recorded_clips(options.run, None)[0]
    clip = fitted(source.read(0, min(options.frames, source.num_frames)), engines[0].frame_size)
    ratio = engines[0].downsample_ratio
    expected = alphas(network, clip.frames, ratio)
    contexts = {
        f"{by:+.1e} before rounding": nudged(network, by)
        for power in (-23, -21, -20)
        for by in (2.0**power, -(2.0**power))
    }
    rows = {name: alphas(network, clip.frames, ratio, context) for name, context in contexts.items()}
    with mkldnn.flags(enabled=False):
        rows["without oneDNN"] = alphas(network, clip.frames, ratio)
    rows["float64"] = alphas(copy.deepcopy(network).double(), clip.frames, ratio)
    for file, engine in zip(options.files, engines, strict=True):
        rows[file] = np.stack([engine.matte(frame.permute(1, 2, 0).numpy()).alpha for frame in clip.frames])
    for name, found in rows.items():
        sys.stdout.write(f"{name:32s} {np.abs(found - expected).mean() * 255:.3f}/255\n")
    for file, engine in zip(options.files, engines, strict=True):
        worst = max(
            (step for steps in stepwise(network, engine, clip.frames, ratio) for step in steps), key=lambda s: s.error
        )
        sys.stdout.write(f"{file}: layer by layer at most {worst.error:.2%} ({worst.path})\n")


if __name__ == "__main__":
    main()
