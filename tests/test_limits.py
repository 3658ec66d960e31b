"""Numbers beyond reason are refused where they are given, in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from ptq4vm.cli.values import parse_values
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.limits import BOUNDS, check_number
from ptq4vm.methods.method import CalibrationSettings
from ptq4vm.settings import settings

REFUSED = {
    "seed": (-1, 10**20),
    "downsample_ratio": (0.001, 0.0, 2.0, math.nan),
    "memory_mib": (math.nan, -1.0, math.inf),
    "preset.calibration.zoom": (math.inf, 1e6),
    "preset.calibration.clips": (10**9,),
    "preset.calibration.crop[0]": (20000,),
    "fps": (0.0001, math.inf),
    "threads": (100000,),
    "preset.gac.affine_lr": (1e30, math.nan),
    "method.anything": (math.inf, 1e300),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_what_is_beyond_reason(key: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        check_number(key, value)
    assert key in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_themselves_are_taken(name: str) -> None:
    for value in filter(math.isfinite, BOUNDS[name]):
        check_number(f"a.{name}", value)


@dataclass
class Values:
    threads: int = 2
    fps: float = 30.0


def test_every_way_in_looks_at_them() -> None:
    with pytest.raises(ConfigError, match=r"preset\.calibration\.crop\[1\]=20000 is out of range"):
        settings(CalibrationSettings, {"crop": [64, 20000]}, "preset.calibration")
    with pytest.raises(ConfigError, match="fps=nan is no finite number"):
        parse_values(Values, ["fps=nan"])
    with pytest.raises(ConfigError, match="threads=100000 is out of range: use 1024 at most"):
        parse_values(Values, ["threads=100000"])
    with pytest.raises(ConfigError, match="size=1000000x1000000 is out of range"):
        FrameShape(1000000, 1000000)
