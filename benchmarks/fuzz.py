"""Commands handed values and files that they cannot work with.

    PYTHONPATH=src:tests python benchmarks/fuzz.py [--inputs 300] [--seed 0] [--commands matte,...] [--seconds 20]

Every input is a command in a process of its own (forked, so that torch is loaded once), with one or two values
exchanged for odd ones, or one of the files damaged that it reads (``benchmarks/damage.py``): of a finished run, its
state, clips, a film, weights, exported files. Counted are tracebacks, commands that outlast the limit, those that
succeed and those that are refused, and whether a file beside the command's own folders had changed in the end
(SHA-256 of the tree)."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from damage import damage
from PIL import Image

from commands import TINY, Workplace
from ptq4vm.cli.main import main
from ptq4vm.io import sha256

ODD = (
    *("", "-1", "0", "1e20", "nan", "inf", "-inf", "1e-9", "null", "true", "[]", "[1,2]", "{}", "{a: 1}", "x", "../x"),
    *("a" * 300, "1000000x1000000", "20000x20000", "${x}", "${oc.env:NOT}", "a\nb", "\u00e9", "4.5"),
)
STAGE = "schedule.stages.distill"
TRAINED = {
    "model": "bivm", "trainer": "cpu", "data.pairs_per_clip": "1", f"{STAGE}.clips": "4", f"{STAGE}.size": "[64,64]",
    f"{STAGE}.batch_size": "2", f"{STAGE}.epochs": "2", "schedule.stages.norms.epochs": "0",
}  # fmt: skip
"""Values of a training of seconds."""
KEYS = {
    "weights": ("variant", "--path"),
    "data check": ("data", "data.root", "data._target_", "run_dir"),
    "quantize": ("seed", "bits", "method", "data", "data.root", "model", "model.weights", "downsample_ratio", "preset",
                 "preset.reconstruction.memory_mib", "preset.calibration.clips", "preset.gac.affine_lr", "run_dir"),
    "evaluate": ("checkpoint", "data", "data.root", "data._target_", "downsample_ratio", "seed", "model", "run_dir"),
    "matte": ("input", "out", "checkpoint", "output", "fps", "threads", "downsample_ratio", "background", "size"),
    "export": ("checkpoint", "target", "out", "size", "downsample_ratio"),
    "export verify": ("checkpoint", "file", "frames", "clips", "clip", "threads"),
    "benchmark": ("files", "clips", "sizes", "threads", "rounds", "burst", "checkpoint"),
    "compose": ("data", "data.root", "static", "out", "size", "frames", "clips", "format", "seed"),
    "report": ("PATH", "--out", "--title"),
    "sensitivity": ("data", "data.root", "bits", "model.weights", "preset.calibration.clips", "seed", "run_dir"),
    "train": ("data", "data.root", "model", "model.arguments.binarizer", "model.weights", "augmentation", "schedule",
              "trainer", "teacher", "seed", "downsample_ratio", "num_workers", "memory_mib", "run_dir",
              f"{STAGE}.clips", f"{STAGE}.size", f"{STAGE}.norms", f"{STAGE}.epochs", f"{STAGE}.lr",
              f"{STAGE}.labels", "schedule.pretraining.root"),
    "web": ("file", "out", "serve", "port"),
}  # fmt: skip
READS = {
    "weights": ("weights.safetensors",),
    "data check": ("videomatte/eval/set/a/com/*.png", "videomatte/eval/set/a/pha/*.png"),
    "quantize": ("run/state/*", "run/*.json", "run/*.yaml", "run/*.safetensors", "weights.safetensors",
                 "videomatte/train/*/a/*.png"),
    "evaluate": ("run/quantizer.yaml", "run/model.safetensors", "videomatte/eval/set/a/*/*.png"),
    "matte": ("film.*", "film.*", "run/quantizer.yaml", "run/model.safetensors", "pictures/*"),
    "export": ("run/quantizer.yaml", "run/model.safetensors", "run/run.json", "run/state/progress.json"),
    "export verify": ("net.onnx", "net.xml", "net.bin", "run/quantizer.yaml", "run/model.safetensors"),
    "benchmark": ("net.onnx", "net.xml", "net.bin"),
    "compose": ("videomatte/train/*/a/*.png", "videomatte/backgrounds/a/*.png"),
    "report": ("run/*.json", "run/*.yaml", "run/sheets/*", "run/logs/**/*", "run/.hydra/*"),
    "sensitivity": ("weights.safetensors", "videomatte/train/*/a/*.png"),
    "train": ("trained/state/*", "trained/*.json", "trained/*.yaml", "trained/*.safetensors",
              "videomatte/train/*/a/*.png", "videomatte/eval/set/a/*/*.png"),
    "web": ("net.onnx", "net.onnx", "page/model.json", "page/*"),
}  # fmt: skip
"""Files that a command reads; of each input one is damaged, in a copy."""
CACHE = shutil.ignore_patterns("cache")
FOR_EVER = ("serve", "true")
"""What a command does until it is interrupted."""


def arguments_of(command: str, at: Path, out: Path, draw: random.Random) -> dict[str, str]:
    """A command's values that work, for the place in a folder ``at`` (see :func:`furnish`)."""
    data = {"data": "videomatte", "data.root": f"{at}/videomatte"}
    tiny = dict(item.split("=", 1) for item in TINY) | {"model.weights": f"{at}/weights.safetensors"}
    run, film = f"{at}/run", draw.choice([*sorted(map(str, at.glob("film.*"))), f"{at}/pictures"])
    net = draw.choice((f"{at}/net.onnx", f"{at}/net.xml"))
    clips = {"data": "folder", "data.root": f"{at}/videomatte/eval"}
    return {
        "weights": {"variant": "mobilenetv3", "--path": f"{at}/weights.safetensors"},
        "data check": {**clips, "run_dir": f"{out}/check"},
        "quantize": {**tiny, **data, "run_dir": run},
        "evaluate": {**clips, "checkpoint": run, "model.weights": f"{at}/weights.safetensors", "run_dir": f"{out}/e"},
        "matte": {"input": film, "checkpoint": run, "out": f"{out}/film.mp4"},
        "export": {"checkpoint": run, "target": "onnx", "out": f"{out}/n.onnx", "size": "96x64"},
        "export verify": {"checkpoint": run, "file": net, "frames": "1", "clips": "1"},
        "benchmark": {"files": net, "rounds": "1", "burst": "1", "warm_up": "0", "threads": "1"},
        "compose": {**data, "out": f"{out}/set", "size": "[32,32]", "frames": "2", "clips": "1", "split": "train"},
        "report": {"PATH": run, "--out": f"{out}/report"},
        "sensitivity": {**tiny, **data, "run_dir": f"{out}/s"},
        "train": {**TRAINED, **data, "run_dir": draw.choice((f"{at}/trained", f"{out}/t"))},
        "web": {"file": f"{at}/net.onnx", "out": draw.choice((f"{at}/page", f"{out}/page"))},
    }[command]


