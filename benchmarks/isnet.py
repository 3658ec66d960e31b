"""Exported files of IS-Net beside its package's own ONNX graphs in ONNX Runtime, in one process, in turns, one thread.

    python benchmarks/isnet.py MEDIUM.onnx SMALL.onnx CLIP_FOLDER FILE...   (files of 1024x1024)

Milliseconds are of a whole call: uint8 frame in, float alpha out. The difference is that of alphas from MEDIUM's, whose
weights are float16 and which is computed in float; SMALL is the package's own 8-bit graph (dynamic, ConvInteger).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ptq4vm.engines.registry import open_engine

_SIZE = 1024
_EVERY = 12
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def graph(file: str) -> Run:
    """A graph of the package as a function of frames, with the package's normalisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        src = (frame.transpose(2, 0, 1)[None].astype(np.float32) - 128) / 256
        return session.run(["output"], {"input": src})[0][0, 0]

    return run


def main(medium: str, small: str, clips: str, *files: str) -> None:
    """Print a row for each engine: median and quickest milliseconds, size, and how far its alphas are."""
    paths = sorted(Path(clips).rglob("com/*"))[::_EVERY]
    frames = [cv2.resize(cv2.imread(str(path))[..., ::-1], (_SIZE, _SIZE)) for path in paths]
    engines: dict[str, tuple[Run, int]] = {
        f"ONNX Runtime, the package's {Path(file).name}": (graph(file), Path(file).stat().st_size)
        for file in (medium, small)
    }
    for file in files:
        engine = open_engine(Path(file), threads=1)
        weight = sum(each.stat().st_size for each in engine.files(Path(file)))
        engines[f"{engine.title} {Path(file).name}"] = (lambda frame, e=engine: e.matte(frame).alpha, weight)
    times: dict[str, list[float]] = {name: [] for name in engines}
    far: dict[str, list[float]] = {name: [] for name in engines}
    for frame in frames:
        first: NDArray[np.float32] | None = None
        for name, (call, _) in engines.items():
            start = time.perf_counter()
            alpha = call(frame)
            times[name].append((time.perf_counter() - start) * 1e3)
            first = alpha if first is None else first
            far[name].append(float(np.abs(alpha - first).mean()))
    print("| engine and file | ms, median | ms, quickest | MB | mean difference of alpha, 1/255 |")
    print("| :-- | --: | --: | --: | --: |")
    for name, (_, weight) in engines.items():
        median, best = statistics.median(times[name]), min(times[name])
        print(f"| {name} | {median:.0f} | {best:.0f} | {weight / 1e6:.0f} | {np.mean(far[name]) * 255:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
