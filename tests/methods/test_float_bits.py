"""Bits by hand and under a budget: 32 is float, and a size of weights needs weights that are quantized."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ptq4vm
from networks import TINY_PARTITION, disc_clips, quantize, tiny_matting
from ptq4vm.api.models import Model
from ptq4vm.data.base import ClipSets, Predictor
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.methods.mixed_bits import Budget, choose_bits
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, QuantSpec, WeightSpec

W4A8 = QuantSpec(WeightSpec(4), ActivationSpec(8, observer="minmax"))


@pytest.mark.parametrize("placement", ["input", "output", "engine"])
def test_a_layer_of_32_bits_keeps_its_float_weight(teacher: MattingNetwork, placement: str) -> None:
    spec = replace(W4A8, placement=placement, weight_bits={"body.0": FLOAT_BITS})
    network = quantize(teacher, TINY_PARTITION, spec, disc_clips(1).frames)
    layers = quantized_layers(network)
    found = layers.get("body.0")
    assert found is None or found.weight_quantizer is None
    assert layers["project"].weight_quantizer is not None
    assert network.matte(disc_clips(1).frames).alpha.isfinite().all()


@pytest.mark.parametrize("placement", ["input", "output"])
def test_a_site_of_32_bits_is_left_out(teacher: MattingNetwork, placement: str) -> None:
    partition = resolve(teacher, TINY_PARTITION)
    spec = replace(W4A8, placement=placement)
    name = next(iter(make_plan(teacher, partition, spec).sites))
    without = replace(spec, activation_bits={name: FLOAT_BITS})
    assert name not in make_plan(teacher, partition, without).sites
    assert quantize(teacher, TINY_PARTITION, without, disc_clips(1).frames).matte(disc_clips(1).frames) is not None


def test_an_engine_reads_no_floats(teacher: MattingNetwork) -> None:
    partition = resolve(teacher, TINY_PARTITION)
    spec = replace(W4A8, placement="engine")
    name = next(iter(make_plan(teacher, partition, spec).sites))
    with pytest.raises(ConfigError, match=f"activation_bits: '{name}' cannot stay float"):
        make_plan(teacher, partition, replace(spec, activation_bits={name: FLOAT_BITS}))


def test_a_size_needs_quantized_weights(teacher: MattingNetwork) -> None:
    spec = replace(W4A8, weight=WeightSpec(FLOAT_BITS))
    with pytest.raises(ConfigError, match=r"budget\.max_mb chooses bits of weights"):
        choose_bits(teacher, resolve(teacher, TINY_PARTITION), spec, Budget(max_mb=1.0), disc_clips(1).frames)


class Untrue:
    """A data set whose clips are listed only once their truth was made; it has none."""

    truth = "the float network"
    made = False

    def make_truth(self, predict: Predictor, key: str) -> None:
        self.made = True

    def clips(self) -> ClipSets:
        raise DataError("no clips" if self.made else "clips were listed before their truth was made")


def test_sensitivity_makes_the_truth_that_is_missing() -> None:
    model = Model(tiny_matting(), TINY_PARTITION, {})
    with pytest.raises(DataError, match="no clips"):
        ptq4vm.sensitivity(model, Untrue(), bits=W4A8)
