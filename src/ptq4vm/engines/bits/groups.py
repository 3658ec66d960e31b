"""Operations of a ``.bits`` program that are still to be written, with what is done to their result value by value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.bits import kernels
from ptq4vm.engines.bits import rows as loops
from ptq4vm.engines.bits.layout import Floats, rounded
from ptq4vm.engines.bits.machine import Operation, memory, record_of
from ptq4vm.engines.bits.tiles import ACROSS


class Step(NamedTuple):
    """What a chain does: a kind of :mod:`~ptq4vm.engines.bits.rows`, and its operands."""

    kind: int
    operand: Floats | None = None
    second: Floats | None = None


class Start(NamedTuple):
    """What computes a tensor before its chain.

    Attributes:
        record: Fields of its record; where its result goes is not known yet.
        around: Memory of which it reads other rows than it writes.
        kept: Arrays that only the record knows of.
    """

    record: dict[str, int]
    around: set[int]
    kept: list[NDArray[Any]]


@dataclass
class Group:
    """An operation whose result is still to be changed, value by value, before it is written.

    Attributes:
        node: Number of the node that it begins with.
        start: What computes the tensor; ``None`` where nothing is done but the chain.
        source: Tensor that the chain begins with, where nothing computes it before.
        steps: What is done to every value.
        mask: Where the start's result is needed; ``None`` for everywhere.
        edge: Rows and columns of zeros that the result needs around it.
        pair: A convolution that is added to this one where it is needed, before the steps.
    """

    node: int
    start: Start | None
    source: Floats | None = None
    steps: list[Step] = field(default_factory=list)
    mask: Floats | None = None
    edge: int = 0
    pair: Group | None = None

    def take_pair(self, other: Group) -> bool:
        """Take a convolution that is needed where a mask is set, to add it to this one. Whether that can be."""
        if self.start is None or other.start is None or self.steps or self.pair or other.pair or self.mask is not None:
            return False
        masked = other.mask is not None and [step.kind for step in other.steps] == [loops.MUL]
        kind = self.start.record["kind"]
        if not masked or kind not in (kernels.BINARY, kernels.FLOAT) or other.start.record["kind"] != kind:
            return False
        self.pair = other
        return True

    def add(self, kind: int, operand: Floats | None = None, second: Floats | None = None) -> None:
        """Put a step behind the others. What is subtracted and added again around a PReLU is one step with it."""
        if kind == loops.ADD and [step.kind for step in self.steps[-2:]] == [loops.SUB, loops.PRELU]:
            (_, moved, _), (_, slope, _) = self.steps[-2:]
            if operand is moved and one_value(moved):
                self.steps[-2:] = [Step(loops.BENT, moved, slope)]
                return
        self.steps.append(Step(kind, operand, second))

    def operation(self, size: tuple[int, ...], out: Floats) -> Operation:
        """The operation that computes it into the place of the result, of ``size``."""
        length = rounded(size[2], ACROSS)
        rows = [step.operand for step in self.steps if step.operand is not None and not one_value(step.operand)]
        record = {**shape_of(out, length), "clean": int(self.edge > 0 and size[2] < length)}
        kept: list[NDArray[Any]] = [out]
        around: set[int] = set()
        if self.start is not None:
            record |= self.start.record
            kept, around = [*kept, *self.start.kept], self.start.around
            if self.mask is not None:
                record |= mask_of(self.mask)
                kept.append(self.mask)
            if self.pair is not None:
                assert self.pair.start is not None and self.pair.mask is not None
                table = record_of(
                    {**self.pair.start.record, **mask_of(self.pair.mask), "channels": len(out), "length": length}
                )
                record["pair"] = table.ctypes.data
                kept += [table, self.pair.mask, *self.pair.start.kept]
                around = around | self.pair.start.around
        else:
            assert self.source is not None
            record |= {"kind": kernels.ELEMENTWISE, **source_of(self.source)}
            kept.append(self.source)
            rows += [] if one_value(self.source) else [self.source]
        record["flat"] = int(all(each.strides[1] == 4 * length for each in [out, *rows]))
        steps, operands = chain_of(self.steps)
        record |= {"steps": steps.ctypes.data, "count": len(steps)}
        nodes = (self.node,) if self.pair is None else (self.pair.node, self.node)
        return Operation(size[1], length, record, nodes, around, {memory(out)}, [*kept, steps, *operands])


def one_value(value: Floats | None) -> bool:
    """Whether a tensor has one value for each channel."""
    return value is not None and value.shape[1:] == (1, 1)


def shape_of(out: NDArray[Any], length: int) -> dict[str, int]:
    """Fields of a record that say where the result goes."""
    return {
        "channels": out.shape[0],
        "width": out.shape[2],
        "length": length,
        "out": out.ctypes.data,
        "far": out.strides[0],
        "down": out.strides[1],
    }


def mask_of(mask: Floats) -> dict[str, int]:
    """Fields of a record that say where it is needed."""
    return {"mask": mask.ctypes.data, "mask_down": mask.strides[1]}


def source_of(source: Floats) -> dict[str, int]:
    """Fields of a record that say what is read; rows -1 apart where a channel is one value."""
    return {
        "source": source.ctypes.data,
        "source_far": source.strides[0],
        "source_down": -1 if one_value(source) else source.strides[1],
        "source_channels": source.shape[0],
    }


def chain_of(steps: list[Step]) -> tuple[NDArray[np.int64], list[Floats]]:
    """Steps as :func:`~ptq4vm.engines.bits.rows.chain` reads them, and what they hold the addresses of."""
    table, kept = np.zeros((len(steps), loops.STEP), np.int64), []
    for line, (kind, operand, second) in zip(table, steps, strict=True):
        line[0] = kind
        if operand is not None:
            down = -1 if one_value(operand) else operand.strides[1]
            line[1:5] = operand.ctypes.data, operand.shape[0], operand.strides[0], down
            kept.append(operand)
        if second is not None:
            dense = np.ascontiguousarray(second.reshape(-1))
            line[5:7] = dense.ctypes.data, len(dense)
            kept.append(dense)
    return table, kept
