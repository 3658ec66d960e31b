"""The configurations of the project, composed as the command line does it."""

from __future__ import annotations

from collections.abc import Iterator

import hydra
import pytest
from omegaconf import DictConfig

from ptq4vm import settings
from ptq4vm.cli.app import register_bits

FOLDER = settings.config_folder()
FILES = sorted(path.relative_to(FOLDER).with_suffix("") for path in FOLDER.glob("*/*.yaml"))


@pytest.fixture(scope="module")
def configurations() -> Iterator[None]:
    """Hydra finds the project's configurations."""
    register_bits()
    with hydra.initialize_config_dir(str(FOLDER), version_base="1.3"):
        yield


def compose(*overrides: str) -> DictConfig:
    """What ``quantize`` would be given."""
    return hydra.compose("config", overrides=["data.root=somewhere", *overrides])


def chosen(group: str, name: str) -> DictConfig:
    """The same with one choice of a group."""
    return compose(f"{group}={name}")


def names(group: str) -> list[str]:
    """Names of a group's choices."""
    found = [path.name for path in FILES if path.parts[0] == group]
    assert found, f"conf/{group} is empty"
    return found
