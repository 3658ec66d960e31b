"""Sizes of everything in the program of a ``.bits`` file, checked before any loop reads memory by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Size = tuple[int, ...]
"""Channels, rows and columns."""


def all_sizes(nodes: Sequence[Mapping[str, Any]], known: Mapping[str, Size]) -> dict[str, Size]:
    """Size of every tensor of a program.

    Args:
        nodes: Operations of the program, in order.
        known: Sizes of its inputs and constants.

    Raises:
        KeyError: An operation takes what nothing gives.
        ValueError: Sizes do not fit together.
    """
    sizes = dict(known)
    for node in nodes:
        found = result_sizes(node, [sizes[name] for name in node["in"]])
        for name, size in zip(node["out"], found, strict=True):
            if name in sizes or min(size) < 1:
                raise ValueError(f"{name} of {size}")
            sizes[name] = size
    return sizes


def result_sizes(node: Mapping[str, Any], inputs: Sequence[Size]) -> list[Size]:
    """Sizes of what a node gives, by those of what it takes. Raises :class:`ValueError` where they do not fit."""
    kind, (channels, height, width) = node["op"], inputs[0]
    if kind in ("BinaryConv", "Conv", "ExactConv"):
        return [_convolved(node, inputs)]
    if kind == "Concat":
        if any(size[1:] != (height, width) for size in inputs):
            raise ValueError(f"joined tensors of {inputs}")
        return [(sum(size[0] for size in inputs), height, width)]
    if kind == "Split":
        if sum(node["parts"]) != channels or min(node["parts"]) < 1:
            raise ValueError(f"{channels} channels in parts of {node['parts']}")
        return [(part, height, width) for part in node["parts"]]
    if kind == "Slice":
        cut = {int(axis) % 4: end for axis, end in node["ends"].items()}
        return [(channels, min(cut.get(2, height), height), min(cut.get(3, width), width))]
    if kind == "Resize":
        return [(channels, height * node["factor"], width * node["factor"])]
    if kind == "Sign" and inputs[1][0] not in (1, channels):
        raise ValueError(f"{inputs[1][0]} thresholds of {channels} channels")
    fixed = {
        "Halve": (channels, (height + 1) // 2, (width + 1) // 2),
        "Double": (channels, 2 * height, 2 * width),
        "Mean": (channels, 1, 1),
        "Mask": (1, height, width),
        "Sign": (channels, height, width),
    }
    return [fixed[kind] if kind in fixed else _spread(inputs)]


def _convolved(node: Mapping[str, Any], inputs: Sequence[Size]) -> Size:
    """Size of a convolution's result."""
    outputs, own, taps, across = node["shape"]
    stride, padding, dilation = node["stride"], node["padding"], node.get("dilation", 1)
    alone = node.get("groups", 1) > 1
    fits = (own == 1 and outputs == inputs[0][0]) if alone else own == inputs[0][0]
    if not fits or taps != across or min(stride, dilation) < 1 or padding != taps // 2 * dilation:
        raise ValueError(f"weights of {node['shape']} for {inputs[0]}")
    if any(size != (outputs, 1, 1) for size in inputs[1:]):
        raise ValueError(f"factors of {inputs[1:]} for {outputs} channels")
    reach = dilation * (taps - 1) + 1 - 2 * padding
    rows, columns = ((size - reach) // stride + 1 for size in inputs[0][1:])
    return outputs, rows, columns


def _spread(inputs: Sequence[Size]) -> Size:
    """Size of tensors of which the smaller are spread: over channels, over pixels, or both."""
    whole = (max(s[0] for s in inputs), max(s[1] for s in inputs), max(s[2] for s in inputs))
    for size in inputs:
        if whole[0] % size[0] or size[1:] not in ((1, 1), whole[1:]):
            raise ValueError(f"tensors of {inputs}")
    return whole
