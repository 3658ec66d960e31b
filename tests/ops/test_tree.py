from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ptq4vm.ops.tree import tree_leaves, tree_map


class Pair(NamedTuple):
    a: Tensor
    b: Tensor | None


def test_map_keeps_structure_and_what_is_no_tensor() -> None:
    tree = (torch.ones(2), [None, {"x": torch.zeros(1), "n": 3}], Pair(torch.full((1,), 2.0), None))
    mapped = tree_map(lambda t: t + 1, tree)
    assert isinstance(mapped[2], Pair) and mapped[2].b is None
    assert isinstance(mapped[1], list) and mapped[1][0] is None and mapped[1][1]["n"] == 3
    assert [leaf.tolist() for leaf in tree_leaves(mapped)] == [[2.0, 2.0], [1.0], [3.0]]


def test_map_walks_several_trees_together() -> None:
    summed = tree_map(lambda a, b, c: a + b + c, *[({"k": torch.tensor(v)}, None) for v in (1, 2, 4)])
    assert summed[0]["k"].item() == 7 and summed[1] is None


def test_map_refuses_trees_of_other_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        tree_map(torch.add, (torch.ones(1), torch.ones(1)), (torch.ones(1),))


def test_leaves_come_in_order() -> None:
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    assert [len(leaf) for leaf in tree_leaves([a, (None, {"x": b}), 5, c])] == [1, 2, 3]
    assert tree_leaves(None) == []
