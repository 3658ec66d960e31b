"""The frame around every command, with commands that do as they are told."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest

from ptq4vm import api
from ptq4vm.cli import benchmark, export, matte
from ptq4vm.cli.frame import Command, run
from ptq4vm.cli.main import COMMANDS, FURTHER, USAGE
from ptq4vm.cli.values import KeyValues, Options
from ptq4vm.errors import DataError


@dataclass(frozen=True)
class Values:
    """Of a command for tests."""

    path: str
    count: int = 1


def command(task: Callable[[Values], int | None], **more: str) -> Command:
    return Command("try", KeyValues(Values, "usage: try\n"), task, **more)  # type: ignore[arg-type]


def fail(error: BaseException) -> Callable[[Values], None]:
    def task(values: Values) -> None:
        raise error

    return task


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame turns off what logging says about its own failures."""
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)


def test_values_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Values] = []
    assert run(command(seen.append), ["path=a", "count=3"]) == 0
    assert seen == [Values("a", 3)]
    assert run(command(lambda values: 7), ["path=a"]) == 7
    assert run(command(seen.append), []) == run(command(seen.append), ["path=a", "--help"]) == 0
    assert len(seen) == 1 and capsys.readouterr() == ("usage: try\n" * 2, "")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("a.png is damaged:\n  replace it"), 1, "ptq4vm try: a.png is damaged: replace it\n"),
        (OSError(28, "No space left on device"), 1, "ptq4vm try: no space left on device; free some space\n"),
        (KeyboardInterrupt(), 130, "\nptq4vm try: interrupted; go on\n"),
        (KeyboardInterrupt("interrupted twice"), 130, "\nptq4vm try: interrupted twice\n"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str) -> None:
    assert run(command(fail(error), after="; go on"), ["path=a"]) == status
    assert capsys.readouterr() == ("", line)


def test_what_is_unforeseen_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run(command(fail(ZeroDivisionError())), ["path=a"])
    with pytest.raises(SystemExit):
        run(command(fail(SystemExit(3))), ["path=a"])


def test_sigterm_ends_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(command(lambda values: os.kill(os.getpid(), signal.SIGTERM)), ["path=a"]) == 143
    assert capsys.readouterr().err == "ptq4vm try: terminated\n" and signal.getsignal(signal.SIGTERM) is before


def test_warnings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("ptq4vm.somewhere")
    assert run(command(lambda values: logger.warning("%s is odd", values.path)), ["path=a.mp4"]) == 0
    assert capsys.readouterr().err == "ptq4vm try: a.mp4 is odd\n"
    assert not logging.getLogger("ptq4vm").handlers


def test_options_go_through_the_same_frame(capsys: pytest.CaptureFixture[str]) -> None:
    def describe(parser: ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=1)

    def task(options: Namespace) -> int:
        if options.count < 1:
            raise DataError("too few")
        return int(options.count)

    with_options = Command("count", Options(describe, "Counts."), task)
    assert run(with_options, ["--count", "4"]) == 4
    assert run(with_options, ["--count", "0"]) == 1
    assert capsys.readouterr().err == "ptq4vm count: too few\n"
    with pytest.raises(SystemExit) as stop:
        run(with_options, ["--help"])
    assert stop.value.code == 0 and "usage: ptq4vm count [-h]" in capsys.readouterr().out


PRINTS = """
import sys
from rich.console import Console
from ptq4vm.cli.frame import Command, run
from ptq4vm.cli.values import Options

def plainly(options):
    for _ in range(100_000):
        sys.stdout.write("a line\\n")

def richly(options):
    for _ in range(1000):
        Console().print("a line")

sys.exit(run(Command("print", Options(lambda parser: None, None), {task}), []))
"""


@pytest.mark.parametrize("task", ["plainly", "richly"])
def test_nobody_reads_what_is_printed(task: str) -> None:
    program = [sys.executable, "-c", PRINTS.format(task=task)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 141


def test_nobody_reads_the_table_of_a_hydra_command() -> None:
    program = [sys.executable, "-c", "from ptq4vm.cli.main import main; raise SystemExit(main())", "evaluate", "--help"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


def test_the_usage_describes_every_command_in_one_column() -> None:
    lines = [line[2:] for line in USAGE.splitlines() if line.startswith("  ")]
    columns = {len(line) - len(line.lstrip()) for line in lines if line.startswith(" ")}
    for name in COMMANDS:
        line = next(line for line in lines if line.startswith(f"{name} "))
        columns.add(len(name) + len(line[len(name) :]) - len(line[len(name) :].lstrip()))
    assert len(columns) == 1


def test_every_command_is_described_in_its_module() -> None:
    for name, module in {**COMMANDS, **FURTHER}.items():
        __import__(f"ptq4vm.cli.{module}")
        found = [each for each in sys.modules[f"ptq4vm.cli.{module}"].COMMANDS if each.name == name]
        assert len(found) == 1, name


@pytest.mark.parametrize(
    ("values", "function"),
    [
        (matte.MatteOptions, api.matte),
        (export.ExportOptions, api.export),
        (export.VerifyOptions, api.verify),
        (benchmark.BenchmarkOptions, api.benchmark),
    ],
)
def test_commands_and_functions_have_the_same_defaults(values: type, function: Callable[..., object]) -> None:
    parameters = inspect.signature(function).parameters
    written = {"size": (288, 512), "sizes": ()}  # as text on the command line
    for field in fields(values):
        default = parameters[field.name].default
        if field.name in written and default != field.default:  # matte's size is the same text in both
            assert default == written[field.name]
        elif field.default is not MISSING:
            assert default == field.default, field.name
    assert set(parameters) - {field.name for field in fields(values)} <= {"stop", "on_frame", "on_step", "busy"}


@pytest.mark.parametrize("command", ["weights", "quantize", "matte", "report"])
def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path, command: str) -> None:
    """In a process of its own: numerical libraries would end it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    start = "import os, sys; from ptq4vm.cli.main import main; os.rmdir(os.getcwd()); sys.exit(main(sys.argv[1:]))"
    arguments = ["input=a.mp4", "out=b.mp4"] if command == "matte" else ["a"] if command == "report" else []
    done = subprocess.run(
        [sys.executable, "-c", start, command, *arguments], cwd=gone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"ptq4vm {command}: the working folder has been removed: change into another (cd)\n"
