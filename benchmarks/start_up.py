"""Seconds and memory until the first frame is matted: run with ``python benchmarks/start_up.py``.

    python benchmarks/start_up.py [--checkpoint RUN_DIR] [--rounds 5]

Every measurement is a process of its own, in alternation: importing torch alone, `ptq4vm --help`, and `ptq4vm matte` of
one picture of 96x64 by an exported .onnx, an exported .xml and the same network in PyTorch. The network is a run
folder's, or the float one. The ratio to `import torch` is what counts: seconds depend on the disk and the machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import ptq4vm

SIZE = (64, 96)
MAIN = "from ptq4vm.cli.main import main; status = main(sys.argv[1:])"
# Linux alone tells; getrusage would tell the peak of the process that this one was forked from
PEAK = "sys.stderr.write(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
TORCH = "import torch"


def measure(program: str, arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a process."""
    began = time.perf_counter()
    command = [sys.executable, "-c", f"import sys; {program}; {PEAK}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stderr.split()[-2]) * 1024 / 1e6


def programs(folder: Path, checkpoint: str) -> dict[str, tuple[str, list[str]]]:
    """What is measured, by name."""
    picture = folder / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(picture)
    given = ["matte", f"input={picture}", f"out={folder / 'out.png'}", "overwrite=true"]
    found = {"import torch": (TORCH, list[str]()), "ptq4vm --help": (MAIN, ["--help"])}
    for name in ("a.onnx", "a.xml"):
        file = ptq4vm.export(checkpoint, folder / name, size=SIZE)
        found[f"matte {file.suffix}"] = (MAIN, [*given, f"checkpoint={file}"])
    found["matte in PyTorch"] = (MAIN, [*given, f"checkpoint={checkpoint}"])
    return found


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = programs(Path(folder), options.checkpoint)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        for turn in range(options.rounds + 1):  # the first brings files into memory
            for name, (program, arguments) in chosen.items():
                figures = measure(program, arguments)
                if turn:
                    found[name].append(figures)
    baseline = statistics.median(seconds for seconds, _ in found["import torch"])
    for name, each in found.items():
        seconds, peak = (statistics.median(values) for values in zip(*each, strict=True))
        print(f"{name:17s} {seconds:6.2f} s  {seconds / baseline:5.2f} of `import torch`  {peak:6.0f} MB")


if __name__ == "__main__":
    main()
