"""Sensitivity, and the bits of single layers and stored tensors under a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from networks import TINY_PARTITION, disc_clips, quantize
from ptq4vm.errors import ConfigError
from ptq4vm.methods.mixed_bits import (
    Budget,
    averages,
    by_hand,
    choose_bits,
    within_average,
    within_error,
    within_size,
)
from ptq4vm.methods.sensitivity import Item, Sensitivity, measure_sensitivity
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import stored_bytes
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec


@torch.no_grad()
def _error(network: MattingNetwork, teacher: MattingNetwork, frames: Tensor) -> float:
    return float((network.matte(frames).alpha - teacher.matte(frames).alpha).square().mean())


@pytest.fixture(scope="module")
def sensitivity(teacher: MattingNetwork, frames: Tensor) -> Sensitivity:
    partition = resolve(teacher, TINY_PARTITION)
    return measure_sensitivity(teacher, partition, MIXED, frames[:2], (3, 6))


MIXED = QuantSpec(WeightSpec(3), ActivationSpec(3, granularity="channel"), placement="engine")


def test_sensitivity_is_that_of_the_network_with_one_quantizer(
    teacher: MattingNetwork, frames: Tensor, sensitivity: Sensitivity
) -> None:
    assert set(sensitivity.weights) == set(make_plan(teacher, resolve(teacher, TINY_PARTITION), MIXED).weights)
    body = sensitivity.weights["body.0"]
    assert body.elements == 8 * 8 * 9 and 0 < body.errors[6] < body.errors[3]
    assert all(item.errors[6] < item.errors[3] for item in sensitivity.activations.values() if len(item.errors) == 2)
    assert not sensitivity.weights["project"].errors, "an edge layer has 8 bits"
    alone = quantize(teacher, TINY_PARTITION, replace(MIXED, activation=ActivationSpec(32)), frames[:2])
    for path, layer in quantized_layers(alone).items():
        if path != "body.0":
            layer.weight_quantizer = None
    weights = replace(MIXED, activation=ActivationSpec(32))
    measured = measure_sensitivity(teacher, resolve(teacher, TINY_PARTITION), weights, frames[:2], (3,))
    with torch.no_grad():
        error = float((alone.matte(frames[:2]).alpha - teacher.matte(frames[:2]).alpha).abs().mean())
    assert measured.weights["body.0"].errors[3] == pytest.approx(error, rel=1e-3)


def test_a_budget_is_kept_and_spent_where_it_helps(sensitivity: Sensitivity) -> None:
    budget = Budget(avg_bits=6.0, widths=(3, 4, 6, 8))
    spec = within_average(MIXED, budget, sensitivity, 6.0)
    weights, activations = averages(spec, sensitivity)
    assert 5 < weights <= 6.0 + 1e-6 and 5 < activations <= 6.0 + 1e-6
    spec = within_average(MIXED, budget, sensitivity, (4.0, 7.0))
    weights, activations = averages(spec, sensitivity)
    assert 3 < weights <= 4.0 + 1e-6 and 6 < activations <= 7.0 + 1e-6, "either has its own"
    smaller = within_size(MIXED, budget, sensitivity, code_bytes=4.0 / 8 * _weights(sensitivity))
    assert averages(smaller, sensitivity)[0] <= 4.0 + 1e-6 and not smaller.activation_bits
    with pytest.raises(ConfigError, match="below"):
        within_average(MIXED, budget, sensitivity, 2.0)


@pytest.fixture(scope="module")
def free(teacher: MattingNetwork, frames: Tensor) -> Sensitivity:
    """With the edge layers measured as well."""
    return measure_sensitivity(teacher, resolve(teacher, TINY_PARTITION), MIXED, frames[:2], (3,), edges=True)


def test_it_is_the_squares_of_errors_that_add_up() -> None:
    items = {"one": Item(2, 4, {4: 5.0}), "two": Item(1, 4, {4: 3.0}), "three": Item(1, 4, {4: 3.0})}
    spec = within_average(MIXED, Budget(avg_bits=6.0, widths=(4, 8)), Sensitivity(items, {}), 6.0)
    assert spec.weight_bits == {"one": 8}, "one error of 5 is more than two of 3, side by side"


def test_edges_take_part_where_they_may(teacher: MattingNetwork, free: Sensitivity) -> None:
    assert free.weights["project"].errors[3] > 0 and free.weights["project"].bits == 8
    spec = within_average(MIXED, Budget(avg_bits=3.0, widths=(3, 8)), free, 3.0)
    plan = make_plan(teacher, resolve(teacher, TINY_PARTITION), spec)
    assert plan.weights["project"].bits == 3 and averages(spec, free) == (3.0, 3.0)


def test_the_fewest_bits_that_hold_an_error(free: Sensitivity) -> None:
    budget = Budget(max_mad="+5%", widths=(3, 4, 5, 6, 8))
    assert budget.max_mad == 0.05 and budget.limits
    asked: list[float] = []

    def judge(spec: QuantSpec) -> float:  # an error of 2^-bits: 5 % lie between 4 and 5 bits
        asked.append(min(averages(spec, free)))
        return float(2.0 ** -asked[-1])

    spec = within_error(MIXED, budget, free, judge)
    assert judge(spec) <= 0.05 and len(asked) < 10, "one network is built for every question"
    fewer = within_average(MIXED, budget, free, max(averages(spec, free)) - 0.13)
    assert judge(fewer) > 0.05
    with pytest.raises(ConfigError, match=r"even 8 bits cost \+50.00%"):
        within_error(MIXED, budget, free, lambda spec: 0.5)


def test_an_error_is_held_and_a_size_is_that_of_the_file(teacher: MattingNetwork) -> None:
    clips, partition = disc_clips(4), resolve(teacher, TINY_PARTITION)
    spec = choose_bits(
        teacher,
        partition,
        MIXED,
        Budget(max_mad=0.3, measured=(3,)),
        clips.frames,
        alpha=teacher.matte(clips.frames).alpha + 0.1,
    )
    assert spec.weight_bits and spec.activation_bits
    whole = stored_bytes(quantize(teacher, TINY_PARTITION, replace(MIXED, weight=WeightSpec(8)), clips.frames))
    limit = 0.8 * whole / 1e6
    spec = choose_bits(teacher, partition, MIXED, Budget(max_mb=limit, measured=(3,)), clips.frames)
    size = stored_bytes(quantize(teacher, TINY_PARTITION, spec, clips.frames)) / 1e6
    assert 0.9 * limit < size <= limit


def _weights(sensitivity: Sensitivity) -> float:
    return sum(item.elements for item in sensitivity.weights.values())


def test_bits_by_hand_reach_the_network(teacher: MattingNetwork, frames: Tensor, sensitivity: Sensitivity) -> None:
    budget = Budget(keep=("recur.*",), layers={"body.0": 5})
    spec = by_hand(MIXED, budget, sensitivity)
    assert spec.weight_bits == {"recur.mix.0": 8, "body.0": 5}
    plan = make_plan(teacher, resolve(teacher, TINY_PARTITION), spec)
    assert plan.weights["body.0"].bits == 5 and plan.weights["recur.mix.0"].bits == 8
    with pytest.raises(ConfigError, match=r"'nobody\.\*' matches no layer"):
        by_hand(MIXED, Budget(keep=("nobody.*",)), sensitivity)
    with pytest.raises(ConfigError, match="nothing is quantized at 'nowhere'"):
        make_plan(teacher, resolve(teacher, TINY_PARTITION), replace(MIXED, weight_bits={"nowhere": 4}))
    chosen = choose_bits(teacher, resolve(teacher, TINY_PARTITION), MIXED, Budget(avg_bits=6.5, measured=(3,)), frames)
    mixed = quantize(teacher, TINY_PARTITION, chosen, frames)
    uniform = quantize(teacher, TINY_PARTITION, MIXED, frames)
    assert _error(mixed, teacher, frames) < _error(uniform, teacher, frames)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"avg_bits": 4.5, "max_mb": 1.0}, "two budgets"),
        ({"avg_bits": -1.0}, "positive"),
        ({"avg_bits": (2.0, 0.0)}, r"avg_bits=\[2.0, 0.0\]: use a positive"),
        ({"widths": (4, 9)}, "from 2 to 8"),
        ({"max_mad": "five"}, "give a share"),
        ({"max_mad": 0.1, "max_mb": 1.0}, "two budgets"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Budget(**options)  # type: ignore[arg-type]
