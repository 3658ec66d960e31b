from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq4vm.errors import ConfigError
from ptq4vm.quant.budget import allocate, average_bits, extended, least

WIDTHS = (2, 4, 8)
ITEMS = st.dictionaries(
    st.sampled_from("abcde"),
    st.tuples(st.integers(1, 1000), st.floats(0.001, 10)),
    min_size=1,
)


@given(ITEMS, st.floats(2.0, 8.0))
def test_the_choice_is_the_best_of_all(items: dict[str, tuple[int, float]], avg_bits: float) -> None:
    elements = {name: float(count) for name, (count, _) in items.items()}
    errors = {name: extended({4: error}, WIDTHS) for name, (_, error) in items.items()}
    found = allocate(errors, elements, avg_bits)
    assert found.keys() == items.keys()
    assert average_bits(found, elements) <= avg_bits + 1e-6
    choices = (dict(zip(items, widths, strict=True)) for widths in itertools.product(WIDTHS, repeat=len(items)))
    fitting = [choice for choice in choices if average_bits(choice, elements) <= avg_bits - 1e-6]
    total = sum(errors[name][bits] for name, bits in found.items())
    if fitting:
        best = min(sum(errors[name][bits] for name, bits in choice.items()) for choice in fitting)
        assert total <= best * (1 + 1e-5)


def test_what_cannot_be_met_says_what_can() -> None:
    with pytest.raises(ConfigError, match="3 bits on average are below 4"):
        allocate({"a": {4: 1.0, 8: 0.1}}, {"a": 10.0}, 3.0)


def test_a_bit_more_halves_the_error() -> None:
    assert extended({4: 1.0, 8: 0.2}, (2, 4, 5, 6, 7, 8)) == {2: 4.0, 4: 1.0, 5: 0.5, 6: 0.25, 7: 0.4, 8: 0.2}


@given(st.floats(2, 8), st.sampled_from([0.5, 0.125, 0.01]))
def test_the_least_number_that_holds(threshold: float, step: float) -> None:
    found = least(lambda bits: bits >= threshold, 2.0, 8.0, step)
    assert threshold <= found <= threshold + step or found == 2.0 >= threshold
    assert least(lambda bits: True, 2.0, 8.0, step) == 2.0
