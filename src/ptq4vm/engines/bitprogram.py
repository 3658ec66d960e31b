"""The list of operations of a ``.bits`` file as loops over rows: joined where one follows the other, shared by threads.

All tensors have their place from the beginning, ``(C, H, W)`` float32; nothing is allocated while frames are matted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines import bitkernels
from ptq4vm.engines import rowkernels as loops
from ptq4vm.engines.bitlayout import EVERYWHERE, Floats, as_it_is, edges, flat, listed, pack_channels, three
from ptq4vm.engines.bitsizes import all_sizes
from ptq4vm.engines.bittasks import Rows, Tasks

BINARY = {"Add": loops.ADD, "Mul": loops.MUL, "Sub": loops.SUB, "Div": loops.DIV, "PRelu": loops.PRELU}
UNARY = {
    "Relu": loops.RELU,
    "Tanh": loops.TANH,
    "Sigmoid": loops.SIGMOID,
    "Hardsigmoid": loops.HARDSIGMOID,
    "Hardswish": loops.HARDSWISH,
}
_SMALL = 8192  # pixels of a picture whose rows are taken as one


@dataclass
class _Group:
    """A loop whose result is still to be changed, element by element, before it is written.

    Attributes:
        make: Gives the loop, from the chain's steps and operands, the mask and the place of the result; ``None`` where
            nothing is done but the chain.
        source: Tensor that the chain begins with, where there is no loop before it.
        steps: What is done to every value: a kind, and the number of an operand.
        operands: Tensors that the steps take.
        mask: Where its source is needed.
        node: Number of the node that it begins with.
    """

    make: Callable[[Any, Any, Floats, Floats], Rows] | None
    node: int
    source: Floats | None = None
    steps: list[tuple[int, int]] = field(default_factory=list)
    operands: list[Floats] = field(default_factory=list)
    mask: Floats = field(default_factory=lambda: EVERYWHERE)

    def add(self, kind: int, operand: Floats | None = None) -> None:
        self.steps.append((kind, len(self.operands)))
        if operand is not None:
            self.operands.append(operand)


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
        tasks: What is done for a frame.
        sizes: Channels, rows and columns of every tensor.
    """

    def __init__(self, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], threads: int | None) -> None:
        self.tasks = Tasks(threads)
        self._arrays = arrays
        ports = {name: tuple(map(int, size)) for name, size in described["inputs"].items()}
        constants = {name: three(value).shape for name, value in arrays.items() if value.dtype == np.float32}
        self.sizes = all_sizes(described["nodes"], {**constants, **ports})
        self._places: dict[str, Floats] = {name: np.zeros(size, np.float32) for name, size in ports.items()}
        self._inputs = list(described["inputs"])
        self._outputs = list(described["outputs"])
        nodes = described["nodes"]
        self._read = Counter(name for node in nodes for name in node["in"])
        self._read.update(self._outputs)
        self._edges = edges(nodes)
        self._packed: dict[str, tuple[NDArray[np.uint64], int, float]] = {}
        self._joined: dict[str, list[str]] = {}
        self._masks: set[str] = set()
        self._open: dict[str, _Group] = {}
        for self._number, node in enumerate(nodes):
            self._take(node)
        for name in list(self._open):
            self._close(name)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        """Compute one frame: inputs ``(1, C, H, W)`` by name to outputs likewise, in memory of their own."""
        for name in self._inputs:
            np.copyto(self._places[name], inputs[name][0])
        self.tasks.run()
        return {name: self._place(name)[None].copy() for name in self._outputs}

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
        if name in self._joined:
            parts = [self._place(part) for part in self._joined.pop(name)]
            whole = self._places[name] = np.empty(self.sizes[name], np.float32)
            ends = np.cumsum([0, *(len(part) for part in parts)])
            for part, start, stop in zip(parts, ends, ends[1:], strict=False):
                self._do_once(partial(np.copyto, whole[start:stop], part))
        if name not in self._places:
            self._places[name] = three(self._arrays[name])
        return self._places[name]

    def _operand(self, name: str) -> Floats:
        """As :meth:`_place`; of what repeats one tensor, that tensor is enough."""
        parts = self._joined.get(name)
        return self._place(parts[0] if parts is not None and len(set(parts)) == 1 else name)

    def _do_once(self, work: Callable[[], object]) -> None:
        def rows(start: int, stop: int) -> None:
            work()

        self._add(1, rows)

    def _add(self, rows: int, work: Rows) -> None:
        self.tasks.add(rows, work, self._number)

    def _close(self, name: str) -> None:
        group = self._open.pop(name)
        out = self._places[name] = np.zeros(self.sizes[name], np.float32)
        steps = np.array(group.steps, np.int64).reshape(-1, 2)
        small = out.shape[1] * out.shape[2] <= _SMALL
        if group.make is not None:
            first = steps[:0] if small else steps
            work = group.make(first, listed([] if small else group.operands), group.mask, out)
            self.tasks.add(out.shape[1], work, group.node)
            if not small or not len(steps):
                return
        source = out if group.source is None else group.source
        lay = flat if small else as_it_is
        rows = partial(loops.elementwise, lay(source), steps, listed([lay(each) for each in group.operands]), lay(out))
        self.tasks.add(len(out), rows, group.node)

    def _begin(self, name: str, make: Callable[[Any, Any, Floats, Floats], Rows]) -> _Group:
        group = self._open[name] = _Group(make, self._number)
        return group

    def _elementwise(self, node: Mapping[str, Any]) -> None:
        out, size = node["out"][0], self.sizes[node["out"][0]]
        mine = [n for n in node["in"] if n in self._open and self._read[n] == 1 and self.sizes[n] == size]
        main = mine[-1] if mine else next((n for n in node["in"] if self.sizes[n][1:] == size[1:]), node["in"][0])
        group = self._open.pop(main) if mine else _Group(None, self._number, self._operand(main))
        others = list(node["in"])
        others.remove(main)
        first = node["in"][0] == main
        self._step(group, node, others[0] if others else "", first)
        self._open[out] = group

    def _step(self, group: _Group, node: Mapping[str, Any], other: str, first: bool) -> None:
        kind = node["op"]
        if kind == "Clip":
            group.add(loops.MAX, np.full((1, 1, 1), node["low"], np.float32))
            group.add(loops.MIN, np.full((1, 1, 1), node["high"], np.float32))
        elif kind in UNARY:
            group.add(UNARY[kind])
        else:
            if kind == "Mul" and other in self._masks and not group.steps:
                group.mask = self._place(other)
            code = BINARY[kind]
            if not first and kind in ("Div", "PRelu"):
                raise ValueError(f"{kind} of a constant")
            group.add(loops.FROM if kind == "Sub" and not first else code, self._operand(other))

    def _sign(self, node: Mapping[str, Any]) -> None:
        (out,), source = node["out"], node["in"][0]
        channels, height, width = self.sizes[out]
        edge = self._edges.get(out, 0)
        planes = np.zeros((-(-channels // 64), height + 2 * edge, width + 2 * edge), np.uint64)
        shift = np.ascontiguousarray(self._place(node["in"][1]).reshape(-1))
        threshold = np.float32(0.5 if node["low"] == 0 else 0.0)
        at = 0
        for name in self._joined.get(source, [source]):
            part = self._place(name)
            self._add(height, partial(bitkernels.pack, part, shift, threshold, planes, at, edge))
            at += len(part)
        self._packed[out] = (planes, edge, node["low"])

    def _binaryconv(self, node: Mapping[str, Any]) -> None:
        planes, plane_edge, low = self._packed[node["in"][0]]
        outputs, inputs, taps, across = node["shape"]
        alone, edge = node["groups"] > 1, node["padding"]
        if taps != across or plane_edge < edge:
            raise ValueError(f"a filter of {taps}x{across}")
        bits = np.unpackbits(self._arrays[node["bits"]], count=outputs * inputs * taps * taps)
        signs = bits.reshape(outputs, inputs, taps * taps)
        words = signs.astype(np.uint64) if alone else pack_channels(signs)
        sums = 2 * signs.sum(1, dtype=np.int64) - inputs
        rest = (taps, node["stride"], node["dilation"], edge, inputs * taps * taps, int(alone), plane_edge - edge)
        geometry = np.array(rest, np.int64)
        size = np.array([planes.shape[1] - 2 * plane_edge, planes.shape[2] - 2 * plane_edge], np.int64)
        scale, *bias = (np.ascontiguousarray(self._place(name).reshape(-1)) for name in node["in"][1:])
        fixed = (planes, words, sums, geometry, size, int(low), scale, bias[0] if bias else np.zeros(0, np.float32))
        self._begin(
            node["out"][0],
            lambda steps, operands, mask, out: partial(bitkernels.binary, *fixed, mask, steps, operands, out),
        )

    def _padded(self, name: str, edge: int) -> Floats:
        source = self._place(name)
        if edge == 0:
            return source
        padded = np.zeros((source.shape[0], source.shape[1] + 2 * edge, source.shape[2] + 2 * edge), np.float32)
        self._do_once(partial(np.copyto, padded[:, edge:-edge, edge:-edge], source))
        return padded

    def _exactconv(self, node: Mapping[str, Any]) -> None:
        source = self._padded(node["in"][0], node["padding"])
        weight, bias = self._weights(node)
        self._begin(
            node["out"][0],
            lambda steps, operands, mask, out: partial(
                loops.exact_conv, source, weight, bias, node["stride"], steps, operands, out
            ),
        )

    def _conv(self, node: Mapping[str, Any]) -> None:
        source = self._padded(node["in"][0], node["padding"])
        weight, bias = self._weights(node)
        self._begin(
            node["out"][0],
            lambda steps, operands, mask, out: partial(loops.conv, source, weight, bias, mask, steps, operands, out),
        )

    def _weights(self, node: Mapping[str, Any]) -> tuple[Floats, Floats]:
        """Weight and bias of a float convolution, of the shape that was checked."""
        weight, bias = self._arrays[f"{node['weight']}.w"], self._arrays[f"{node['weight']}.b"]
        if weight.shape != tuple(node["shape"]) or bias.shape != weight.shape[:1]:
            raise ValueError(f"weights of {weight.shape}")
        return weight, bias

    def _new(self, node: Mapping[str, Any]) -> Floats:
        name = node["out"][0]
        place = self._places[name] = np.zeros(self.sizes[name], np.float32)
        return place

    def _halve(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node)
        self._add(out.shape[1], partial(loops.halve, source, out))

    def _double(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node)
        self._add(out.shape[1], partial(loops.double, source, out))

    def _slice(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node)
        self._do_once(partial(np.copyto, out, source[:, : out.shape[1], : out.shape[2]]))
        if node["in"][0] in self._masks:
            self._masks.add(node["out"][0])

    def _mean(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node)
        self._do_once(lambda: np.copyto(out, source.mean((1, 2), np.float64, keepdims=True).astype(np.float32)))

    def _mask(self, node: Mapping[str, Any]) -> None:
        source, out = self._place(node["in"][0]), self._new(node)
        threshold = self._place(node["in"][1]).reshape(-1)[0]
        small = np.zeros((len(source), -(-source.shape[1] // 2), -(-source.shape[2] // 2)), np.float32)
        smooth = np.zeros_like(source)

        def work() -> None:
            loops.halve(source, small, 0, small.shape[1])
            loops.double(small, smooth, 0, smooth.shape[1])
            away = np.abs(source - smooth).mean(0, np.float64)
            spread = max(np.sqrt(np.square(away - away.mean()).mean()), 1e-6)
            out[0] = np.tanh(away / spread) > threshold

        self._do_once(work)
        self._masks.add(node["out"][0])

    def _resize(self, node: Mapping[str, Any]) -> None:
        source, out, factor = self._place(node["in"][0]), self._new(node), node["factor"]
        height, width = out.shape[1:]
        self._do_once(lambda: np.copyto(out, source.repeat(factor, 1).repeat(factor, 2)[:, :height, :width]))
        if node["in"][0] in self._masks:
            self._masks.add(node["out"][0])

    def _concat(self, node: Mapping[str, Any]) -> None:
        for name in node["in"]:
            self._place(name)
        self._joined[node["out"][0]] = list(node["in"])

    def _split(self, node: Mapping[str, Any]) -> None:
        source, start = self._place(node["in"][0]), 0
        for name, size in zip(node["out"], node["parts"], strict=True):
            self._places[name] = source[start : start + size]
            start += size
