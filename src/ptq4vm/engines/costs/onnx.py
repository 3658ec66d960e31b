"""What ONNX Runtime ran: its profile beside the graph that it made of the file."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptq4vm.engines.costs.operation import Operation
from ptq4vm.engines.costs.reasons import (
    FLOAT_FILE,
    LAYOUT,
    SIZES,
    TO_CODES,
    TO_FLOATS,
    UNREAD,
    WEIGHT,
    WEIGHT_TO_FLOATS,
    Surroundings,
    part_of,
    why_float,
)
from ptq4vm.errors import ExportError
from ptq4vm.system.extras import needed

TITLE = "ONNX Runtime"
OPTIMIZED, PREFIX = "optimized.onnx", "profile"
"""Names of the files that a session leaves in the folder for it."""
TYPES = {"uint8": "u8", "int8": "i8", "float": "f32", "float16": "f16", "int32": "i32", "int64": "i64", "bool": "bool"}
MOVES = ("Transpose", "Reshape", "Concat", "Split", "Slice", "Pad", "Squeeze", "Unsqueeze", "Gather", "Identity")
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv")
PRODUCTS = ("MatMul", "MatMulIntegerToFloat", "QLinearMatMul", "Gemm", "FusedMatMul")
Typed = tuple[str, Sequence[int]]
"""Type and shape of a tensor, from a profile."""
_KERNEL, _ADDED = "_kernel_time", re.compile(r"(_token_\d+|_nchwc)+$")
_NAMELESS = re.compile(r"(shaped|grid)/|\d+$|[A-Za-z]+_\d+$|(Transpose|Reorder)|$")
_WEIGHT = "/weight"
"""What the names of nodes that give a layer's weight end in, after its path."""
_INT4 = (21, 22)  # UINT4 and INT4, in ONNX's list of types


def operations(file: Path, profile: Path, optimized: Path, frames: int) -> list[Operation]:
    """Operations of a graph with their times.

    Args:
        file: The exported file, which has the layers' names.
        profile: What ``end_profiling`` wrote.
        optimized: The graph that the session made of the file and wrote.
        frames: How many of the last runs count.

    Raises:
        ExportError: Profile and graph do not fit together.
        ConfigError: onnx is not installed.
    """
    onnx = needed("onnx", "onnx")
    events = [each for each in json.loads(profile.read_text(encoding="utf-8")) if each["name"].endswith(_KERNEL)]
    events.sort(key=lambda each: each["ts"])
    graph = _Graph(onnx.load_model(optimized).graph, _names(onnx.load_model(file).graph))
    count = len(graph.nodes)
    spent: list[float] = [0.0] * count
    seen: list[Mapping[str, Any]] = [{}] * count
    for number in range(frames):
        run = events[len(events) - (number + 1) * count :][:count]
        for place, event in zip(graph.places(run), run, strict=True):
            spent[place] += event["dur"] / 1e3 / frames
            seen[place] = event["args"]
    quantized = graph.quantized_parts()
    return [graph.operation(*each, quantized) for each in zip(graph.nodes, spent, seen, strict=True)]


def _names(graph: Any) -> dict[str, str]:
    """What the nodes of an exported file are called, by the tensors that they give: layers by their paths."""
    weights = {
        each.output[0]: str(each.name).removesuffix(_WEIGHT) for each in graph.node if each.name.endswith(_WEIGHT)
    }
    found = {}
    for node in graph.node:
        layer = next((weights[name] for name in node.input if name in weights), str(node.name))
        found.update(dict.fromkeys(node.output, layer))
    return found


