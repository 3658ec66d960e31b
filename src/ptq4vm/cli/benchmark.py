"""``ptq4vm benchmark``: time per frame, memory and error of engines and files, measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ptq4vm import api
from ptq4vm.cli.frame import Command
from ptq4vm.cli.values import KeyValues
from ptq4vm.report.benchmark import benchmark_table

USAGE = """usage: ptq4vm benchmark [files=A.onnx,B.xml] [KEY=VALUE...]

  files            exported files, separated by commas
  checkpoint=fp32  what PyTorch runs: fp32, run folders (fake-quantized), or both: fp32,RUN_DIR; null for nothing
  precision=f32    of what OpenVINO computes in float: f32, bf16, or both: f32,bf16
  sizes            512x288,1280x720@0.375: width x height, and the downsample ratio where it is not the usual one
                   (default: the sizes of the files, else 512x288)
  clips            folder of clips with com/ and pha/: their frames are timed, and MAD is measured on them
  threads          CPU threads of every engine (default: all that this process may use)
  rounds=20        turns of every engine
  burst=5          frames that are timed in a turn
  warm_up=5        frames of every engine before the first turn
  memory=true      measure memory, each engine in a process of its own
  out              folder for benchmark.json and benchmark.md
  model=rvm_mobilenetv3, weights=null   the float network, and a file with its weights
"""


@dataclass(frozen=True)
class BenchmarkOptions:
    """Values of the command; see ``USAGE``."""

    files: str | None = None
    checkpoint: str | None = "fp32"
    precision: str = "f32"
    sizes: str | None = None
    clips: str | None = None
    threads: int | None = None
    rounds: int = 20
    burst: int = 5
    warm_up: int = 5
    memory: bool = True
    out: str | None = None
    model: str = "rvm_mobilenetv3"
    weights: str | None = None


def benchmark(options: BenchmarkOptions) -> None:
    """Measure and print tables."""
    sizes = [part.strip() for part in (options.sizes or "").split(",") if part.strip()]
    with _progress() as on_step:
        results = api.benchmark(**{**asdict(options), "sizes": sizes}, on_step=on_step)
    console = Console()
    for setting, rows in results.items():
        console.print(benchmark_table(setting, rows, options.clips))
    if options.out is not None:
        console.print(f"written to {options.out}", soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """A bar; called with what is measured, and how many such steps there are."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("benchmark", total=None)

        def advance(what: str, total: int) -> None:
            progress.update(task, advance=1, total=total, description=what)

        yield advance


COMMANDS = (Command("benchmark", KeyValues(BenchmarkOptions, USAGE, missing="PATH", alone=True), benchmark),)
