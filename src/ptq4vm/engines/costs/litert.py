"""What LiteRT runs: the operations of its graph, without times, since its Python package has no profiler."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ptq4vm.engines.costs.operation import Operation
from ptq4vm.engines.costs.reasons import FLOAT_FILE, SIZES, TO_CODES, TO_FLOATS, Surroundings, part_of, why_float

TITLE = "LiteRT"
UNTIMED = "LiteRT's Python package has no profiler: operations have no times, those with most products come first"
TABLE = "written in float between codes: XNNPACK makes a table of all 256 codes"
FLOAT_WEIGHT = (
    "its weight is stored as floats: calibration left it so, or its grids are none that LiteRT's integers have"
)
TYPES = {"int8": "i8", "uint8": "u8", "float32": "f32", "int32": "i32", "int64": "i64", "bool": "bool"}
XNNPACK, OWN = "XNNPACK", "LiteRT"
"""Whose kernels run an operation."""
_DENSE, _DEPTHWISE, _DELEGATE = "CONV_2D", "DEPTHWISE_CONV_2D", "DELEGATE"
_FROM, _TO, _FUNCTIONS = "DEQUANTIZE", "QUANTIZE", ("HARD_SWISH", "LOGISTIC", "TANH")
_WEIGHT = ":weight"
"""What the names of integer weights end in, after their layer's path."""


def operations(interpreter: Any) -> tuple[list[Operation], list[str]]:
    """Operations of a graph in the order in which they run, and what is to be known of all of them.

    Args:
        interpreter: LiteRT's, of a file whose tensors have their memory.
    """
    nodes = interpreter._get_ops_details()
    details = {int(each["index"]): each for each in interpreter.get_tensor_details()}
    graph = _Graph([node for node in nodes if node["op_name"] != _DELEGATE], details)
    parts = [node for node in nodes if node["op_name"] == _DELEGATE]
    outside = graph.outside(parts, [int(each["index"]) for each in interpreter.get_output_details()])
    quantized = {part_of(name) for name in graph.names if name} if graph.codes() else set()
    found = [
        graph.operation(place, OWN if place in outside else XNNPACK, quantized) for place in range(len(graph.nodes))
    ]
    return found, [
        UNTIMED,
        f"{len(parts)} parts of the graph run in XNNPACK, {len(outside)} operations in LiteRT's own",
    ]


class _Graph:
    """Nodes with the tensors that they read and give.

    Args:
        nodes: As the interpreter tells them, in order, without what stands for many.
        details: What it tells of tensors, by number.
    """

    def __init__(self, nodes: Sequence[Mapping[str, Any]], details: Mapping[int, Mapping[str, Any]]) -> None:
        self.nodes, self._details = nodes, details
        self._reads = [[int(each) for each in node["inputs"] if each >= 0] for node in nodes]
        self._gives = [[int(each) for each in node["outputs"] if each >= 0] for node in nodes]
        self._makers = {number: place for place, numbers in enumerate(self._gives) for number in numbers}
        self._readers: dict[int, list[int]] = {}
        for place, numbers in enumerate(self._reads):
            for number in numbers:
                self._readers.setdefault(number, []).append(place)
        self.names = [self._layer(place) for place in range(len(nodes))]

    def codes(self) -> bool:
        """Whether anything computes with codes."""
        return any(self._type(numbers[0]) in ("i8", "u8") for numbers in self._gives)

    def outside(self, parts: Sequence[Mapping[str, Any]], outputs: Sequence[int]) -> set[int]:
        """Places of the nodes that no part took: what they give is read by a part, an output, or another such node."""
        given = {int(number) for part in parts for number in part["outputs"]}
        waiting = [*outputs, *(int(number) for part in parts for number in part["inputs"])]
        found: set[int] = set()
        while waiting:
            number = waiting.pop()
            place = self._makers.get(number)
            if place is not None and number not in given and place not in found:
                found.add(place)
                waiting.extend(self._reads[place])
        return found

    def operation(self, place: int, kernel: str, quantized: set[str]) -> Operation:
        """A node as an operation."""
        kind, name = self._kind(place), self._name(place)
        runs_in = self._type((self._reads if kind in (_FROM, _TO) else self._gives)[place][0])
        reason = self._reason(place, name, runs_in, quantized)
        return Operation(name, kind, runs_in, 0.0, self._macs(place), reason, kernel)

    def _kind(self, place: int | None) -> str:
        return "" if place is None else str(self.nodes[place]["op_name"])

    def _type(self, number: int) -> str:
        kind = self._details[number]["dtype"].__name__ if number in self._details else "?"
        return TYPES.get(kind, kind)

    def _shape(self, number: int) -> list[int]:
        return [int(size) for size in self._details[number]["shape"]]

    def _layer(self, place: int) -> str:
        """Path of a convolution's layer, which its weight or its result has in its name; empty for other nodes."""
        if self._kind(place) not in (_DENSE, _DEPTHWISE):
            return ""
        weight = str(self._details[self._reads[place][1]]["name"])
        return weight.removesuffix(_WEIGHT) if weight.endswith(_WEIGHT) else self._tensor(place)

    def _tensor(self, place: int) -> str:
        return str(self._details[self._gives[place][0]]["name"])

    def _name(self, place: int) -> str:
        """A layer's path, or that of the layer that a node comes after, by what it reads first."""
        before: int | None = place
        while before is not None and not self.names[before]:
            makers = [self._makers[number] for number in self._reads[before] if number in self._makers]
            before = makers[0] if makers else None
        if before is None:
            return self._tensor(place)
        return self.names[before] if before == place else f"after {self.names[before]}"

    def _macs(self, place: int) -> int:
        kind = self._kind(place)
        if kind not in (_DENSE, _DEPTHWISE):
            return 0
        weight = self._shape(self._reads[place][1])
        return math.prod(self._shape(self._gives[place][0])) * math.prod(
            weight[1:3] if kind == _DEPTHWISE else weight[1:]
        )

    def _reason(self, place: int, name: str, runs_in: str, quantized: set[str]) -> str:
        kind = self._kind(place)
        if self._looked_up(place):
            return TABLE
        if kind in (_FROM, _TO):
            return TO_FLOATS if kind == _FROM else TO_CODES
        if runs_in in ("i8", "u8"):
            return ""
        if runs_in in ("i32", "i64", "bool"):
            return SIZES
        if not quantized:
            return FLOAT_FILE
        if kind in (_DENSE, _DEPTHWISE):
            return FLOAT_WEIGHT
        makers = Counter(self._kind(self._makers.get(number)) for number in self._reads[place])
        readers = Counter(
            self._kind(reader) for number in self._gives[place] for reader in self._readers.get(number, ())
        )
        around = Surroundings(name.removeprefix("after "), kind, bool(makers[_FROM]), bool(readers[_TO]))
        return why_float(TITLE, around, quantized)

    def _looked_up(self, place: int) -> bool:
        """Whether a node is, or lies beside, a function of codes that gives codes."""
        kind = self._kind(place)
        if kind == _TO:
            function = self._makers.get(self._reads[place][0])
        else:
            function = self._only_reader(place) if kind == _FROM else place
        if function is None or self._kind(function) not in _FUNCTIONS:
            return False
        source = self._makers.get(self._reads[function][0])
        return self._kind(source) == _FROM and self._kind(self._only_reader(function)) == _TO

    def _only_reader(self, place: int) -> int | None:
        readers = self._readers.get(self._gives[place][0], [])
        return readers[0] if len(readers) == 1 else None
