"""Which bits every layer and every stored tensor gets: an exact choice by integer programming.

Errors of single choices are taken to add up, as squared ones do where each is small. One binary variable says whether
an item takes a bit-width; every item takes one; the sum of errors is least under a limit on the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ptq4vm.errors import ConfigError

Errors = Mapping[str, Mapping[int, float]]
"""By item, the error that each of its possible bit-widths causes, at least 0."""


def allocate(errors: Errors, elements: Mapping[str, float], avg_bits: float) -> dict[str, int]:
    """The bits of every item with the least sum of errors, at no more than ``avg_bits`` bits an element on average.

    Raises:
        ConfigError: Not even the smallest widths fit.
    """
    pairs = [(item, bits) for item, widths in errors.items() for bits in widths]
    total = sum(elements[item] for item in errors)
    error = np.array([errors[item][bits] for item, bits in pairs])
    load = np.array([bits * elements[item] / total for item, bits in pairs])
    rows = {item: number for number, item in enumerate(errors)}
    owner = csr_array((np.ones(len(pairs)), ([rows[item] for item, _ in pairs], range(len(pairs)))))
    found = milp(
        error / max(error.max(), 1e-300),  # the solver's tolerances are absolute
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(owner, 1, 1), LinearConstraint(load[None], ub=avg_bits)],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        least = average_bits({item: min(widths) for item, widths in errors.items()}, elements)
        raise ConfigError(f"{avg_bits:.4g} bits on average are below {least:.4g}, the fewest that can be chosen")
    return {item: bits for (item, bits), taken in zip(pairs, found.x, strict=True) if taken > 0.5}


def average_bits(bits: Mapping[str, int], elements: Mapping[str, float]) -> float:
    """Bits of an element, on average over the elements of all items."""
    return sum(width * elements[item] for item, width in bits.items()) / sum(elements[item] for item in bits)


def extended(measured: Mapping[int, float], widths: Sequence[int]) -> dict[int, float]:
    """Errors at further bit-widths: a bit more halves the error that the nearest measured width has.

    Args:
        measured: Absolute errors by bit-width, at least one.
        widths: Bit-widths that are wanted.
    """
    found = {}
    for bits in widths:
        near = min(measured, key=lambda known: (abs(known - bits), known))
        found[bits] = measured[bits] if bits in measured else measured[near] * 2.0 ** (near - bits)
    return found


def least(holds: Callable[[float], bool], low: float, high: float, step: float) -> float:
    """The least number in ``[low, high]`` that holds, to within ``step``, where more is never worse.

    Args:
        holds: Asked of few numbers; taken to be true of ``high``, which is not asked.
        low: Smallest number that comes in question.
        high: Largest number that comes in question.
        step: Where the search ends.
    """
    if low >= high or holds(low):
        return min(low, high)
    while high - low > step:
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
