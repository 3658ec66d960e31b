"""Commands handed values that they cannot work with: run with ``python benchmarks/fuzz.py``.

    python benchmarks/fuzz.py [--inputs 300] [--seed 0] [--commands matte,...] [--seconds 20]

Every input is a command with one or two values exchanged for odd ones, in a process of its own (forked, so that torch
is loaded once). Counted are tracebacks, commands that outlast the limit, those that succeed and those that are refused,
and whether a file beside the command's own folder had changed in the end (SHA-256 of the tree).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import multiprocessing
import random
import sys
import tempfile
import traceback
from collections import Counter
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ptq4vm.cli.main import main

ODD = (
    *("", "-1", "0", "1e20", "nan", "inf", "-inf", "1e-9", "null", "true", "[]", "[1,2]", "{}", "{a: 1}", "x", "../x"),
    *("a" * 300, "1000000x1000000", "20000x20000", "${x}", "${oc.env:NOT}", "a\nb", "\u00e9", "4.5"),
)
KEYS = {
    "quantize": ("seed", "bits", "method", "data", "data.root", "model", "model.weights", "downsample_ratio", "preset",
                 "preset.reconstruction.memory_mib", "preset.calibration.clips", "preset.gac.affine_lr", "run_dir"),
    "evaluate": ("checkpoint", "data", "data.root", "data._target_", "downsample_ratio", "seed", "model", "run_dir"),
    "matte": ("input", "out", "checkpoint", "output", "fps", "threads", "downsample_ratio", "background", "size"),
    "export": ("checkpoint", "target", "out", "size", "downsample_ratio"),
    "benchmark": ("files", "clips", "sizes", "threads", "frames", "checkpoint"),
}  # fmt: skip


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def child(arguments: list[str], folder: Path, answers: Queue[str]) -> None:
    """Run a command and tell how it ended."""
    torch.set_num_threads(1)
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(arguments)
            ending = "succeeded" if status == 0 else "refused"
        except SystemExit as stop:
            ending = "succeeded" if not stop.code else "refused"
        except BaseException:  # whatever a command lets through is what is looked for
            ending = "traceback " + traceback.format_exc().strip().splitlines()[-1]
    answers.put("traceback (printed)" if "Traceback" in out.getvalue() else ending)


def attempt(arguments: list[str], folder: Path, seconds: float) -> str:
    """How a command ends in a forked process: as :func:`child` tells, or ``hang``, or ``died``."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(arguments, folder, answers))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return "hang"
    return answers.get(timeout=5) if not process.exitcode else "died"


def fuzz(command: str, inputs: int, seed: int, seconds: float) -> Counter[str]:
    """Hand a command that many odd values; counts how it ended."""
    draw, ends = random.Random(f"{command}{seed}"), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="ptq4vm-fuzz-") as name:
        around, work = Path(name) / "around", Path(name) / "work"
        around.mkdir()
        work.mkdir()
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(around / "a.png")
        (around / "quantizer.yaml").write_text("format: 1\n")
        before = digest(around)
        for _ in range(inputs):
            keys = draw.sample(KEYS[command], draw.choice((1, 2)))
            values = {"input": str(around / "a.png"), "data.root": str(around), "checkpoint": str(around)}
            values = {key: value for key, value in values.items() if key in KEYS[command]}
            values |= {key: draw.choice(ODD) for key in keys}
            arguments = [command, *(f"{key}={value}" for key, value in values.items())]
            end = attempt(arguments, work, seconds)
            if end.partition(" ")[0] not in ("succeeded", "refused"):
                sys.stdout.write(f"{end}: {arguments}\n")
            ends[end.partition(" ")[0]] += 1
        ends["foreign files changed"] = int(digest(around) != before)
    return ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--commands", default=",".join(KEYS))
    options = parser.parse_args()
    for each in options.commands.split(","):
        sys.stdout.write(f"{each}: {dict(fuzz(each, options.inputs, options.seed, options.seconds))}\n")
        sys.stdout.flush()
