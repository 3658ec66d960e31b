"""Frames larger than an exported file: milliseconds and mattes against PyTorch FP32 and a file of the frame's own size.

    python benchmarks/large_frames.py RUN_DIR [--suffix .xml] [--clips ROOT] [--rounds 8] [--threads 2]

The run is exported once at 512x288. For 1280x720 (ratio 0.4), 1920x1080 (0.25) and 3840x2160 (0.125) the step from a
frame's codes to those of its composite on green is timed in alternation: PyTorch FP32 at that ratio, this file, and a
file exported for that size and ratio (the filter inside the graph). With ``--clips``, a folder of clips in the layout
``<clip>/{com,pha}``, the MAD of both files is compared over the first frames of each, brought to the size; 176x144 and
a portrait of 720x1280 are among the sizes then, and the file runs both re-shaped to the frames' aspect and padded
(``size=file``). ``--rounds 0`` leaves the times out. Peak memory is that of a process of its own for each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import ptq4vm
from ptq4vm.engines.base import MattingEngine
from ptq4vm.media.frames import Frame
from ptq4vm.system.allocator import keep_freed_memory
from ptq4vm.system.cpu import this_cpu
from ptq4vm.video.composing import Colour, composer

FILE_SIZE = (288, 512)
TIMED = {(720, 1280): 0.4, (1080, 1920): 0.25, (2160, 3840): 0.125}
MATTED = {
    **{(144, 176): 1.0, (480, 640): 0.8, (720, 720): 0.5, (1280, 720): 0.4, (1080, 2560): 0.2, (1080, 1920): 0.25},
    **{(2160, 3840): 0.125},
}
COMPOSE = composer("composite", Colour((120, 255, 155)))
FRAMES = 8

Codes = NDArray[np.uint8]


def step(engine: MattingEngine, frame: Codes) -> object:
    """A frame's codes to those of its composite, as ``matte`` does it."""
    return COMPOSE(Frame(0, frame, Fraction(0)), [engine.deferred(frame)])


def opened(name: str, file: str, ratio: float, threads: int) -> MattingEngine:
    """One of what is compared."""
    if name == "PyTorch FP32":
        return ptq4vm.open_engine("fp32", downsample_ratio=ratio, threads=threads)
    return ptq4vm.open_engine(file, threads=threads)


def milliseconds(engines: dict[str, MattingEngine], frames: list[Codes], rounds: int) -> dict[str, list[float]]:
    """Times of a step, in alternation, after one warm-up each."""
    found: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            began = time.perf_counter()
            for frame in frames[:2]:
                step(engine, frame)
            if turn:
                found[name].append((time.perf_counter() - began) / 2 * 1000)
    return found


def peak_megabytes(name: str, file: str, size: tuple[int, int], ratio: float, threads: int) -> float:
    """Peak memory of a process that mattes three frames."""
    given = [__file__, "--memory", name, file, f"{size[0]}x{size[1]}", str(ratio), str(threads)]
    done = subprocess.run([sys.executable, *given], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def memory(name: str, file: str, size: str, ratio: str, threads: str) -> None:
    """What the process of :func:`peak_megabytes` does."""
    height, width = (int(part) for part in size.split("x"))
    engine = opened(name, file, float(ratio), int(threads))
    for seed in range(3):
        step(engine, np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024 / 1e6)


def portrait(size: tuple[int, int], count: int) -> list[Codes]:
    """Frames of a moving figure."""
    from ptq4vm.exporting.verify import moving_portrait  # brings torch, which would count as memory

    frames = moving_portrait(size, count).frames.permute(0, 2, 3, 1).numpy()
    return [np.ascontiguousarray(frame) for frame in frames]  # as a reader gives them


def mad(engine: MattingEngine, frames: list[Codes], alphas: list[NDArray[np.float32]]) -> float:
    """Mean absolute difference to the true alpha, times 1000; the first frame begins the clip."""
    engine.reset()
    return statistics.mean(
        float(np.abs(engine.matte(frame).alpha - alpha).mean()) * 1000
        for frame, alpha in zip(frames, alphas, strict=True)
    )


def enlarged(clip: object, size: tuple[int, int]) -> tuple[list[Codes], list[NDArray[np.float32]]]:
    """The first frames of a clip and their alphas, brought to a size; cut to its aspect first."""
    found = clip.read(0, FRAMES)  # type: ignore[attr-defined]
    height, width = found.frames.shape[-2:]
    scale = min(height / size[0], width / size[1])
    rows, columns = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    part = np.s_[top : top + rows, left : left + columns]

    def brought(image: Codes) -> Codes:
        way = cv2.INTER_AREA if rows > size[0] else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(np.ascontiguousarray(image[part]), size[::-1], interpolation=way), np.uint8)

    frames = [brought(frame) for frame in found.frames.permute(0, 2, 3, 1).numpy()]
    alphas = [np.divide(brought(alpha), 255, dtype=np.float32) for alpha in found.alpha[:, 0].numpy()]
    return frames, alphas


def main() -> None:
    """Print a line for each size."""
    keep_freed_memory()  # as every command does
    if sys.argv[1:2] == ["--memory"]:
        memory(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--suffix", default=".xml")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"CPU: {this_cpu()}, {options.threads} threads, {options.rounds} rounds, min/median ms")
    with tempfile.TemporaryDirectory() as folder:

        def export(size: tuple[int, int], ratio: float) -> str:
            file = Path(folder) / f"{size[1]}x{size[0]}{options.suffix}"
            if not file.exists():
                ptq4vm.export(options.run, file, size=size, downsample_ratio=ratio)
            return str(file)

        small = export(FILE_SIZE, 1.0)
        if options.rounds:
            timed(small, export, options)
        if options.clips is not None:
            compared(small, export, options)


def timed(small: str, export: Callable[[tuple[int, int], float], str], options: argparse.Namespace) -> None:
    """Milliseconds and memory at every size of :data:`TIMED`."""
    for size, ratio in TIMED.items():
        files = {"PyTorch FP32": "", "this file": small, "its own file": export(size, ratio)}
        engines = {name: opened(name, file, ratio, options.threads) for name, file in files.items()}
        found = milliseconds(engines, portrait(size, 2), options.rounds)
        base = statistics.median(found["PyTorch FP32"])
        for name, times in found.items():
            peak = peak_megabytes(name, files[name], size, ratio, options.threads)
            middle = statistics.median(times)
            title = f"{size[1]}x{size[0]} {name}"
            print(f"{title:24s} {min(times):7.1f} /{middle:7.1f}  {base / middle:5.2f}x  {peak:5.0f} MB", flush=True)


def compared(small: str, export: Callable[[tuple[int, int], float], str], options: argparse.Namespace) -> None:
    """MAD of the 512x288 file, and of one of the frame's own size, at every size of :data:`MATTED`."""
    from ptq4vm.data.datasets.folder import find_clips

    threads = options.threads
    for size, ratio in MATTED.items():
        engines = [
            ptq4vm.open_engine(small, threads=threads),
            ptq4vm.open_engine(small, threads=threads, size="file"),
            ptq4vm.open_engine(export(size, ratio), threads=threads),
        ]
        each = [[mad(engine, *enlarged(clip, size)) for engine in engines] for clip in find_clips(options.clips)]
        this, padded, own = (statistics.mean(values) for values in zip(*each, strict=True))
        found = f"MAD {this:.3f}, padded {padded:.3f}, with its own file {own:.3f}"
        print(f"{size[1]}x{size[0]} {found}: {this / own - 1:+.2%}, {padded / own - 1:+.2%}", flush=True)


if __name__ == "__main__":
    main()
