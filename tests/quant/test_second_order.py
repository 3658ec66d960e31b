"""Closed-form rounding against trying every choice, against least squares, and against rounding to nearest."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ptq4vm.quant.second_order import (
    best_scale,
    compensated,
    descend,
    held,
    moments,
    round_in_order,
    row_errors,
    solve,
)

LOW, HIGH = -2, 1


def _problem(seed: int, groups: int = 2, rows: int = 3, width: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(groups, rows, width, generator=generator)
    samples = torch.randn(groups, 40, width, generator=generator) @ torch.randn(width, width, generator=generator)
    moment = samples.mT @ samples / 40 + 1e-3 * torch.eye(width)
    scale = target.abs().amax(-1) / 2
    return target, moment, scale


def _nearest(target: Tensor, scale: Tensor) -> Tensor:
    return (target / scale[..., None]).round().clamp(LOW, HIGH)


def _best(target: Tensor, moment: Tensor, scale: Tensor) -> Tensor:
    """Least error of every row over all codes."""
    width = target.shape[-1]
    every = torch.tensor(list(itertools.product(range(LOW, HIGH + 1), repeat=width)), dtype=target.dtype)
    errors = [
        [row_errors(t.expand(1, len(every), -1), m[None], every[None], s.expand(1, len(every))).min() for t, s in rows]
        for rows, m in zip(
            ([(t, s) for t, s in zip(ts, ss, strict=True)] for ts, ss in zip(target, scale, strict=True)),
            moment,
            strict=True,
        )
    ]
    return torch.tensor([[float(e) for e in row] for row in errors])


@given(st.integers(0, 10_000))
def test_rounding_is_between_nearest_and_the_best_of_all(seed: int) -> None:
    target, moment, scale = _problem(seed)
    codes = round_in_order(target, moment, scale, LOW, HIGH)
    better = descend(target, moment, codes, scale, LOW, HIGH)
    found, improved = (row_errors(target, moment, c, scale) for c in (codes, better))
    assert ((better == better.round()) & (better >= LOW) & (better <= HIGH)).all()
    assert (improved <= found + 1e-5 * (1 + found)).all()
    assert (improved >= _best(target, moment, scale) - 1e-5).all()


def test_rounding_beats_nearest_on_average() -> None:
    problems = [_problem(seed) for seed in range(40)]
    nearest = torch.stack([row_errors(t, m, _nearest(t, s), s) for t, m, s in problems]).mean()
    ordered = torch.stack([row_errors(t, m, round_in_order(t, m, s, LOW, HIGH), s) for t, m, s in problems]).mean()
    assert ordered < 0.8 * nearest


def test_independent_inputs_round_to_nearest() -> None:
    target, _, scale = _problem(1)
    moment = torch.eye(5).expand(2, 5, 5) * torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    assert torch.equal(round_in_order(target, moment, scale, LOW, HIGH), _nearest(target, scale))


@given(st.integers(0, 10_000))
def test_the_scale_is_the_least_squares_one(seed: int) -> None:
    target, moment, scale = _problem(seed)
    codes = _nearest(target, scale)
    found = best_scale(target, moment, codes, scale)
    least = row_errors(target, moment, codes, found)
    for factor in (0.99, 1.01):
        changed = row_errors(target, moment, codes, found * factor)
        moved = found != scale
        assert (changed >= least - 1e-5)[moved].all()


def test_compensation_is_ridge_regression_towards_the_float_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    floating = torch.randn(1, 200, 4, generator=generator)
    quantized = floating + 0.3 * torch.randn(1, 200, 4, generator=generator)
    weight = torch.randn(1, 2, 4, generator=generator)
    seen = moments(quantized, floating)
    ridge = 0.2
    found = compensated(weight, seen, ridge)
    # the same as a regression with one more sample for each weight
    x = (quantized - quantized.mean(1, keepdim=True))[0] / 200**0.5
    y = ((floating - floating.mean(1, keepdim=True)) @ weight.mT)[0] / 200**0.5
    extra = held(torch.zeros(1, 4, 4), seen.energy, ridge)[0].diagonal().sqrt().diag()
    solution = torch.linalg.lstsq(torch.cat([x, extra]), torch.cat([y, extra @ weight[0].T])).solution.T
    torch.testing.assert_close(found[0], solution, rtol=1e-4, atol=1e-5)
    assert torch.equal(compensated(weight, moments(floating, floating), ridge), weight), "nothing to make up for"


def test_dead_inputs_keep_their_weights() -> None:
    floating = torch.randn(1, 100, 3, generator=torch.Generator().manual_seed(0))
    quantized = floating * torch.tensor([1.0, 0.0, 0.5])
    weight = torch.tensor([[[1.0, 2.0, 3.0]]])
    found = compensated(weight, moments(quantized, floating), 0.01)
    assert found[0, 0, 1] == pytest.approx(2.0, abs=1e-4)
    assert found[0, 0, 2] > 4, "half of the signal needs about twice the weight"


def test_solving_searches_scales() -> None:
    target, moment, _ = _problem(3, rows=20)
    one, many = (solve(target, moment, LOW, HIGH, candidates=count, sweeps=0) for count in (1, 8))
    errors = [row_errors(target, moment, codes, scale).sum() for codes, scale in (one, many)]
    swept = solve(target, moment, LOW, HIGH, candidates=8, sweeps=2)
    assert errors[1] < errors[0]
    assert row_errors(target, moment, *swept).sum() < errors[1]
