"""Bounds on sums of two products, against every pair and against arithmetic that cuts off."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy_runs import random_quantized, spec
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.overflow import PAIR_MAX, PAIR_MIN, grid_may_saturate, outside, pair_bounds
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.saturation import saturating_layers
from ptq4vm.quant.spec import WeightSpec
from saturation import saturating_product, wrong_layers

SAFE = (-64, 63)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


def codes(low: int = -128, high: int = 127) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.int8, shapes, elements=st.integers(low, high))


@given(codes(), st.integers(1, 255))
def test_bounds_are_those_of_the_worst_pair(weights: np.ndarray, top: int) -> None:
    sums = [0]
    for row in weights.astype(int):
        for pair in [*combinations(row, 2), *((code,) for code in row)]:
            sums += [top * sum(max(c, 0) for c in pair), top * sum(min(c, 0) for c in pair)]
    assert pair_bounds(torch.from_numpy(weights), top) == (min(sums), max(sums))


@given(st.data(), codes())
def test_within_the_bounds_nothing_is_cut_off(data: st.DataObject, weights: np.ndarray) -> None:
    count = weights.shape[1]
    activations = data.draw(hnp.arrays(np.uint8, (3, count)))
    order = data.draw(st.permutations(range(count)))
    exact = activations.astype(np.int64) @ weights.T.astype(np.int64)
    cut = saturating_product(activations[:, order], weights[:, order])
    if not outside(pair_bounds(torch.from_numpy(weights), 255)):
        np.testing.assert_array_equal(cut, exact)


@given(codes(*SAFE), st.data())
def test_weights_within_seven_bits_are_exact(weights: np.ndarray, data: st.DataObject) -> None:
    activations = data.draw(hnp.arrays(np.uint8, (3, weights.shape[1])))
    exact = activations.astype(np.int64) @ weights.T.astype(np.int64)
    np.testing.assert_array_equal(saturating_product(activations, weights), exact)


@given(codes(), st.data())
def test_activations_within_seven_bits_are_exact(weights: np.ndarray, data: st.DataObject) -> None:
    activations = data.draw(hnp.arrays(np.uint8, (3, weights.shape[1]), elements=st.integers(0, 127)))
    exact = activations.astype(np.int64) @ weights.T.astype(np.int64)
    np.testing.assert_array_equal(saturating_product(activations, weights), exact)


def test_the_bound_is_reached() -> None:
    weights = np.array([[127, 127, 0]], np.int8)
    low, high = pair_bounds(torch.from_numpy(weights), 255)
    assert (low, high) == (0, 2 * 127 * 255) and high > PAIR_MAX and low > PAIR_MIN
    assert saturating_product(np.full((1, 3), 255, np.uint8), weights)[0, 0] == PAIR_MAX < high


@pytest.mark.parametrize(
    ("bits", "top", "saturates"), [(8, 255, True), (8, 127, False), (7, 255, False), (4, 255, False)]
)
def test_grids(bits: int, top: int, saturates: bool) -> None:
    assert grid_may_saturate(*WeightSpec(bits).code_range, top) == saturates


def test_a_reduced_range_is_a_bit_less_in_as_many_bits() -> None:
    assert WeightSpec(8, reduce_range=True).code_range == SAFE == WeightSpec(7).code_range
    fixed = FixedCodes(torch.zeros(1, 1, dtype=torch.int8), 8, torch.ones(1), reduce_range=True)
    assert (fixed.bits, fixed.quant_min, fixed.quant_max) == (8, *SAFE)


@pytest.mark.parametrize("placement", ("input", "output", "engine"))
@pytest.mark.parametrize("bits", ("w8a8", "w4a8", "w4a4", "w8a4"))
def test_no_layer_of_a_safe_network_can_saturate(bits: str, placement: str) -> None:
    granularity = "tensor" if placement == "output" else "mixed"
    network = random_quantized(spec(bits, granularity, placement))
    assert saturating_layers(network) == {}
    ranges = {
        (layer.weight_quantizer.bits, layer.weight_quantizer.quant_min) for layer in quantized_layers(network).values()
    }
    assert (8, -64) in ranges, ranges  # stored as before
    old = random_quantized(replace(spec(bits, granularity, placement), overflow="vnni"))
    assert saturating_layers(old), "all codes of 8 bits, and nothing can saturate?"


@pytest.mark.parametrize("bits", ("w8a8", "w4a4"))
def test_only_the_old_network_is_computed_wrongly_without_vnni(bits: str) -> None:
    frames = torch.rand(1, 1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    assert wrong_layers(random_quantized(spec(bits)), frames) == {}
    old = random_quantized(replace(spec(bits), overflow="vnni"))
    found = wrong_layers(old, frames)
    assert found and found.keys() <= saturating_layers(old).keys(), found


def test_eight_bits_that_meet_fewer_keep_their_codes() -> None:
    network = random_quantized(replace(spec("w8a4"), edge_bits=4))
    assert {layer.weight_quantizer.quant_min for layer in quantized_layers(network).values()} == {-128}
    assert saturating_layers(network) == {}