def words(command: str, values: dict[str, str]) -> list[str]:
    """Values as a command takes them."""
    plain = [value for key, value in values.items() if key in ("PATH", "variant")]
    dashed = [part for key, value in values.items() if key.startswith("--") for part in (key, value)]
    rest = [f"{key}={value}" for key, value in values.items() if key not in ("PATH", "variant") and key[:2] != "--"]
    return [*command.split(), *plain, *dashed, *rest]


def furnish(at: Path) -> None:
    """A finished tiny run, its clips and weights, films, pictures of every format, and exported files."""
    place = Workplace.make(at)
    cached = at / "cache" / "weights" / "rvm_mobilenetv3.safetensors"  # where train looks for the float network's
    cached.parent.mkdir(parents=True)
    shutil.copy(at / "weights.safetensors", cached)
    cached.with_name(f"{cached.name}.sha256").write_text(f"{sha256(cached)}  {cached.name}\n")
    trained = {**TRAINED, "data": "videomatte", "data.root": f"{at}/videomatte", "run_dir": f"{at}/trained"}
    for done in (
        place.quantize(at / "run"),
        place.run(*words("train", trained)),
        *(place.run("export", f"checkpoint={at}/run", f"target={name}", f"out={at}/net{suffix}", "size=96x64")
          for name, suffix in (("onnx", ".onnx"), ("openvino", ".xml"))),
        *(place.run("matte", f"input={at}/videomatte/eval/set/a/com", f"checkpoint={at}/run", f"out={at}/film.{suffix}")
          for suffix in ("mp4", "mkv", "webm", "mov")),
        place.run("web", f"file={at}/net.onnx", f"out={at}/page"),
    ):  # fmt: skip
        assert done.status == 0, done.err
    (at / "pictures").mkdir()
    picture = Image.open(at / "videomatte/eval/set/a/com/0000.png")
    for number, suffix in enumerate(("png", "jpg", "webp", "tiff", "bmp")):
        picture.save(at / "pictures" / f"{number:04d}.{suffix}")


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def child(arguments: list[str], folder: Path, answers: Queue[str]) -> None:
    """Run a command and tell how it ended."""
    os.setsid()  # so that what it starts can be ended with it
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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return "hang"
    return answers.get(timeout=5) if not process.exitcode else "died"


def fuzz(command: str, furnished: Path, inputs: int, seed: int, seconds: float) -> Counter[str]:
    """Hand a command that many inputs, values and files in turns; counts how it ended."""
    draw, ends = random.Random(f"{command}{seed}"), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="ptq4vm-fuzz-") as name:
        around, work = Path(name) / "around", Path(name) / "around" / "work"
        shutil.copytree(furnished, around / "kept", ignore=CACHE)
        (around / "a.txt").write_text("mine")
        before = digest(around)
        for number in range(inputs):
            at, out = work / "at", work / "out"
            shutil.copytree(furnished, at, ignore=CACHE)
            out.mkdir()
            values, how = arguments_of(command, at, out, draw), "values"
            if number % 2:
                found = [path for glob in [draw.choice(READS[command])] for path in sorted(at.glob(glob))]
                how = damage(
                    draw.choice([path for path in found if path.is_file()] or [at / "weights.safetensors"]), draw
                )
            else:
                odd = {key: draw.choice(ODD) for key in draw.sample(KEYS[command], draw.choice((1, 2)))}
                values |= dict(item for item in odd.items() if item != FOR_EVER)
            arguments = words(command, values)
            end = attempt(arguments, out, seconds)
            if end.partition(" ")[0] not in ("succeeded", "refused"):
                sys.stdout.write(f"{end}: {how}: {arguments}\n")
                sys.stdout.flush()
            ends[end.partition(" ")[0]] += 1
            shutil.rmtree(work)
        ends["foreign files changed"] = int(digest(around) != before)
    return ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--commands", default=",".join(KEYS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ptq4vm-furnished-") as place:
        os.environ["PTQ4VM_CACHE"] = f"{place}/cache"
        furnish(Path(place))
        for each in options.commands.split(","):
            ended = fuzz(each, Path(place), options.inputs, options.seed, options.seconds)
            sys.stdout.write(f"{each}: {dict(ended)}\n")
            sys.stdout.flush()