class _Graph:
    """The nodes of the graph that ran, who makes a tensor and who reads it.

    Args:
        graph: The ``onnx.GraphProto``.
        names: Names of nodes of the file by the tensors that they give.
    """

    def __init__(self, graph: Any, names: Mapping[str, str]) -> None:
        self.nodes: Sequence[Any] = list(graph.node)
        self._names, self._layers = names, set(names.values())
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def places(self, events: Sequence[Mapping[str, Any]]) -> list[int]:
        """The number of every event's node, by its name; those without one in the order of their kind.

        Raises:
            ExportError: The events are of another graph.
        """
        waiting: dict[tuple[str, str], deque[int]] = {}
        for place, node in enumerate(self.nodes):
            waiting.setdefault((node.name, node.op_type), deque()).append(place)
        found = []
        for event in events:
            kind = event["args"]["op_name"]
            named = waiting.get((event["name"].removesuffix(_KERNEL), kind))
            places = named or waiting.get(("", kind))
            if not places:
                raise ExportError(f"ONNX Runtime ran {event['name']}, which is not in the graph that it wrote")
            found.append(places.popleft())
        return found

    def quantized_parts(self) -> set[str]:
        """Parts of the network in which there are codes."""
        kinds = ("QuantizeLinear", "DequantizeLinear")
        found = [node for node in self.nodes if node.op_type in kinds or node.op_type.startswith("QLinear")]
        return {part_of(self._own(node)) for node in found}

    def operation(self, node: Any, milliseconds: float, seen: Mapping[str, Any], quantized: set[str]) -> Operation:
        """A node with what the profile saw of it."""
        inputs, outputs = (_typed(seen.get(f"{side}_type_shape", [])) for side in ("input", "output"))
        kind = inputs[0][0] if inputs else outputs[0][0] if outputs else "?"
        name = self._name(node)
        macs = self._macs(node, inputs, outputs)
        return Operation(name, node.op_type, kind, milliseconds, macs, self._reason(node, name, kind, quantized))

    def _name(self, node: Any) -> str:
        """The node's own name where it says something, else that of what it comes after."""
        before = node
        while _NAMELESS.match(self._own(before)):
            behind = [self._makers[name] for name in before.input if name in self._makers]
            if not behind:
                return self._own(node) or str(node.output[0])
            before = behind[0]
        return self._own(node) if before is node else f"after {self._own(before)}"

    def _own(self, node: Any) -> str:
        """What the node is called, in the file where it is there too."""
        name = _ADDED.sub("", str(node.name))
        if name in self._layers:
            return name
        return next((self._names[each] for each in (name, node.output[0]) if each in self._names), name)

    def _macs(self, node: Any, inputs: Sequence[Typed], outputs: Sequence[Typed]) -> int:
        """Products of a convolution, whose weight has its shape in the graph, folded or not, or of two matrices."""
        if node.op_type in PRODUCTS and inputs and outputs:
            turned = any(each.name == "transA" and each.i for each in node.attribute)
            return math.prod(outputs[0][1]) * inputs[0][1][-2 if turned else -1]
        if node.op_type not in CONVOLUTIONS or not outputs:
            return 0
        name = node.input[3 if node.op_type == "QLinearConv" else 1]
        source = self._makers.get(name)
        weight = self._tensors.get(source.input[0] if source is not None else name)
        return 0 if weight is None else math.prod(outputs[0][1]) * math.prod(weight.dims[1:])

    def _reason(self, node: Any, name: str, kind: str, quantized: set[str]) -> str:
        if node.op_type == "QuantizeLinear":
            return TO_CODES
        if node.op_type == "DequantizeLinear":
            layer = name.removesuffix(_WEIGHT)
            return TO_FLOATS if layer == name else WEIGHT_TO_FLOATS
        if kind in ("u8", "i8"):
            return ""
        if kind in ("i32", "i64", "bool"):
            return SIZES
        if not quantized:
            return FLOAT_FILE
        if node.op_type in ("ReorderInput", "ReorderOutput"):
            return LAYOUT
        around = Surroundings(name.removeprefix("after "), node.op_type, self._reads(node), self._gives(node))
        return (self._of_convolution(node, around) if node.op_type in CONVOLUTIONS else "") or why_float(
            TITLE, around, quantized
        )

    def _of_convolution(self, node: Any, around: Surroundings) -> str:
        """What keeps ONNX Runtime from running a convolution with integers; empty where nothing special does."""
        weight = self._makers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":
            return "" if not around.reads else WEIGHT
        if not around.reads:
            return UNREAD
        if not around.gives:
            return "its result is not quantized: ONNX Runtime's integer convolutions end in codes (+target=onnx)"
        if self._tensors[weight.input[0]].data_type in _INT4:
            return "weights of 4 bits: ONNX Runtime's integer convolutions take 8"
        bias = self._makers.get(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and (bias is None or bias.op_type != "DequantizeLinear"):
            return "float bias: ONNX Runtime's integer convolutions take a bias of integers"
        source = self._makers.get(node.input[0])
        if source is not None and source.op_type == "DequantizeLinear" and self._tensors[source.input[1]].dims:
            return "a scale for every channel of what it reads: ONNX Runtime's integer convolutions take one"
        return ""

    def _reads(self, node: Any) -> bool:
        """Whether floats that come from an activation's codes reach a node, moved about or not."""
        makers = [self._makers[name] for name in node.input if name in self._makers]
        return any(
            (each.op_type == "DequantizeLinear" and each.input[0] not in self._tensors)
            or each.op_type == "MatMulIntegerToFloat"
            or (each.op_type in MOVES and self._reads(each))
            for each in makers
        )

    def _gives(self, node: Any) -> bool:
        """Whether codes are made of what a node gives, moved about or not."""
        readers = [each for name in node.output for each in self._readers.get(name, ())]
        return any(
            each.op_type == "QuantizeLinear" or (each.op_type in MOVES and self._gives(each)) for each in readers
        )


def _typed(found: Sequence[Mapping[str, Sequence[int]]]) -> list[Typed]:
    return [(TYPES.get(kind, kind), shape) for each in found for kind, shape in each.items()]
