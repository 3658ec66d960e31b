"""Nested tuples, lists and dicts of tensors (with ``None`` inside), as blocks take and return them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply ``function`` to the tensors of one tree, or of several trees of the same structure, leaf by leaf.

    What is no tensor (``None``, numbers) is taken from the first tree as it is.
    """
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, (tuple, list)):
        parts = [tree_map(function, *items) for items in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: tree_map(function, value, *(o[key] for o in others)) for key, value in tree.items()}
    return tree


def tree_leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, (tuple, list)):
        return [leaf for item in tree for leaf in tree_leaves(item)]
    if isinstance(tree, dict):
        return [leaf for item in tree.values() for leaf in tree_leaves(item)]
    return []
