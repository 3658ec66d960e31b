"""Names to what they stand for: by decorator, by the modules of a package, by entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ptq4vm.errors import ConfigError
from ptq4vm.system import registry
from ptq4vm.system.registry import Registry


def toy() -> str:
    return "toy"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with one module that registers ``own`` where its registry is found."""
    name = f"toys_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from ptq4vm.system.registry import Registry\nTOYS = Registry('toy', '{name}')\n"
    )
    (folder / "own.py").write_text(f"from {name} import TOYS\n\n@TOYS.register('own')\ndef own(): return 'own'\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def toys(package: str) -> Registry[Callable[[], str]]:
    import importlib

    return importlib.import_module(package).TOYS  # type: ignore[no-any-return]


def test_modules_of_the_package_register_themselves(toys: Registry[Callable[[], str]]) -> None:
    assert toys.names() == ("own",) and toys["own"]() == "own" and "own" in toys and "other" not in toys


def test_a_decorator_adds(toys: Registry[Callable[[], str]]) -> None:
    assert toys.register("toy")(toy) is toy
    assert toys["toy"] is toy and toys.names() == ("own", "toy") and toy in toys.values()


def test_unknown_and_doubled_names(toys: Registry[Callable[[], str]]) -> None:
    with pytest.raises(ConfigError, match="toy=other is unknown: use one of own"):
        toys["other"]
    toys.register("toy")(toy)
    toys.register("toy")(toy)  # a module that is imported again
    with pytest.raises(ConfigError, match="registered twice"):
        toys.register("toy")(test_a_decorator_adds)


def test_entry_points(
    toys: Registry[Callable[[], str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = (
        EntryPoint("outside", f"{__name__}:toy", "ptq4vm.toys"),
        EntryPoint("broken", "no_such_package:toy", "ptq4vm.toys"),
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "ptq4vm.toys" else ())
    assert toys["outside"]() == "toy"
    assert "broken" not in toys and "no_such_package" in caplog.text
