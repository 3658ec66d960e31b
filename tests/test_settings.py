from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptq4vm import settings
from ptq4vm.errors import ConfigError


@dataclass(frozen=True)
class Example:
    count: int
    rate: float = 1.0
    name: str = "a"
    flag: bool = False
    size: tuple[int, int] | None = None
    paths: tuple[str, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigError(f"count={self.count}: use 0 or more")


def test_values_take_the_annotated_types() -> None:
    values = {"count": 3, "rate": 2, "size": [4, 5], "paths": ["x", "y"], "table": {"a": 1}, "flag": True}
    built = settings.settings(Example, values, "here")
    assert built == Example(3, 2.0, "a", True, (4, 5), ("x", "y"), {"a": 1})
    assert isinstance(built.rate, float) and isinstance(built.size, tuple)
    assert settings.settings(Example, {"count": 0, "size": None}, "here").size is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 1, "cuont": 1}, "here.cuont is unknown: use one of count, rate"),
        ({}, "here is not complete"),
        ({"count": -1}, "here: count=-1: use 0 or more"),
        ({"count": "1"}, "here.count='1' has the wrong type: give a whole number"),
        ({"count": True}, "here.count=True has the wrong type"),
        ({"count": 1.0}, "here.count=1.0 has the wrong type"),
        ({"count": None}, "here.count=None has the wrong type"),
        ({"count": 1, "rate": "fast"}, "here.rate='fast' has the wrong type: give a number"),
        ({"count": 1, "flag": 1}, "here.flag=1 has the wrong type: give true or false"),
        ({"count": 1, "name": 1}, "here.name=1 has the wrong type: give a text"),
        ({"count": 1, "size": [1]}, "here.size=[1] has the wrong type: give [a whole number, a whole number] or null"),
        ({"count": 1, "size": [1, "b"]}, "here.size[1]='b' has the wrong type"),
        ({"count": 1, "paths": "x"}, "here.paths='x' has the wrong type: give [a text, ...]"),
        ({"count": 1, "paths": ["x", 2]}, "here.paths[1]=2 has the wrong type"),
    ],
)
def test_wrong_values(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.settings(Example, values, "here")
    assert words in str(caught.value)


def test_choices_refer_to_values_at_the_top() -> None:
    assert settings.read_choice("data", "videomatte", seed=5)["seed"] == 5
    assert settings.read_choice("data", "videomatte")["seed"] == 0
    assert settings.read_choice("preset", "quick", memory_mib=9)["reconstruction"]["memory_mib"] == 9
    assert settings.read_choice("bits", "w3a7") == {"weight": 3, "activation": 7}
    with pytest.raises(ConfigError, match="2 to 8"):
        settings.read_choice("bits", "w9a9")


def test_published_method_is_as_published() -> None:
    values = settings.read_choice("method", "ptq4vm_published")
    spec = settings.quant_spec({"weight": 4, "activation": 4}, values["quantizer"])
    assert spec.placement == "output" and not spec.activation.asymmetric and spec.activation.granularity == "tensor"
    with pytest.raises(ConfigError, match=r"method\.quantizer\.nope"):
        settings.quant_spec({"weight": 4, "activation": 4}, {**values["quantizer"], "nope": 1})


def test_choices_inherit_from_others_of_their_group() -> None:
    quick, sweep = (settings.read_choice("preset", name) for name in ("quick", "sweep"))
    assert "defaults" not in sweep and sweep["calibration"] == quick["calibration"]
    halved = {"steps": 30, "batch_positions": 16384}
    assert sweep["reconstruction"] == {**quick["reconstruction"], **halved}
    assert settings.read_choice("data", "videomatte240k", seed=3)["seed"] == 3, (
        "what is inherited refers to the top too"
    )


def test_what_is_inherited_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "config.yaml").write_text("seed: 0\nmemory_mib: 0\noverflow: safe\n")
    (tmp_path / "preset" / "mine.yaml").write_text("defaults: [nowhere, _self_]\n")
    monkeypatch.setattr(settings, "config_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="preset=nowhere is unknown: use one of mine"):
        settings.read_choice("preset", "mine")


@pytest.mark.parametrize(
    "path", sorted(settings.config_folder().glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_own_values_come_after_what_is_inherited(path: Path) -> None:
    """Hydra and ``read_choice`` would put them elsewhere where ``_self_`` is not said."""
    order = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", ["_self_"])
    assert order[-1] == "_self_" or path.parent.name == "scale"


@pytest.fixture
def renaming(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    table: dict[str, str] = {}
    monkeypatch.setattr(settings, "RENAMED", table)
    settings._tell_once.cache_clear()
    yield table
    settings._tell_once.cache_clear()


def test_an_old_key_is_taken_as_the_new_one(renaming: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    renaming["here.number"] = "here.count"
    with caplog.at_level(logging.WARNING):
        assert settings.settings(Example, {"number": 3}, "here") == Example(3)
        assert settings.settings(Example, {"number": 4}, "here") == Example(4)
    assert [record.getMessage() for record in caplog.records] == [
        "here.number is called here.count now: the old key will be gone in the next release"
    ]


@pytest.mark.parametrize(
    ("old", "new", "where", "values"),
    [
        ("here.number", "here.count", "there", {"number": 3}),  # another place
        ("here.number", "here.amount", "here", {"number": 3}),  # not renamed yet
        ("here.number", "here.count", "here", {"number": 3, "count": 3}),  # both
    ],
)
def test_an_old_key_elsewhere_stays_unknown(
    renaming: dict[str, str], old: str, new: str, where: str, values: dict[str, Any]
) -> None:
    renaming[old] = new
    with pytest.raises(ConfigError, match=f"{where}.number is unknown"):
        settings.settings(Example, values, where)


def test_a_key_that_is_a_field_still_is_left_alone(renaming: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    renaming["here.name"] = "here.count"
    with pytest.raises(ConfigError, match="not complete"):
        settings.settings(Example, {"name": "b"}, "here")
    assert not caplog.records


def test_overrides_take_the_key_of_today(renaming: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    renaming["preset.gac.rounds"] = "preset.gac.epochs"
    renaming["preset.gac.turns"] = "preset.gac.cycles"
    assert settings.renamed("preset.gac.rounds=3") == "preset.gac.epochs=3"
    assert settings.renamed("+preset.gac.rounds=a=b") == "+preset.gac.epochs=a=b"
    for other in ("preset.gac.turns=3", "preset.gac.epochs=3", "preset.gac.rounds", "-m", "preset=quick"):
        assert settings.renamed(other) == other
    assert len(caplog.records) == 1 and "preset.gac.epochs now" in caplog.text


def test_renamed_keys_are_of_one_section() -> None:
    for old, new in settings.RENAMED.items():
        assert old.rpartition(".")[0] == new.rpartition(".")[0] and old != new
