"""Engines of exported files by name, and which of them opens a file. Needs neither torch nor an engine's package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptq4vm.errors import ConfigError
from ptq4vm.system.registry import Registry

if TYPE_CHECKING:
    from ptq4vm.engines.step import StepEngine

ENGINES: Registry[type[StepEngine]] = Registry("engine", "ptq4vm.engines.files")
"""Classes by the name that ``engine=`` gives; packages from outside add theirs by the group ``ptq4vm.engines``."""


def engines_for(file: Path) -> tuple[str, ...]:
    """Names of the engines that open a file, by its suffix in any case; the usual one first, none for other files."""
    suffix = file.suffix.lower()
    able = [name for name in ENGINES.names() if suffix in ENGINES[name].suffixes]
    return tuple(sorted(able, key=lambda name: ENGINES[name].suffixes.index(suffix)))


def engine_class(file: Path, engine: str = "auto") -> type[StepEngine]:
    """The class that opens a file.

    Args:
        file: Need not be there.
        engine: A name of :data:`ENGINES`, or ``auto``: the usual one for the file's suffix.

    Raises:
        ConfigError: No engine opens such files, or this one is unknown or does not.
    """
    able = engines_for(file)
    if not able:
        suffixes = " nor ".join(dict.fromkeys(kind.suffixes[0] for kind in ENGINES.values()))
        raise ConfigError(f"{file} is neither {suffixes}: give a file that `ptq4vm export` wrote")
    chosen = ENGINES[able[0] if engine == "auto" else engine]
    if file.suffix.lower() not in chosen.suffixes:
        raise ConfigError(f"engine={engine} does not open {file}: it opens {', '.join(chosen.suffixes)}")
    return chosen


def open_engine(file: Path, threads: int | None = None, engine: str = "auto", **options: Any) -> StepEngine:
    """Open an exported file.

    Args:
        file: From ``ptq4vm export``.
        threads: CPU threads; as many as the engine likes when not given.
        engine: A name of :data:`ENGINES`, or ``auto``: the usual one for the file's suffix.
        options: More that this engine's class takes, such as ``precision="bf16"``.

    Raises:
        ConfigError: No engine opens such files, or not this one, its package is not installed, or a value is out of
            range.
        ExportError: The file is missing, damaged or not one of ours.
    """
    return engine_class(file, engine).open(file, threads, **options)
