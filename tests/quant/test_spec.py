from __future__ import annotations

from typing import Any

import pytest

from ptq4vm import settings
from ptq4vm.errors import ConfigError
from ptq4vm.quant.checkpoint import CheckpointInfo, _digest
from ptq4vm.quant.spec import ActivationSpec, Partition, QuantSpec, WeightSpec, spec_from_values, spec_values


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


def test_the_grid_of_asymmetric_activations_keeps_its_name_in_files() -> None:
    spec = QuantSpec(activation=ActivationSpec(4, asymmetric=False))
    values = spec_values(spec)
    assert list(values["activation"]) == ["bits", "affine", "granularity", "observer", "percentile"]
    assert values["activation"]["affine"] is False
    assert spec_from_values(values) == spec
    assert spec_from_values({**values, "activation": {"asymmetric": False, "bits": 4}}) == spec


def test_digests_of_the_first_files_hold() -> None:
    # as version 0.1.0 wrote it
    before = "a29908b5d5b9c0b1d229c4fe3b393d790376be03b31bf50e81fced7ef90fe00a"
    spec = QuantSpec(WeightSpec(4), ActivationSpec(4, asymmetric=False, granularity="mixed"), "engine", overflow="vnni")
    assert _digest(CheckpointInfo({}, spec, Partition(()))) == before


def test_the_old_name_is_read_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        spec = settings.quant_spec({"weight": 4, "activation": 4}, {"activation": {"affine": False}})
    assert not spec.activation.asymmetric
    (line,) = caplog.messages
    assert "method.quantizer.activation.affine is called method.quantizer.activation.asymmetric now" in line
    caplog.clear()
    assert settings.quant_spec({"weight": 4, "activation": 4}, {"activation": {"asymmetric": False}}) == spec
    assert not caplog.messages


@pytest.mark.parametrize("other", [{}, {"asymmetric": False}, {"quantizer": "htdq"}, {"bits": 8}])
def test_zero_points_of_channels_need_an_even_asymmetric_grid_below_eight_bits(other: dict[str, Any]) -> None:
    spec = ActivationSpec(**{"bits": 4, "zeros": "channel", **other})
    assert spec.own_zeros == (not other)
    assert spec.largest_code == (2 if not other else 1) * spec.code_range[1] <= 255
    with pytest.raises(ConfigError, match="activation zeros"):
        ActivationSpec(4, zeros="mine")
