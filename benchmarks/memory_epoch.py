"""Start-up and memory on a tree as large as VideoMatte240K, made of links to a few tiny pictures.

    python benchmarks/memory_epoch.py [--clips 100] [--frames 300] [--epoch 240000] [--workers 0]

The default is a tree of 60 thousand links; `--clips 479 --frames 501` is that of the data set itself. Every frame of
the epoch is decoded from its own path: foreground, alpha and background.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from ptq4vm.data.base import ClipSets
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.datasets.videomatte import VideoMatteDataset

SIZE = (18, 32)
CHUNK = 4


class Streamed:
    """A data set whose calibration clips are evaluated too, so that an epoch is all of its frames."""

    def __init__(self, root: Path) -> None:
        self.dataset = VideoMatteDataset(root)

    def clips(self) -> ClipSets:
        """Calibration clips, twice."""
        found = self.dataset.clips()
        return ClipSets(found.calibration, found.calibration)


def draw(root: Path, clips: int, frames: int) -> int:
    """Links in VideoMatte240K's layout; returns how many."""
    generator = np.random.default_rng(0)
    real = root / "real"
    real.mkdir()
    for index in range(4):
        Image.fromarray(generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(real / f"fgr{index}.jpg")
        Image.fromarray(generator.integers(1, 256, SIZE, dtype=np.uint8)).save(real / f"pha{index}.jpg")
    folders = [root / "train" / kind / f"{clip:04d}" for kind in ("fgr", "pha") for clip in range(clips)]
    folders += [root / "backgrounds" / f"{clip:04d}" for clip in range(5)]
    for folder in folders:
        folder.mkdir(parents=True)
        kind = "pha" if folder.parent.name == "pha" else "fgr"
        for frame in range(frames):
            (folder / f"{frame:05d}.jpg").symlink_to(real / f"{kind}{frame % 4}.jpg")
    return len(folders) * frames


def memory() -> float:
    """MiB of this process and its workers; pages that they share are counted once."""
    process = psutil.Process()
    return sum(each.memory_full_info().pss for each in [process, *process.children(recursive=True)]) / 2**20


def main() -> None:
    """Make the tree, start, read an epoch, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--epoch", type=int, default=240_000)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"{draw(root, options.clips, options.frames)} links", flush=True)
        wall, cpu = time.perf_counter(), time.process_time()
        module = MattingDataModule(
            Streamed(root), None, CHUNK, clips=64, num_workers=options.workers, eval_chunk=CHUNK, memory_mib=64
        )
        module.setup()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"start-up, 64 samples drawn: {wall:.2f} s, of which {cpu:.2f} s on the processor; {memory():.0f} MiB")
        for batch in module.train_dataloader():
            assert batch.frames.shape[2] == 3
        done, marks, began = 0, [0.05, 0.25, 0.5, 0.75, 1.0], time.perf_counter()
        while done < options.epoch:
            for chunk in module.test_dataloader():
                done += len(chunk.frames)
                if marks and done >= marks[0] * options.epoch:
                    rate = done / (time.perf_counter() - began)
                    print(f"{done} frames: {memory():.1f} MiB, {rate:.0f} frames/s", flush=True)
                    marks.pop(0)
                if done >= options.epoch:
                    break


if __name__ == "__main__":
    main()
