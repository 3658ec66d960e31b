"""Reads TensorFlow.js models: a graph (JSON) and one file of quantized weights.

The graph holds ``value = q * scale + min`` in uint8, and convolutions as HWIO (depthwise as HWIM).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import WeightsError

Array = NDArray[np.float32]


def read_weights(graph: Path, binary: Path) -> dict[str, Array]:
    """Float weights of a TensorFlow.js graph model, dequantized, by their full name.

    Raises:
        WeightsError: The files are not a TensorFlow.js graph model or do not belong together.
    """
    try:
        groups = json.loads(graph.read_text(encoding="utf-8"))["weightsManifest"]
        entries = [entry for group in groups for entry in group["weights"]]
        data = binary.read_bytes()
        return dict(_decode(entries, data))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{graph} and {binary.name} are not a TensorFlow.js model ({error!r}); delete them and fetch them again"
        ) from error


def _decode(entries: list[dict[str, Any]], data: bytes) -> Iterator[tuple[str, Array]]:
    position = 0
    for entry in entries:
        quantization = entry.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data, stored, count, position)
        position += count * stored.itemsize
        if entry["dtype"] != "float32":
            continue
        if quantization:
            # In float32 throughout: the reference values were computed from weights rounded this way.
            scale, low = np.float32(quantization["scale"]), np.float32(quantization["min"])
            values = values.astype(np.float32) * scale + low
        yield entry["name"], values.astype(np.float32, copy=False).reshape(entry["shape"])
    if position != len(data):
        raise ValueError(f"{len(data)} bytes of weights where the graph describes {position}")
