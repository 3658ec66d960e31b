"""What exported files say about themselves, as engines need it: from the text of their metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ptq4vm.errors import ExportError


def needs_vnni(metadata: Mapping[str, str]) -> bool:
    """Whether an exported file says, or leaves open, that its integers need VNNI; files of others say nothing."""
    return metadata.get("bits", "fp32") != "fp32" and metadata.get("overflow") != "safe"


def strides(text: str, states: int) -> tuple[int, ...]:
    """Strides of the states from metadata; half, a quarter, ... where it does not say them, as files mostly do not."""
    found = tuple(int(part) for part in text.split(",") if part.isdecimal() and int(part) > 0)
    return found if len(found) == states else tuple(2 ** (number + 1) for number in range(states))


def step(text: str) -> int:
    """A step of sizes from metadata; 0 where there is none."""
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def ratio(text: str, file: str | Path) -> float:
    """A downsample ratio from metadata. Raises :class:`ExportError` for one that is not in (0, 1]."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 1:
        raise ExportError(f"{file} says downsample_ratio={text[:40]!r}, which is not in (0, 1]: export again")
    return found
