"""``key=value`` arguments of the commands that are no Hydra apps, as a dataclass."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_type_hints

from ptq4vm.errors import ConfigError

T = TypeVar("T")


def parse_values(cls: type[T], arguments: Sequence[str], missing: str = "...") -> T:
    """Build a dataclass of ``str``, ``bool``, ``int`` and ``float`` fields (each may be ``None``) from arguments.

    Args:
        cls: Fields without a default must be given.
        arguments: Each ``key=value``.
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
        return kinds[0](text)
    except ValueError as error:
        raise ConfigError(f"{key}={text} is no {'whole ' if kinds[0] is int else ''}number") from error
