"""The frame around every command: its help, and how errors, warnings and interruptions are told."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from ptq4vm.errors import PTQ4VMError, one_line
from ptq4vm.system.allocator import keep_freed_memory

FAILED, INTERRUPTED, UNREAD, TERMINATED = 1, 130, 141, 143
"""Exit statuses: after an error of one line; after Ctrl-C, a closed pipe and SIGTERM as a shell has them."""

Task = Callable[[Any], "float | int | None"]
"""Does a command with its values. What it gives is the grammar's to understand: the exit status, but for Hydra."""


class Grammar(Protocol):
    """How the arguments of a command become the values that its task takes."""

    def call(self, name: str, arguments: Sequence[str], task: Task) -> int:
        """Show the help that is asked for, or read the values and have the task do its work.

        Returns:
            The exit status.

        Raises:
            PTQ4VMError: A value is missing, unknown or out of range; or the task's own.
        """
        ...


class Lines(logging.Handler):
    """Warnings as lines on stderr, above a progress bar, which takes stderr's place while it is shown.

    Args:
        name: Name of the command, which begins each line.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's message as one line to stderr."""
        tell(self._name, record.getMessage())


@dataclass(frozen=True)
class Command:
    """A command of ``ptq4vm``.

    Attributes:
        name: One or two words, as they are written after ``ptq4vm``.
        grammar: How its values are read.
        task: What it does with them.
        after: What is said when it is interrupted or terminated, besides that it was.
        log: From its name to what shows the log; ``None`` where the grammar sees to that.
        own_signals: Whether SIGTERM is left to the grammar.
    """

    name: str
    grammar: Grammar
    task: Task
    after: str = ""
    log: Callable[[str], logging.Handler] | None = Lines
    own_signals: bool = False


class Terminated(SystemExit):
    """Ends the process after SIGTERM, raised so that what is open is closed on the way."""


def run(command: Command, arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        command: What to run.
        arguments: What was written after its name.

    Returns:
        Exit status: the command's; 1 after an error that was reported in one line; 130 after an interruption, 143 after
        a SIGTERM; 141, in silence, where nobody reads what is printed. Anything unforeseen is raised.
    """
    logging.raiseExceptions = False  # a log file on a full disk is not worth a traceback
    keep_freed_memory()
    with _logged(command), contextlib.nullcontext() if command.own_signals else _terminable():
        try:
            try:
                return command.grammar.call(command.name, arguments, command.task)
            finally:
                sys.stdout.flush()
        except (PTQ4VMError, OSError) as error:
            if is_unread(error):
                return unread()
            tell(command.name, one_line(error))
            return FAILED
        except KeyboardInterrupt as stop:
            tell(command.name, str(stop) or f"interrupted{command.after}", before="\n")
            return INTERRUPTED
        except SystemExit as stop:
            if is_unread(stop):
                return unread()
            if not isinstance(stop, Terminated):
                raise  # how argparse ends
            tell(command.name, f"terminated{command.after}")
            return TERMINATED


def tell(name: str, line: str, before: str = "") -> None:
    """Write a line about a command to stderr; nothing where nobody reads it."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{before}ptq4vm {name}: {line}\n")


def is_unread(error: BaseException) -> bool:
    """Whether an error says that stdout was closed (``| head -1``). Rich ends the process on it."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and _is_closed(sys.stdout)


def _is_closed(stream: TextIO) -> bool:
    """Whether the other end of a pipe is closed: another pipe, to another process, may be what broke."""
    try:
        watch = select.poll()
        watch.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in watch.poll(0))
    except (AttributeError, OSError, ValueError):  # no such question on this system, or no file: take it for yes
        return True


def unread() -> int:
    """Let what is still to be written to stdout go nowhere: Python writes it when it ends. Gives the exit status."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return UNREAD


def show(text: str) -> int:
    """Write to stdout; gives the exit status."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        return unread()
    return 0


@contextlib.contextmanager
def _logged(command: Command) -> Iterator[None]:
    """Show what the package logs."""
    if command.log is None:
        yield
        return
    handler, logger = command.log(command.name), logging.getLogger("ptq4vm")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(handler.level or level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that files which are half written are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: types.FrameType | None) -> None:
        raise Terminated(TERMINATED)

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
