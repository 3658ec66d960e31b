"""``every=N``: the network on every n-th frame, mattes of those between moved along the flow; what it costs and saves.

    python benchmarks/key_frames.py FILE --root ROOT [--every 1,2,3] [--threads 2]

``ROOT`` is a data set of two people or more and of backgrounds (``data=videomatte``); all are composited over their
backgrounds. For each N: MAD and dtSSD to the true alpha, and milliseconds a frame, the median of the clips' means.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

import ptq4vm
from ptq4vm import api
from ptq4vm.metrics.functional import dtssd_error
from ptq4vm.system.allocator import keep_freed_memory
from ptq4vm.system.cpu import this_cpu
from ptq4vm.video.propagating import PropagatingEngine


def main() -> None:
    """Print a line for each N."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--every", default="1,2,3")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    people = sorted(path.name for path in options.root.glob("train/fgr/*"))
    middle = len(people) // 2  # the other half stays to calibrate on, without which there is no data set
    halves = (people[:middle], people[middle:])
    sets = [api.load_data("videomatte", root=str(options.root), held_back=held).clips() for held in halves]
    clips = [clip for found in sets for clip in found.evaluation]
    print(f"CPU: {this_cpu()}, {options.threads} threads, {len(clips)} clips")
    engine = ptq4vm.open_engine(options.file, threads=options.threads)
    for every in map(int, options.every.split(",")):
        chosen = PropagatingEngine(engine, every)
        mads, changes, times = [], [], []
        for clip in clips:
            content = clip.read()
            frames = [np.ascontiguousarray(frame) for frame in content.frames.permute(0, 2, 3, 1).numpy()]
            chosen.reset()
            began = time.perf_counter()
            alphas = [chosen.matte(frame).alpha for frame in frames]
            times.append((time.perf_counter() - began) / len(frames) * 1000)
            found = torch.from_numpy(np.stack(alphas))[:, None]
            mads.append(float((found - content.alpha / 255).abs().mean()) * 1000)
            changes.append(float(dtssd_error(found, content.alpha / 255)))
        mad, change, spent = statistics.mean(mads), statistics.mean(changes), statistics.median(times)
        print(f"every={every}  MAD {mad:6.2f}  dtSSD {change:5.2f}  {spent:5.1f} ms  worst MAD {max(mads):.2f}")


if __name__ == "__main__":
    main()
