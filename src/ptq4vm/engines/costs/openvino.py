"""What OpenVINO ran: the nodes of its runtime model, with their times, types and kernels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ptq4vm.engines.costs.operation import Operation
from ptq4vm.engines.costs.reasons import (
    FLOAT_FILE,
    LAYOUT,
    TO_CODES,
    TO_FLOATS,
    WEIGHT,
    Surroundings,
    part_of,
    why_float,
)

TITLE = "OpenVINO"
CODES = ("u8", "i8")
FLOATS = ("f32", "bf16", "f16")
CONVOLUTIONS, PRODUCTS = ("Convolution",), ("FullyConnected", "MatMul")
CONVERSIONS = ("Reorder", "Convert")
JOINED = "Subgraph"
"""Operations that OpenVINO compiles into one, attention among them."""
_ATTENTION, _MULTIPLIES = 2, re.compile(r"MatMul(_\d+)?$")
NOT_RUN = ("Const", "Input", "Output", "Reshape")
"""Kinds of nodes that only stand for something."""
_ROUNDS = re.compile(r"(Quantize|Dequantize)Linear(_\d+)?$")
_ENDS = ("/WithoutBiases",)
_GROUPED = 5  # dimensions of the weight of a convolution in groups of channels


class Times(NamedTuple):
    """Mean times of all nodes by name, microseconds, and over how many frames."""

    means: Mapping[str, int]
    frames: int


def times(compiled: Any, frames: int) -> Times:
    """Mean time of every node since a model was compiled, with ``PERF_COUNT``.

    Args:
        compiled: The compiled model.
        frames: How many frames it has computed.
    """
    found = {}
    for node in compiled.get_runtime_model().get_ops():
        text = _said(node, "execTimeMcs")
        found[node.get_friendly_name()] = int(text) if text.isdecimal() else 0
    return Times(found, frames)


def operations(compiled: Any, before: Times, after: Times) -> list[Operation]:
    """Operations with their mean times between two moments, in the order in which they run.

    Args:
        compiled: The compiled model.
        before: When the warming up was over.
        after: At the end.
    """
    nodes = [node for node in compiled.get_runtime_model().get_ops() if _runs(node)]
    nodes.sort(key=lambda node: int(_said(node, "execOrder") or 0))
    quantized = {part_of(origin) for node in nodes for origin in _origins(node) if _ROUNDS.search(origin)}
    frames = after.frames - before.frames
    found = []
    for node in nodes:
        name = node.get_friendly_name()
        spent = after.means.get(name, 0) * after.frames - before.means.get(name, 0) * before.frames
        # means are of whole microseconds: what takes less than one can come out below 0
        found.append(_operation(node, max(0.0, spent / frames / 1e3), quantized))
    return found


def _runs(node: Any) -> bool:
    """Whether a node does something for every frame: not where it stands for a tensor, or changes a constant's type."""
    kind = _said(node, "layerType")
    return kind not in ("", *NOT_RUN) and (kind not in CONVERSIONS or bool(_makers(node)))


def _operation(node: Any, milliseconds: float, quantized: set[str]) -> Operation:
    kind, runs_in = _said(node, "layerType"), _said(node, "runtimePrecision")
    name = _name(node)
    reason = "" if runs_in in CODES else _reason(node, name, kind, quantized)
    return Operation(name, kind, runs_in, milliseconds, _macs(node, kind), reason, _said(node, "primitiveType"))


def _name(node: Any) -> str:
    """The node's name without what OpenVINO adds; of a node of its own, that of the first that went into it."""
    name = str(node.get_friendly_name())
    for end in _ENDS:
        name = name.removesuffix(end)
    return name


def _reason(node: Any, name: str, kind: str, quantized: set[str]) -> str:
    """Why a node runs in float."""
    origins = _origins(node)
    reads = any(_gives(each) in CODES for each in _makers(node))
    gives = _gives(node) in CODES
    if not quantized:
        return FLOAT_FILE
    if kind in CONVERSIONS or (origins and all(_ROUNDS.search(each) for each in origins)):
        return TO_CODES if gives and not reads else TO_FLOATS if reads and not gives else LAYOUT
    if kind in (*CONVOLUTIONS, *PRODUCTS) and reads and _weight_type(node) in FLOATS:
        return WEIGHT
    own = next((each for each in origins if part_of(each)), name)
    return why_float(TITLE, Surroundings(own, kind, reads, gives), quantized)


def _macs(node: Any, kind: str) -> int | None:
    """Products of a convolution, matrix product or attention in one; ``None`` where its size is open."""
    attends = kind == JOINED and sum(bool(_MULTIPLIES.search(each)) for each in _origins(node)) == _ATTENTION
    if kind not in (*CONVOLUTIONS, *PRODUCTS) and not attends:
        return 0
    source = 0 if kind in PRODUCTS else 1
    if attends:
        source = len(node.inputs()) - 1  # values: as many rows as there are weights for a query
    shapes = [node.get_output_partial_shape(0), node.input(source).get_partial_shape()]
    if any(shape.is_dynamic for shape in shapes):
        return None
    result, weight = ([int(size.get_length()) for size in shape] for shape in shapes)
    if attends:
        query = [int(size.get_length()) for size in node.input(0).get_partial_shape()]
        return (math.prod(query) + math.prod(result)) * weight[-2]
    if kind in PRODUCTS:
        return math.prod(result) * (math.prod(weight[-2:]) // result[-2])  # either factor may be turned
    return math.prod(result) * math.prod(weight[2:] if len(weight) == _GROUPED else weight[1:])


def _makers(node: Any) -> Sequence[Any]:
    """Nodes that give what a node reads, constants left out."""
    found = [each.get_source_output().get_node() for each in node.inputs()]
    return [each for each in found if _said(each, "layerType") != "Const"]


def _weight_type(node: Any) -> str:
    return _gives(node.input(1).get_source_output().get_node()) if len(node.inputs()) > 1 else ""


def _gives(node: Any) -> str:
    """Type of a node's first result."""
    return _said(node, "outputPrecisions").partition(",")[0]


def _origins(node: Any) -> list[str]:
    """Names of the nodes of the file that a node was made of."""
    return [name for name in _said(node, "originalLayersNames").split(",") if name]


def _said(node: Any, key: str) -> str:
    """What a node of a runtime model says about itself; empty where it does not."""
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""
