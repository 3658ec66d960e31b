from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

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
