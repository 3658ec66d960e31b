"""Names to what they stand for: filled by a decorator, by the modules of a package, and by packages from outside."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from ptq4vm.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")
Entry = TypeVar("Entry")


class Registry(Generic[T]):
    """Everything of one kind that can be chosen by name.

    What ptq4vm brings registers itself when its module is imported: every module (or folder) of ``package`` is, when a
    name is first asked for. An installed package adds its own by an entry point of the group ``group``, whose value is
    imported likewise and may register itself or be what its name stands for.

    Args:
        kind: Word for what is registered, in messages: ``quantizer``.
        package: Name of ptq4vm's own package, such as ``ptq4vm.quant.quantizers``.
        group: Group of the entry points; ``ptq4vm.<kind>s`` when not given.
    """

    def __init__(self, kind: str, package: str, group: str = "") -> None:
        self.kind = kind
        self._package = package
        self._group = group or f"ptq4vm.{kind.replace(' ', '_')}s"
        self._entries: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorate what ``name`` shall stand for.

        Raises:
            ConfigError: Something else has the name.
        """

        def keep(entry: Entry) -> Entry:
            known = self._entries.setdefault(name, cast(T, entry))
            if known is not entry and _place(known) != _place(entry):  # a module may be read twice
                raise ConfigError(f"{self.kind} {name!r} is registered twice: by {_place(known)} and {_place(entry)}")
            self._entries[name] = cast(T, entry)
            return entry

        return keep

    def names(self) -> tuple[str, ...]:
        """All names, in alphabetical order."""
        self._discover()
        return tuple(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        """Tell whether something is registered under a name."""
        self._discover()
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """The entry that is registered under a name.

        Raises:
            ConfigError: Nothing is; the line names those that there are.
        """
        if name not in self._entries:
            self._discover()
        if name not in self._entries:
            raise ConfigError(f"{self.kind}={name} is unknown: use one of {', '.join(self.names())}")
        return self._entries[name]

    def values(self) -> tuple[T, ...]:
        """Everything registered, in the order of :meth:`names`."""
        return tuple(self._entries[name] for name in self.names())

    def find(self, target: object) -> T | None:
        """What is registered and lies at ``target``, such as ``package.module.Class``; ``None`` where nothing does.

        The target itself is never imported, so that a file can name an entry but have nothing else called.
        """
        return next((entry for entry in self.values() if _place(entry) == target), None)

    def _discover(self) -> None:
        if self._complete:
            return
        self._complete = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        for point in entry_points(group=self._group):
            try:
                entry = point.load()
            except ImportError as error:  # somebody else's package: it must not end what does not need it
                log.warning("%s %s of %s cannot be imported: %s", self.kind, point.name, point.value, error)
                continue
            self._entries.setdefault(point.name, entry)


def _place(entry: object) -> str:
    return f"{getattr(entry, '__module__', '')}.{getattr(entry, '__qualname__', type(entry).__name__)}"
