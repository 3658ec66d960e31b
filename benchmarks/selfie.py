"""Exported files of selfie segmentation beside MediaPipe's own .tflite in LiteRT, in one process, in turns, one thread.

    python benchmarks/selfie.py GRAPH.tflite CLIP_FOLDER FILE...   (tests/ on PYTHONPATH; files of the graph's size)

Milliseconds are of a whole call: uint8 frame in, float alpha out. The difference is that of alphas from LiteRT's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import litert_graph
from ptq4vm.engines.registry import open_engine

_ROUNDS = 300


def litert(graph: Path) -> tuple[Callable[[NDArray[np.uint8]], NDArray[np.float32]], tuple[int, int]]:
    """MediaPipe's graph as a function of frames, and the size of the frames that it takes."""
    found: Any = litert_graph.interpreter(graph)
    _, height, width, _ = found.get_input_details()[0]["shape"]
    return lambda frame: litert_graph.run(found, frame.astype(np.float32) / np.float32(255)), (height, width)


def main(graph: str, clips: str, *files: str) -> None:
    """Print a row for each engine: median and quickest milliseconds, size, and how far its alphas are."""
    run, size = litert(Path(graph))
    paths = sorted(Path(clips).rglob("com/*"))[::3]
    frames = [cv2.resize(cv2.imread(str(path))[..., ::-1], size[::-1]) for path in paths]
    engines = {f"LiteRT {Path(graph).name}": (run, Path(graph).stat().st_size)}
    for file in files:
        engine = open_engine(Path(file), threads=1)
        weight = sum(each.stat().st_size for each in engine.files(Path(file)))
        engines[f"{engine.title} {Path(file).name}"] = (lambda frame, e=engine: e.matte(frame).alpha, weight)
    expected = [run(frame) for frame in frames]
    times: dict[str, list[float]] = {name: [] for name in engines}
    for index in range(_ROUNDS):
        for name, (call, _) in engines.items():
            start = time.perf_counter()
            call(frames[index % len(frames)])
            times[name].append((time.perf_counter() - start) * 1e3)
    print("| engine and file | ms, median | ms, quickest | KB | mean difference of alpha, 1/255 |")
    print("| :-- | --: | --: | --: | --: |")
    for name, (call, weight) in engines.items():
        far = np.mean([np.abs(call(frame) - alpha).mean() for frame, alpha in zip(frames, expected, strict=True)])
        median, best = statistics.median(times[name]), min(times[name])
        print(f"| {name} | {median:.2f} | {best:.2f} | {weight // 1000} | {far * 255:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
