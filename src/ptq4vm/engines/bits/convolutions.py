"""Convolutions of a ``.bits`` program as records: weights in tiles, offsets of what is read, what sums begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.bits import kernels
from ptq4vm.engines.bits.groups import Start
from ptq4vm.engines.bits.layout import Floats, Signs, bases, columns, filled, offsets, pack_channels, rounded, tiled
from ptq4vm.engines.bits.tiles import ACROSS, EXACT_OUTPUTS, OUTPUTS


def binary(
    signs: Signs, weights: NDArray[np.uint8], node: Mapping[str, Any], out: tuple[int, ...], scale: Floats, bias: Floats
) -> Start:
    """A binary convolution.

    Args:
        signs: What it reads.
        weights: Bits of its weights, ``(O, C, taps * taps)``.
        node: What the file says of it.
        out: Rows and columns of its result.
        scale: Factors of the outputs, ``(O,)``.
        bias: Their biases; empty for none.
    """
    edge, taps, alone = node["padding"], node["shape"][2], node["groups"] > 1
    words = weights.reshape(len(weights), -1).astype(np.uint32) if alone else pack_channels(weights)
    packed = words if alone else tiled(words.reshape(len(words), -1), OUTPUTS)
    around = (node["stride"], node["dilation"], signs.edge - edge)
    planes = signs.planes
    column = 4 * columns(signs.size[2], signs.edge, signs.stride)
    reads = offsets(1 if alone else len(planes), planes.strides[0], planes.strides[1], column, taps, around)
    base, classes = bases(weights, signs.low, signs.size[1:], out, (node["stride"], node["dilation"], edge))
    room = np.zeros(
        (len(base), rounded(base.shape[1], 8), 1 if base.shape[2] == 1 else rounded(out[1], ACROSS)), np.int32
    )
    room[:, : base.shape[1], : base.shape[2]] = base
    same = room.shape[2] == 1
    if same:
        room = np.ascontiguousarray(room.repeat(ACROSS, 2))
    factor = filled(scale * np.float32(0.5) if signs.low == 0 else scale)
    shift = filled(bias, -0.0) if len(bias) else filled(np.full(len(scale), -0.0), -0.0)
    record = {
        "kind": kernels.ALONE if alone else kernels.BINARY,
        "source": planes.ctypes.data,
        "source_far": planes.strides[0],
        "source_down": planes.strides[1] * node["stride"],
        "offsets": reads.ctypes.data,
        "taps": len(reads),
        "weights": packed.ctypes.data,
        "base": room.ctypes.data,
        "base_far": room.strides[1],
        "base_down": room.strides[0],
        "base_along": 0 if same else 4,
        "classes": 0 if same else classes.ctypes.data,
        "factor": factor.ctypes.data,
        "bias": shift.ctypes.data,
    }
    beyond = set() if taps == 1 and node["stride"] == 1 else {planes.ctypes.data}
    return Start(record, beyond, [planes, reads, packed, room, classes, factor, shift])


def floating(source: Floats, column: int, weight: Floats, bias: Floats, stride: int, exact: bool) -> Start:
    """A convolution of floats.

    Args:
        source: What it reads, from where the first output's first tap is.
        column: How far the phases of a row are apart, in bytes.
        weight: ``(O, C, taps, taps)``.
        bias: Added to every output channel, ``(O,)`` float32.
        stride: Pixels of the input from one output to the next.
        exact: Whether sums are taken in float64.
    """
    taps = weight.shape[2]
    reads = offsets(weight.shape[1], source.strides[0], source.strides[1], column, taps, (stride, 1, 0))
    flat = weight.reshape(len(weight), -1)
    packed = tiled(flat.astype(np.float64), EXACT_OUTPUTS) if exact else tiled(flat, OUTPUTS)
    shift = filled(bias)
    record = {
        "kind": kernels.EXACT if exact else kernels.FLOAT,
        "source": source.ctypes.data,
        "source_down": source.strides[1] * stride,
        "source_far": source.strides[0],
        "source_channels": source.shape[0],
        "height": taps if stride == 1 else 0,  # rows that an output reads
        "offsets": reads.ctypes.data,
        "taps": len(reads),
        "weights": packed.ctypes.data,
        "bias": shift.ctypes.data,
    }
    root = source
    while isinstance(root.base, np.ndarray):
        root = root.base
    return Start(record, set() if taps == 1 and stride == 1 else {root.ctypes.data}, [source, reads, packed, shift])
