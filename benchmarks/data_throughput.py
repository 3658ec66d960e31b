"""Images/s of the data module against plain decoding of the same files with as many workers.

    python benchmarks/data_throughput.py [--root PATH] [--rounds 5] [--workers 0 1 2]

PATH is in VideoMatte's layout, with `eval` (`../shared/clips` is); without it one of noisy pictures, 512x288, is made.
Plain decoding opens each file with Pillow and makes an array of it, in a DataLoader with as many workers: once it drops
the pixels, and once it hands them over as they are, uint8, stacked, as a loader must. All take turns. Medians over
rounds, with the least and the most, by the clock, and by the processor time of this process and its workers, which
others on the machine disturb less. No flow is asked for.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.compositing import ping_pong
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.system.allocator import keep_freed_memory

SIZE = (288, 512)
BATCH, LENGTH, CHUNK = 4, 4, 8


class Plain(Dataset[Any]):
    """The files of each item, decoded; their pixels, colour and gray apart, where they are handed over."""

    def __init__(self, items: Sequence[Sequence[Path]], hand_over: bool) -> None:
        self.items = items
        self.hand_over = hand_over

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        arrays = [np.asarray(Image.open(path)) for path in self.items[index]]
        if not self.hand_over:
            return len(arrays)
        kinds = ([array for array in arrays if array.ndim == dims] for dims in (2, 3))
        return [torch.from_numpy(np.stack(kind)) for kind in kinds if kind]


def draw(root: Path, clips: int = 4, frames: int = 24) -> Path:
    """Blurred noise as people, sharper noise as backgrounds, JPEG of quality 92."""
    generator = np.random.default_rng(0)
    for clip in range(clips):
        for frame in range(frames):
            noise = cv2.GaussianBlur(generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 2) * 4
            matte = np.zeros(SIZE, np.uint8)
            cv2.circle(matte, (200 + 4 * frame, 170), 100, 255, -1)
            pictures = {"fgr": noise, "pha": cv2.GaussianBlur(matte, (0, 0), 2)}
            folders = {kind: root / "train" / kind / f"{clip:04d}" for kind in pictures}
            folders |= {f"eval {kind}": root / "eval" / "set" / f"{clip:04d}" / kind for kind in ("com", "pha", "fgr")}
            folders["background"] = root / "backgrounds" / f"{clip:04d}"
            for kind, folder in folders.items():
                folder.mkdir(parents=True, exist_ok=True)
                picture = pictures["pha" if kind.endswith("pha") else "fgr"]
                Image.fromarray(picture).save(folder / f"{frame:04d}.jpg", quality=92)
    return root


def sample_files(module: MattingDataModule) -> list[list[Path]]:
    """What is decoded for each calibration sample."""
    items = []
    for sample in module.samples:
        clip: Any = module.clip_sets.calibration[sample.clip]
        times = range(sample.start, sample.stop)
        files = [clip.background[ping_pong(time, len(clip.background))] for time in times]
        items.append([*files, *clip.fgr[sample.start : sample.stop], *clip.pha[sample.start : sample.stop]])
    return items


def chunk_files(module: MattingDataModule) -> list[list[Path]]:
    """What is decoded for each chunk of evaluation."""
    items = []
    for clip in module.evaluation_clips:
        lists = [files for files in (getattr(clip, kind) for kind in ("com", "pha", "fgr")) if files is not None]
        for start in range(0, clip.num_frames, CHUNK):
            items.append([path for files in lists for path in files[start : start + CHUNK]])
    return items


def spent() -> float:
    """Seconds of processor time of this process and its workers, those that have ended too."""
    children = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(t.user + t.system for t in children)


def measure(loader: Iterable[Any]) -> tuple[float, float]:
    """Seconds by the clock and of the processor for an epoch."""
    wall, processor = time.perf_counter(), spent()
    for _ in loader:
        pass
    return time.perf_counter() - wall, spent() - processor


def compare(name: str, images: int, loaders: dict[str, Iterable[Any]], rounds: int) -> None:
    """All in turns, the data module last; the first round, which fills the file cache, does not count."""
    taken = [[measure(loader) for loader in loaders.values()] for _ in range(rounds + 1)][1:]
    for clock, label in enumerate(("clock", "processor")):
        rates = [[images / round_[side][clock] for round_ in taken] for side in range(len(loaders))]
        ours = statistics.median(rates[-1])
        print(f"{name}, by the {label}, images/s:")
        for kind, side in zip(loaders, rates, strict=True):
            median = statistics.median(side)
            spread = f"{median:6.0f} ({min(side):.0f} to {max(side):.0f})"
            print(f"  {kind:12s} {spread}, data module {100 * ours / median:.0f}%", flush=True)


def main() -> None:
    """Measure training samples and evaluation chunks, each with 0, 1 and 2 workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=32, help="samples of an epoch")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or draw(Path(folder))
        for workers in options.workers:
            module = MattingDataModule(
                VideoMatteDataset(root),
                clip_length=LENGTH,
                crop=(256, 256),
                clips=options.clips,
                batch_size=BATCH,
                num_workers=workers,
                eval_chunk=CHUNK,
                memory_mib=0,
            )
            module.setup()
            samples, chunks = sample_files(module), chunk_files(module)
            for name, items, ours, batch in (
                ("training samples", samples, module.train_dataloader(), BATCH),
                ("evaluation", chunks, module.test_dataloader(), None),
            ):
                kept = workers > 0 and name == "training samples"  # as the data module's own loaders
                plain = {
                    kind: DataLoader(Plain(items, over), batch_size=batch, num_workers=workers, persistent_workers=kept)
                    for kind, over in (("dropped", False), ("handed over", True))
                }
                images = sum(map(len, items))
                compare(f"{name}, {workers} workers", images, {**plain, "data module": ours}, options.rounds)


if __name__ == "__main__":
    main()
