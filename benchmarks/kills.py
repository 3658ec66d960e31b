"""Runs killed at random moments and gone on with: ``PYTHONPATH=src:tests python benchmarks/kills.py``.

    [--kills 50] [--sweep 20] [--launchers basic,joblib] [--seed 0] [--crowd 8] [--same 4]

A tiny ``quantize`` is killed (SIGKILL to its process group) at moments drawn evenly from the time that an undisturbed
one takes, and begun again with the same command until it has been killed that often; whenever a run ends before its
kill, its folder is compared and removed, and the next begins. The same for a sweep of two seeds. Counted are folders
whose ``model.safetensors`` has other bytes than the undisturbed run's, and leftovers of writing. Then processes at
once on one flow cache, and on one run folder."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from commands import Workplace

LEFTOVERS = (".part-*", ".biq-*", ".v-*", ".*-????????.*")


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Begin ``ptq4vm quantize`` in a process group of its own."""
    program = "from ptq4vm.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "quantize", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def kill_after(arguments: list[str], seconds: float) -> bool:
    """Whether the command was killed, rather than at its end before."""
    process = start(arguments)
    try:
        said = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"a run failed: {said}")
    return False


def leftovers(folder: Path) -> list[str]:
    """Names of what writing has left."""
    return [path.name for pattern in LEFTOVERS for path in folder.rglob(pattern)]


def killed(
    arguments: list[str], folder: Path, whole: dict[str, bytes], kills: int, draw: random.Random
) -> Counter[str]:
    """Kill a command that often; see the module."""
    begun = time.monotonic()
    assert not kill_after(arguments, 3600)
    length, counts = time.monotonic() - begun, Counter[str]()
    while True:
        done = counts["kills"] >= kills
        if kill_after(arguments, 3600 if done else draw.uniform(0, length)):
            counts["kills"] += 1
            continue
        counts["runs that ended"] += 1
        found = tensors(folder)
        whole = whole or found
        counts["other bytes"] += found != whole
        counts["leftovers"] += len(leftovers(folder))
        if done:
            return counts
        shutil.rmtree(folder)


def at_once(commands: list[list[str]]) -> tuple[int, list[str]]:
    """How many of several processes succeed, and what the others say."""
    processes = [start(arguments) for arguments in commands]
    said = [process.communicate()[1].strip() for process in processes]
    return sum(not process.returncode for process in processes), [
        text for text, process in zip(said, processes, strict=True) if process.returncode
    ]


def tensors(folder: Path) -> dict[str, bytes]:
    """Bytes of the networks below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("model.safetensors")}


def main(options: argparse.Namespace) -> None:
    """Do all of it and print the counts."""
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="ptq4vm-kills-") as name:
        place = Workplace.make(Path(name) / "place")
        os.environ["PTQ4VM_CACHE"] = str(place.cache)
        whole = Path(name) / "whole"
        kill_after(place.tiny(whole), 3600)
        if options.kills:
            run = Path(name) / "run"
            counts = killed(place.tiny(run), run, tensors(whole), options.kills, draw)
            sys.stdout.write(f"one run: {dict(counts)}\n")
        for launcher in options.launchers.split(",") if options.sweep else []:
            sweep = Path(name) / launcher
            more = ["-m", "seed=0,1", f"hydra.sweep.dir={sweep}", f"hydra/launcher={launcher}"]
            arguments = [*(a for a in place.tiny(sweep) if not a.startswith("run_dir=")), *more]
            sys.stdout.write(f"sweep, {launcher}: {dict(killed(arguments, sweep, {}, options.sweep, draw))}\n")
        shutil.rmtree(place.cache)
        several = [Path(name) / f"crowd-{number}" for number in range(options.crowd)]
        good, said = at_once([place.tiny(folder) for folder in several])
        same = sum(tensors(folder) == tensors(whole) for folder in several)
        sys.stdout.write(f"one cache, {options.crowd} processes: {good} succeed, {same} the same bytes {said}\n")
        good, said = at_once([place.tiny(Path(name) / "shared")] * options.same)
        lines = sum(text.count("\n") == 0 and "in use by another process" in text for text in said)
        sys.stdout.write(f"one folder, {options.same} processes: {good} succeed, {lines} refused in one line\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key, value in (("kills", 50), ("sweep", 20), ("seed", 0), ("crowd", 8), ("same", 4)):
        parser.add_argument(f"--{key}", type=int, default=value)
    parser.add_argument("--launchers", default="basic,joblib")
    main(parser.parse_args())
