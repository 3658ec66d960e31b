from __future__ import annotations

import pytest

from ptq4vm.errors import ConfigError
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_code_ranges(bits: int) -> None:
    assert WeightSpec(bits).code_range == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert ActivationSpec(bits).code_range == (0, 2**bits - 1)


@pytest.mark.parametrize("spec", [WeightSpec, ActivationSpec])
@pytest.mark.parametrize("bits", [0, 1, 9, 16, 64])
def test_unknown_bits_are_refused(spec: type, bits: int) -> None:
    with pytest.raises(ConfigError, match=f"{bits}: use 2 to 8 bits, or 32"):
        spec(bits)


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        (WeightSpec, "granularity", "row"),
        (WeightSpec, "observer", "percentile"),
        (ActivationSpec, "granularity", "row"),
        (ActivationSpec, "observer", "kl"),
        (QuantSpec, "placement", "middle"),
    ],
)
def test_unknown_choices_are_refused(spec: type, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}='{value}' is unknown: use one of"):
        spec(**{key: value})


@pytest.mark.parametrize("percentile", [0.5, 1.01, float("nan")])
def test_percentile_has_a_range(percentile: float) -> None:
    with pytest.raises(ConfigError, match="percentile"):
        ActivationSpec(percentile=percentile)


def test_float_is_told_from_quantized() -> None:
    assert QuantSpec(WeightSpec(32), ActivationSpec(32)).is_float
    assert not QuantSpec(WeightSpec(4), ActivationSpec(32)).is_float
