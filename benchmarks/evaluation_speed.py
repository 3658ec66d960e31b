"""Frames/s of `ptq4vm evaluate pred=DIR true=DIR` against one process that follows the definitions plainly.

    python benchmarks/evaluation_speed.py [--frames 24] [--clips 4] [--workers 2]

Both read the same PNG files of 512x288 from a temporary folder; the values are compared too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from ptq4vm.evaluation.folders import evaluate_folders

SIZE = (288, 512)


def plain_loop(pred: Path, true: Path) -> list[dict[str, float]]:
    """The five metrics frame by frame, each as its definition reads, in float32 with OpenCV."""
    rows = []
    for folder in sorted(true.iterdir()):
        before = None
        for path in sorted((folder / "pha").iterdir()):
            truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
            alpha = (
                cv2.imread(str(pred / folder.name / "pha" / path.name), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
            )
            error = alpha - truth
            rows.append(
                {
                    "mad": 1e3 * np.abs(error).mean(),
                    "mse": 1e3 * (error**2).mean(),
                    "grad": ((gradient(alpha) - gradient(truth)) ** 2).sum() / 1e3,
                    "conn": connectivity(alpha, truth),
                    "dtssd": 0.0 if before is None else 1e2 * np.sqrt(((error - before) ** 2).mean()),
                }
            )
            before = error
    return rows


def gradient(alpha: np.ndarray, sigma: float = 1.4) -> np.ndarray:
    """Magnitude of the Gaussian derivative with full two-dimensional kernels."""
    radius = int(np.ceil(sigma * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * sigma * 0.01))))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    kernel = -x * np.exp(-(x**2 + y**2) / (2 * sigma**2))
    kernel /= np.sqrt((kernel**2).sum())
    stretched = cv2.normalize(alpha, None, 1.0, 0.0, cv2.NORM_MINMAX)
    parts = (cv2.filter2D(stretched, -1, k, borderType=cv2.BORDER_REPLICATE) for k in (kernel, kernel.T))
    return np.sqrt(sum(part**2 for part in parts))


def connectivity(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Labels the intersection anew at each of ten thresholds."""
    floor = np.ones_like(truth)
    open_ = np.ones(truth.shape, bool)
    for step in range(1, 11):
        both = ((alpha >= step / 10) & (truth >= step / 10)).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(both, connectivity=4)
        largest = labels == 1 + int(np.argmax(stats[1:, -1])) if len(stats) > 1 else np.zeros(truth.shape, bool)
        floor[open_ & ~largest] = (step - 1) / 10
        open_ &= largest
    far = [a - floor for a in (alpha, truth)]
    phi = [1 - d * (d >= 0.15) for d in far]
    return float(np.abs(phi[0] - phi[1]).sum() / 1e3)


def draw(root: Path, clips: int, frames: int) -> tuple[Path, Path]:
    """Soft blobs that move, and predictions that are blurred and noisy."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for clip in range(clips):
        for frame in range(frames):
            distance = np.hypot(rows - 170, (columns - 200 - 4 * frame - 20 * clip) * 1.3)
            truth = np.clip((90 - distance + 12 * np.sin(columns / 9)) / 12 + 0.5, 0, 1)
            noise = cv2.GaussianBlur(rng.standard_normal(SIZE), (0, 0), 3)
            alpha = np.clip(cv2.GaussianBlur(truth, (0, 0), 2) + noise, 0, 1)
            for kind, image in (("true", truth), ("pred", alpha)):
                path = root / kind / f"{clip:04d}" / "pha" / f"{frame:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.rint(image * 255).astype(np.uint8))
    return root / "pred", root / "true"


def main() -> None:
    """Measure both and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    count = options.frames * options.clips
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        pred, true = draw(Path(folder), options.clips, options.frames)
        results = {}
        for name in ("plain loop", "ptq4vm", "plain loop", "ptq4vm"):  # the first round warms the file cache
            wall, cpu = time.perf_counter(), time.process_time()
            if name == "ptq4vm":
                values = evaluate_folders(pred, true, workers=options.workers, progress=False).mean
            else:
                rows = plain_loop(pred, true)
                values = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            results[name] = values, count / wall, count / cpu
        for name, (values, by_wall, by_cpu) in results.items():
            shown = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
            print(f"{name:10s} {by_wall:7.1f} frames/s, {by_cpu:7.1f} frames a second of one core: {shown}")
        plain, ours = results["plain loop"], results["ptq4vm"]
        worst = max(abs(ours[0][key] / plain[0][key] - 1) for key in plain[0])
        print(f"{ours[1] / plain[1]:.1f} times as fast; values within {worst:.1e}")


if __name__ == "__main__":
    main()
