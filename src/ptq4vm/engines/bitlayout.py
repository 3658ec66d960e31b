"""How constants and tensors of a ``.bits`` program lie in memory. Importing this needs Numba (the extra ``fast``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import typed, types
from numpy.typing import NDArray

Floats = NDArray[np.float32]
EVERYWHERE = np.ones((1, 1, 1), np.float32)
"""The mask that is set everywhere."""


def edges(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How wide an edge packed signs need, by the convolutions that read them."""
    found: dict[str, int] = {}
    for node in nodes:
        if node["op"] == "BinaryConv":
            found[node["in"][0]] = max(found.get(node["in"][0], 0), node["padding"])
    return found


def pack_channels(signs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Bits ``(O, C, taps)`` as words ``(O, ceil(C / 64), taps)``, channel ``c`` in bit ``c % 64``."""
    outputs, channels, taps = signs.shape
    padded = np.zeros((outputs, -(-channels // 64) * 64, taps), np.uint64)
    padded[:, :channels] = signs
    weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
    return np.bitwise_or.reduce(padded.reshape(outputs, -1, 64, taps) * weights[:, None], 2)


def listed(operands: list[Floats]) -> Any:
    """Operands as Numba takes them; never none, since it must know their type."""
    found = typed.List.empty_list(types.float32[:, :, ::1])
    for operand in operands or [EVERYWHERE]:
        found.append(operand)
    return found


def flat(value: Floats) -> Floats:
    """A tensor with all its rows in one."""
    return value.reshape(len(value), 1, -1)


def as_it_is(value: Floats) -> Floats:
    """A tensor as it lies."""
    return value


def three(value: NDArray[Any]) -> Floats:
    """A constant as ``(C, H, W)``, writable, as Numba tells arrays apart by it."""
    return np.array(value, np.float32).reshape(value.shape if value.ndim == 3 else (-1, 1, 1))
