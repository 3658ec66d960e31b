from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq4vm.data.augmentation.easing import EASINGS, ease


@pytest.mark.parametrize("name", EASINGS)
def test_courses_lead_from_0_to_1(name: str) -> None:
    assert ease(name, 0) == pytest.approx(0, abs=1e-3) and ease(name, 1) == pytest.approx(1, abs=1e-3)
    assert all(-0.5 < ease(name, step / 100) < 1.5 for step in range(101))


@given(time=st.floats(0, 1), family=st.sampled_from(sorted({n.split("_")[0] for n in EASINGS} - {"linear", "step"})))
def test_out_is_in_seen_from_the_end(family: str, time: float) -> None:
    assert ease(f"{family}_out", time) == pytest.approx(1 - ease(f"{family}_in", 1 - time))


def test_known_values() -> None:
    assert ease("linear", 0.3) == 0.3
    assert [ease("step", t) for t in (0, 0.49, 0.5, 1)] == [0, 0, 1, 1]
    assert ease("cubic_in", 0.5) == 0.125 and ease("cubic_in_out", 0.25) == pytest.approx(0.0625)
    assert ease("bounce_out", 4 / 11) == pytest.approx(1) and ease("bounce_out", 6 / 11) == pytest.approx(0.75)
    assert max(ease("back_out", step / 100) for step in range(101)) == pytest.approx(1.1, abs=1e-3)
    assert len(set(EASINGS)) == len(EASINGS) == 32
