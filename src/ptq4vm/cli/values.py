"""Two grammars of commands: ``key=value`` arguments as a dataclass, and options in the usual way."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_args, get_type_hints

from ptq4vm.cli.frame import Task, show
from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_number

T = TypeVar("T")
HELP = {"-h", "--help", "help"}


@dataclass(frozen=True)
class KeyValues:
    """``key=value`` arguments; the task takes them as a dataclass and gives the exit status.

    Attributes:
        values: The dataclass; see :func:`parse_values`.
        usage: Text that ``--help`` shows.
        missing: What the message about a value that is not given says to write.
        alone: Whether the command does something without any argument, rather than show its help.
        first: Key of the value that the first argument may be by itself; empty where none may.
    """

    values: type[Any]
    usage: str
    missing: str = "..."
    alone: bool = False
    first: str = ""

    def call(self, name: str, arguments: Sequence[str], task: Task) -> int:
        """See :meth:`ptq4vm.cli.frame.Grammar.call`."""
        if HELP & set(arguments) or not (arguments or self.alone):
            return show(self.usage)
        if self.first and arguments and "=" not in arguments[0]:
            arguments = [f"{self.first}={arguments[0]}", *arguments[1:]]
        return int(task(parse_values(self.values, arguments, self.missing)) or 0)


@dataclass(frozen=True)
class Options:
    """Options with dashes; the task takes argparse's namespace and gives the exit status.

    Attributes:
        describe: Adds the options to a parser.
        about: What the command does, for ``--help``.
    """

    describe: Callable[[argparse.ArgumentParser], None]
    about: str | None

    def call(self, name: str, arguments: Sequence[str], task: Task) -> int:
        """See :meth:`ptq4vm.cli.frame.Grammar.call`. Raises SystemExit after ``--help`` and for what cannot be."""
        parser = argparse.ArgumentParser(prog=f"ptq4vm {name}", description=self.about)
        self.describe(parser)
        return int(task(parser.parse_args(list(arguments))) or 0)


def parse_values(cls: type[T], arguments: Sequence[str], missing: str = "...") -> T:
    """Build a dataclass of ``str``, ``bool``, ``int`` and ``float`` fields (each may be ``None``) from arguments.

    Args:
        cls: The dataclass; its fields without a default must be given.
        arguments: Texts of the form ``key=value``.
        missing: What the message about a field that is not given says to write.

    Raises:
        ConfigError: An argument is not ``key=value``, unknown, of another type, or missing.
    """
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read {argument!r}: write key=value")
        if key not in hints:
            raise ConfigError(f"{key} is unknown: use one of {', '.join(hints)}")
        values[key] = _value(key, text, hints[key])
    for field in fields(cls):  # type: ignore[arg-type]
        if field.default is MISSING and not values.get(field.name):
            raise ConfigError(f"{field.name} has no value: add {field.name}={missing} to the command")
    return cls(**values)


def _value(key: str, text: str, kind: Any) -> Any:
    """Text as a value of the annotated kind."""
    kinds = get_args(kind) or (kind,)
    if text in ("null", "auto") and types.NoneType in kinds:
        return None
    if kinds[0] is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key}={text} is neither true nor false")
        return text.lower() == "true"
    if kinds[0] is str:
        return text
    try:
        number = kinds[0](text)
    except ValueError as error:
        raise ConfigError(f"{key}={text} is no {'whole ' if kinds[0] is int else ''}number") from error
    check_number(key, number)
    return number


def parse_size(text: str) -> tuple[int, int]:
    """``(H, W)`` of ``512x288``. Raises :class:`ConfigError`."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise ConfigError(f"size={text}: write WIDTHxHEIGHT, such as 512x288")
    return int(found[2]), int(found[1])
