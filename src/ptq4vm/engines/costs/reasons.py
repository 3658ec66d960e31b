"""Why an operation runs in float: what any engine can say from a graph with its codes and its floats."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

FLOAT_FILE = "float by choice: the file holds a float network"
WEIGHT = "float by choice: its weight is not quantized"
TO_CODES = "conversion: floats become codes"
TO_FLOATS = "conversion: codes become floats"
WEIGHT_TO_FLOATS = "conversion: a weight becomes floats in every frame, since its layer runs in float"
UNREAD = "float by choice: what it reads is not quantized"
LAYOUT = "floats are brought into another order in memory"
SIZES = "computes sizes, no tensor of the network"


@dataclass(frozen=True)
class Surroundings:
    """What lies around an operation that ran in float.

    Attributes:
        name: The operation's name, which begins with the part of the network that it belongs to.
        kind: What it does, as the engine calls it.
        reads: Whether something that it reads comes from codes.
        gives: Whether codes are made of what it gives.
    """

    name: str
    kind: str
    reads: bool
    gives: bool


def part_of(name: str) -> str:
    """The part of a network that a name such as ``refiner/box/Conv`` or ``decoder.decode1`` lies in; empty for none."""
    first, *rest = re.split(r"[./]", name, maxsplit=1)
    return first if rest else ""


def why_float(title: str, around: Surroundings, quantized: Container[str]) -> str:
    """One plain sentence about an operation in float.

    Args:
        title: The engine's name.
        around: What lies around the operation.
        quantized: Parts of the network in which something is quantized; none for a float network.
    """
    if not quantized:
        return FLOAT_FILE
    if around.reads and around.gives:
        return f"no integer kernel in {title} for {around.kind} between codes"
    if around.reads:
        return "float by choice: nothing quantizes its result"
    if around.gives:
        return UNREAD
    part = part_of(around.name)
    if part and part not in quantized:
        return f"float by choice: nothing in {part} is quantized"
    return "float by choice: neither what it reads nor what it gives is quantized"
