"""The list of operations of a ``.bits`` file, laid out in memory: joined where one follows the other.

All tensors have their place from the beginning, ``(C, H, W)`` float32; nothing is allocated while frames are matted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.bits import convolutions, kernels
from ptq4vm.engines.bits import rows as loops
from ptq4vm.engines.bits.arena import Arena, roots
from ptq4vm.engines.bits.groups import Group, Start, one_value, shape_of, source_of
from ptq4vm.engines.bits.layout import MARGIN, Floats, Signs, columns, edges, room, rounded, strides, three, with_edge
from ptq4vm.engines.bits.machine import Machine, Operation, memory
from ptq4vm.engines.bits.sizes import all_sizes
from ptq4vm.engines.bits.tiles import ACROSS

BINARY = {"Add": loops.ADD, "Mul": loops.MUL, "Sub": loops.SUB, "Div": loops.DIV, "PRelu": loops.PRELU}
UNARY = {
    "Relu": loops.RELU,
    "Tanh": loops.TANH,
    "Sigmoid": loops.SIGMOID,
    "Hardsigmoid": loops.HARDSIGMOID,
    "Hardswish": loops.HARDSWISH,
}


class Program:
    """A program, laid out for one size and a number of threads.

    Args:
        described: What the file says: ``inputs``, ``outputs`` and ``nodes``.
        arrays: The file's tensors.
        threads: CPU threads; all that the process may use when not given.

    Raises:
        KeyError: A tensor or an operation is unknown.
        ValueError: A shape does not fit.

    Attributes:
        machine: What is done for a frame.
        sizes: Channels, rows and columns of every tensor.
    """

    def __init__(self, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], threads: int | None) -> None:
        self._arrays, self._described = arrays, described
        self._inputs = list(described["inputs"])
        self._outputs = list(described["outputs"])
        first = Arena()
        self._lay_out(first, threads)
        pinned = roots([self._places[name] for name in (*self._inputs, *self._outputs)])
        self._lay_out(Arena(*first.plan(self.machine, pinned)), threads)

    def _lay_out(self, arena: Arena, threads: int | None) -> None:
        self.machine, self._arena = Machine(threads), arena
        ports = {name: tuple(map(int, size)) for name, size in self._described["inputs"].items()}
        constants = {name: three(value).shape for name, value in self._arrays.items() if value.dtype == np.float32}
        nodes = self._described["nodes"]
        self.sizes = all_sizes(nodes, {**constants, **ports})
        self._places: dict[str, Floats] = {name: arena.room(size) for name, size in ports.items()}
        self._read = Counter(name for node in nodes for name in node["in"])
        self._read.update(self._outputs)
        self._summed = {name for node in nodes if node["op"] == "Add" for name in node["in"]}
        self._edges, self._strides = edges(nodes), strides(nodes)
        self._signs: dict[tuple[str, int], Signs] = {}
        self._joined: dict[str, list[str]] = {}
        self._masks: set[str] = set()
        self._open: dict[str, Group] = {}
        self._scaled: dict[str, tuple[Floats, Floats]] = {}
        self._halved: dict[str, Floats] = {}
        self._doubled: dict[str, list[Floats]] = {}
        for self._number, node in enumerate(nodes):
            self._take(node)
        for name in self._outputs:
            self._place(name)
        self.machine.finish()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        """Compute one frame: inputs ``(1, C, H, W)`` by name to outputs likewise, in memory of their own."""
        for name in self._inputs:
            np.copyto(self._places[name], inputs[name][0])
        self.machine.run()
        return {name: self._places[name][None].copy() for name in self._outputs}

    # laying out

    def _take(self, node: Mapping[str, Any]) -> None:
        kind = node["op"]
        if kind in BINARY or kind in UNARY or kind == "Clip":
            self._elementwise(node)
        else:
            getattr(self, f"_{kind.lower()}")(node)

    def _place(self, name: str) -> Floats:
        """The tensor's place, once it is written: what is open is closed, what is joined is copied together."""
        if name in self._open:
            self._close(name)
        if name in self._scaled:
            factor, source = self._scaled.pop(name)
            self._open[name] = Group(self._number, None, source)
            self._open[name].add(loops.MUL, factor)
            self._close(name)
        if name in self._joined:
            self._join(name)
        if name in self._doubled:
            parts, (channels, height, width) = self._doubled.pop(name), self.sizes[name]
            whole, start = self._arena.room((channels, 2 * parts[0].shape[1], 2 * parts[0].shape[2])), 0
            for part in parts:
                self._enlarge_twice(part, whole[start : start + len(part)])
                start += len(part)
            self._places[name] = whole[:, :height, :width]
        if name not in self._places:
            value = three(self._arrays[name])
            self._places[name] = value if one_value(value) else room(value.shape)
            self._places[name][:] = value
        return self._places[name]

    def _join(self, name: str) -> None:
        parts = [self._place(part) for part in self._joined.pop(name)]
        whole, start = self._new(name), 0
        for part in parts:
            self._work(kernels.ELEMENTWISE, part, whole[start : start + len(part)], flat=0)
            start += len(part)

    def _operand(self, name: str) -> Floats:
        """As :meth:`_place`; of what repeats one tensor, that tensor is enough."""
        parts = self._joined.get(name)
        return self._place(parts[0] if parts is not None and len(set(parts)) == 1 else name)

    def _new(self, name: str) -> Floats:
        place = self._places[name] = self._arena.room(self.sizes[name])
        return place

    def _work(self, kind: int, source: Floats, place: Floats, wide: bool = False, /, **fields: int) -> None:
        """An operation that reads one tensor; ``wide`` where it reads other rows of it than it writes."""
        record = {"kind": kind, **shape_of(place, rounded(place.shape[2], ACROSS)), **source_of(source), **fields}
        around = {memory(source)} if wide else set()
        pixels = record["length"]
        operation = Operation(place.shape[1], pixels, record, (self._number,), around, {memory(place)}, [source, place])
        self.machine.add(operation)

    def _close(self, name: str) -> None:
        group, size = self._open.pop(name), self.sizes[name]
        out = self._places[name] = self._arena.room(size, group.edge)
        self.machine.add(group.operation(size, out))

    def _begin(self, name: str, start: Start) -> None:
        self._open[name] = Group(self._number, start)

    def _elementwise(self, node: Mapping[str, Any]) -> None:
        out, size = node["out"][0], self.sizes[node["out"][0]]
        mine = [n for n in node["in"] if n in self._open and self._read[n] == 1 and self.sizes[n] == size]
        if not mine and self._is_scaled(node):
            return
        main = mine[-1] if mine else next((n for n in node["in"] if self.sizes[n][1:] == size[1:]), node["in"][0])
        group = self._open.pop(main) if mine else Group(self._number, None, self._operand(main))
        others = list(node["in"])
        others.remove(main)
        self._step(group, node, others[0] if others else "", node["in"][0] == main)
        self._open[out] = group

    def _is_scaled(self, node: Mapping[str, Any]) -> bool:
        """Whether a node gives each channel of a tensor a factor, only to be added to something: no pass of its own."""
        (out,), names = node["out"], node["in"]
        if node["op"] != "Mul" or self._read[out] != 1 or out not in self._summed:
            return False
        factors = [name for name in names if name in self._arrays and self.sizes[name][1:] == (1, 1)]
        if len(factors) != 1 or self.sizes[out][1:] == (1, 1):
            return False
        source = next(name for name in names if name != factors[0])
        if self.sizes[source][1:] != self.sizes[out][1:]:
            return False
        self._scaled[out] = self._place(factors[0]), self._operand(source)
        return True

    def _step(self, group: Group, node: Mapping[str, Any], other: str, first: bool) -> None:
        kind = node["op"]
        if kind == "Clip":
            group.add(loops.MAX, np.full((1, 1, 1), node["low"], np.float32))
            group.add(loops.MIN, np.full((1, 1, 1), node["high"], np.float32))
        elif kind in UNARY:
            group.add(UNARY[kind])
        elif kind == "Add" and other in self._scaled:
            factor, source = self._scaled.pop(other)
            group.add(loops.ADD_SCALED, source, factor)
        elif kind == "Add" and self._read[other] == 1 and other in self._open and group.take_pair(self._open[other]):
            self._open.pop(other)
        else:
            if kind == "Mul" and other in self._masks and not group.steps:
                group.mask = self._place(other)
            if not first and kind in ("Div", "PRelu"):
                raise ValueError(f"{kind} of a constant")
            group.add(loops.FROM if kind == "Sub" and not first else BINARY[kind], self._operand(other))

    def _table(self, source: str) -> tuple[NDArray[np.int64], list[NDArray[Any]], set[int]]:
        """What signs are of, by channels; see :func:`~ptq4vm.engines.bits.kernels.pack`. And the memory behind it."""
        lines, parts, around, first = [], [], set(), True
        for name in self._joined.get(source, [source]):
            small = self._doubled.get(name, []) if first else []
            first = bool(small)  # rows that are enlarged come before those that are not
            for part in small or [self._place(name)]:
                size = part.shape[1:] if small else (0, 0)
                lines += [(row.ctypes.data, part.strides[1], *size) for row in part]
                parts.append(part)
            around |= {memory(part) for part in small}
        return np.array(lines, np.int64), parts, around

    def _sign(self, node: Mapping[str, Any]) -> None:
        (out,), source = node["out"], node["in"][0]
        size, edge = self.sizes[out], self._edges.get(out, 0)
        channels, height, width = size
        shift = np.array(np.broadcast_to(self._place(node["in"][1]).reshape(-1), channels))
        threshold = np.array([0.5 if node["low"] == 0 else 0.0], np.float32)
        table, parts, around = self._table(source)
        length = rounded(width, ACROSS)
        for stride in self._strides.get(out, set()):
            column = columns(width, edge, stride)
            planes = np.zeros((-(-channels // 32), height + 2 * edge, stride * column), np.uint32)
            record = {
                **shape_of(planes, length),
                "kind": kernels.PACK,
                "channels": channels,
                "width": width,
                "source": table.ctypes.data,
                "edge": edge,
                "stride": stride,
                "columns": column,
                "shift": shift.ctypes.data,
                "threshold": threshold.ctypes.data,
            }
            kept: list[NDArray[Any]] = [planes, shift, threshold, table, *parts]
            self.machine.add(Operation(height, length, record, (self._number,), around, {memory(planes)}, kept))
            self._signs[out, stride] = Signs(planes, edge, stride, int(node["low"]), size)

    def _binaryconv(self, node: Mapping[str, Any]) -> None:
        signs = self._signs[node["in"][0], node["stride"]]
        outputs, inputs, taps, across = node["shape"]
        if taps != across or signs.edge < node["padding"]:
            raise ValueError(f"a filter of {taps}x{across}")
        bits = np.unpackbits(self._arrays[node["bits"]], count=outputs * inputs * taps * taps)
        scale, *bias = (self._place(name).reshape(-1) for name in node["in"][1:])
        weights, out = bits.reshape(outputs, inputs, taps * taps), self.sizes[node["out"][0]][1:]
        shift = bias[0] if bias else scale[:0]
        self._begin(node["out"][0], convolutions.binary(signs, weights, node, out, scale, shift))

    def _padded(self, name: str, edge: int, stride: int) -> tuple[Floats, int]:
        """A tensor from its edge on, and how far the phases of its rows are apart, in bytes."""
        if edge == 0 and stride == 1:
            return self._place(name), 0
        if stride == 1 and name in self._open and edge <= MARGIN:
            self._open[name].edge = edge
            return with_edge(self._place(name), edge), 0
        source = self._place(name)
        channels, height, width = source.shape
        column = columns(width, edge, stride)
        padded = np.zeros((channels, height + 2 * edge, stride * column), np.float32)
        inner = padded[:, edge : edge + height]
        self._work(
            kernels.PAD, source, inner, edge=edge, stride=stride, columns=column, width=width, out=padded.ctypes.data
        )
        return padded, 4 * column

    def _exactconv(self, node: Mapping[str, Any]) -> None:
        self._floating(node, exact=True)

    def _conv(self, node: Mapping[str, Any]) -> None:
        self._floating(node, exact=False)

    def _floating(self, node: Mapping[str, Any], exact: bool) -> None:
        source, column = self._padded(node["in"][0], node["padding"], node["stride"])
        weight, bias = self._arrays[f"{node['weight']}.w"], self._arrays[f"{node['weight']}.b"]
        if weight.shape != tuple(node["shape"]) or bias.shape != weight.shape[:1]:
            raise ValueError(f"weights of {weight.shape}")
        self._begin(node["out"][0], convolutions.floating(source, column, weight, bias, node["stride"], exact))

    def _halve(self, node: Mapping[str, Any]) -> None:
        (name,), (out,) = node["in"], node["out"]
        if name not in self._halved:
            source, place = self._place(name), self._new(out)
            self._work(kernels.HALVE, source, place, True, height=source.shape[1], columns=source.shape[2])
            self._halved[name] = place
        self._places[out] = self._halved[name]

    def _enlarge_twice(self, source: Floats, out: Floats) -> None:
        self._work(kernels.DOUBLE, source, out, True, height=source.shape[1], columns=source.shape[2])

    def _double(self, node: Mapping[str, Any]) -> None:
        """Nothing yet: where only signs are taken, they are taken of rows that are enlarged then."""
        (name,) = node["in"]
        self._doubled[node["out"][0]] = [self._place(part) for part in self._joined.get(name, [name])]

    def _slice(self, node: Mapping[str, Any]) -> None:
        (name,), (out,) = node["in"], node["out"]
        _, height, width = self.sizes[out]
        if name in self._doubled:
            self._doubled[out] = self._doubled[name]
            return
        self._places[out] = self._place(name)[:, :height, :width]
        if name in self._masks:
            self._masks.add(out)

    def _mean(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node["out"][0])

        def work() -> None:
            np.copyto(out, source.mean((1, 2), np.float64, keepdims=True).astype(np.float32))

        self.machine.call(work, source, out)

    def _mask(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node["out"][0])
        threshold = self._place(node["in"][1]).reshape(-1)[0]
        channels, height, width = source.shape
        small = self._arena.room((channels, -(-height // 2), -(-width // 2)))
        smooth = self._arena.room((channels, 2 * small.shape[1], 2 * small.shape[2]))
        self._work(kernels.HALVE, source, small, True, height=height, columns=width)
        self._enlarge_twice(small, smooth)

        def work() -> None:
            away = np.abs(source - smooth[:, :height, :width]).mean(0, np.float64)
            spread = max(np.sqrt(np.square(away - away.mean()).mean()), 1e-6)
            out[0] = np.tanh(away / spread) > threshold

        self.machine.call(work, source, smooth, out)
        self._masks.add(node["out"][0])

    def _resize(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node["out"][0])
        self._work(kernels.ENLARGE, source, out, True, stride=node["factor"])
        if node["in"][0] in self._masks:
            self._masks.add(node["out"][0])

    def _concat(self, node: Mapping[str, Any]) -> None:
        for name in node["in"]:
            if name not in self._doubled:
                self._place(name)
        self._joined[node["out"][0]] = list(node["in"])

    def _split(self, node: Mapping[str, Any]) -> None:
        source, start = self._place(node["in"][0]), 0
        for name, size in zip(node["out"], node["parts"], strict=True):
            self._places[name] = source[start : start + size]
            start += size
