"""Every choice of ``conf/`` gives the values written down in ``fixtures/choices.json``, by Hydra and without it.

Files inherit from one another, so that a change of one changes others. Where that is meant, write the values down
again and read the difference: ``python tests/cli/test_resolved_choices.py`` (``src`` and ``tests`` on PYTHONPATH).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from ptq4vm import settings
from ptq4vm.cli.app import register_bits

FOLDER = settings.config_folder()
FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "choices.json"
GROUPS = ("augmentation", "bits", "data", "flow", "logger", "method", "model", "preset", "trainer")
OVERLAYS = ("stage", "target")
"""Groups whose choices go into ``method``."""


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def configurations() -> Iterator[None]:
    with opened():
        yield


def opened() -> Any:
    register_bits()
    return hydra.initialize_config_dir(str(FOLDER), version_base="1.3")


def composed(*overrides: str, config: str = "config") -> DictConfig:
    return hydra.compose(config, overrides=list(overrides), return_hydra_config=True)


def values(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)


def _overlaid(group: str, name: str) -> dict[str, Any]:
    return {method: values(composed(f"method={method}", f"+{group}={name}").method) for method in files("method")}


def _experiment(name: str, scale: str) -> dict[str, Any]:
    """What an experiment changes: the schedule, the values at the top as they are written, and what is swept."""
    cfg = composed("data=folder", f"+experiment={name}", f"scale={scale}")
    top = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(top, dict)
    return {
        "preset": values(cfg.preset),
        "trainer": values(cfg.trainer),
        "top": {key: top[key] for key in ("baseline", "run_dir", "stage_cache")},
        "params": values(cfg.hydra.sweeper.params),
    }


def found(place: str) -> Any:
    """Resolved values of ``group=name``, ``experiment=name scale=name`` or ``compose data=name``."""
    first, _, last = place.partition(" ")
    if first == "compose":
        return values(composed(last, config="compose").data)
    group, _, name = first.partition("=")
    if group == "experiment":
        return _experiment(name, last.removeprefix("scale="))
    return _overlaid(group, name) if group in OVERLAYS else values(composed(first)[group])


PLACES = [f"{group}={name}" for group in (*GROUPS, *OVERLAYS) for name in files(group)]
PLACES += [f"experiment={name} scale={scale}" for name in files("experiment") for scale in files("scale")]
PLACES += [f"compose data={name}" for name in files("data")]


def written_down() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(FIXTURE.read_text(encoding="utf-8"))
    return stored


def of_today(value: Any, where: str) -> Any:
    """What was written down before a key was renamed, where a choice has the new key."""
    if not isinstance(value, dict):
        return value
    now = {}
    for key, item in value.items():
        old = f"{where}.{key}="
        new = settings.renamed(old)
        now[key if new == old else new.rpartition(".")[2][:-1]] = of_today(item, f"{where}.{key}")
    return now


@pytest.mark.parametrize("place", PLACES)
def test_choices_resolve_to_what_is_written_down(place: str) -> None:
    group, _, name = place.partition("=")
    expected = written_down()[place]
    if group in OVERLAYS:
        expected = {method: of_today(item, "method") for method, item in expected.items()}
    else:
        expected = of_today(expected, group)
    assert found(place) == expected
    if group in GROUPS:
        assert settings.read_choice(group, name) == expected, "read without Hydra"


if __name__ == "__main__":
    with opened():
        lines = [f"{json.dumps(place)}: {json.dumps(found(place))}" for place in PLACES]
    FIXTURE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
