"""Editing an ONNX graph in place: constants, who makes and who reads a tensor, new nodes in any order.

Graphs are those of an ``onnx.ModelProto`` without subgraphs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptq4vm.system.extras import needed

Shapes = dict[str, tuple[int | None, ...]]
"""Of tensors, by name; ``None`` for sizes that are not known."""


def redirect_readers(graph: Any, old: str, new: str, but: str = "") -> None:
    """Let all nodes read another tensor instead of ``old``, but for the node that gives ``but``."""
    for node in graph.node:
        if but and but in node.output:
            continue
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def drop_unread_nodes(graph: Any) -> None:
    """Drop nodes whose results nobody reads; nodes must come after those that they read."""
    read = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)


def drop_unread_constants(graph: Any) -> None:
    """Drop constants that no node reads and that are no outputs."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def tensor_shapes(model: Any) -> Shapes:
    """Shapes of all tensors whose number of dimensions is known.

    Args:
        model: Its nodes must come after those that they read.

    Raises:
        ConfigError: onnx is not installed.
    """
    graph = needed("onnx", "onnx").shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: Shapes = {}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.HasField("shape"):
            sizes = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
    return shapes


class Grid(NamedTuple):
    """How codes stand for numbers: ``(code - zero) * scale``."""

    scale: float
    zero: int


class Editor:
    """An ONNX graph that is being changed; :meth:`finish` puts it in order.

    Args:
        model: An ``onnx.ModelProto`` without subgraphs.
    """

    def __init__(self, model: Any) -> None:
        self._onnx = needed("onnx", "onnx")
        self._model = model
        self.graph = model.graph
        self._values: dict[str, NDArray[Any]] = {
            tensor.name: self._onnx.numpy_helper.to_array(tensor) for tensor in self.graph.initializer
        }
        self._makers = {name: node for node in self.graph.node for name in node.output}
        self._count = 0

    def nodes(self, kind: str) -> list[Any]:
        """All nodes of a kind, as they are now."""
        return [node for node in self.graph.node if node.op_type == kind]

    def value(self, name: str) -> NDArray[Any] | None:
        """A constant's value, ``None`` for a computed tensor."""
        return self._values.get(name)

    def bias(self, conv: Any) -> NDArray[Any] | None:
        """A convolution's constant bias; ``None`` where it has none or it is computed."""
        return self.value(conv.input[2]) if len(conv.input) == 3 else None

    def producer(self, name: str, kind: str = "") -> Any:
        """The node that gives a tensor, or ``None`` where there is none or it is of another kind."""
        node = self._makers.get(name)
        return node if node is not None and kind in ("", node.op_type) else None

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a tensor."""
        return [node for node in self.graph.node if name in node.input]

    def only_reader(self, name: str, kind: str = "") -> Any:
        """The one node that reads a tensor; ``None`` where there are more, it is of another kind, or an output."""
        readers = self.readers(name)
        leaves = any(value.name == name for value in self.graph.output)
        return readers[0] if len(readers) == 1 and not leaves and kind in ("", readers[0].op_type) else None

    def grid(self, node: Any) -> Grid | None:
        """Of a QuantizeLinear or DequantizeLinear; ``None`` for one with several scales."""
        scale, zero = self._values[node.input[1]], self._values[node.input[2]]
        return Grid(float(scale.ravel()[0]), int(zero.ravel()[0])) if scale.size == 1 else None

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes as plain values."""
        return {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}

    def constant(self, value: ArrayLike) -> str:
        """Add a constant and return its name."""
        name = f"shaped/{self._count}"
        self._count += 1
        self._values[name] = np.asarray(value)
        self.graph.initializer.append(self._onnx.numpy_helper.from_array(self._values[name], name))
        return name

    def add(self, kind: str, inputs: list[str], output: str = "", name: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        if not output:
            output = f"shaped/{self._count}"
            self._count += 1
        self.graph.node.append(self._onnx.helper.make_node(kind, inputs, [output], name or output, **attributes))
        self._makers[output] = self.graph.node[-1]
        return output

    def quantize(self, x: str, grid: Grid) -> str:
        """Codes of a float tensor."""
        return self.add("QuantizeLinear", [x, *self._grid_constants(grid)])

    def dequantize(self, codes: str, grid: Grid, output: str = "") -> str:
        """A float tensor from its codes."""
        return self.add("DequantizeLinear", [codes, *self._grid_constants(grid)], output)

    def _grid_constants(self, grid: Grid) -> list[str]:
        return [self.constant(np.float32(grid.scale)), self.constant(np.uint8(grid.zero))]

    def redirect(self, old: str, new: str, but: str = "") -> None:
        """See :func:`redirect_readers`."""
        redirect_readers(self.graph, old, new, but)

    def remove(self, node: Any) -> None:
        """Remove a node whose output nobody reads any more, or another node gives now."""
        self.graph.node.remove(node)
        for name in node.output:
            del self._makers[name]

    def rename(self, node: Any, output: str) -> None:
        """Give a node's only output another name; who read it goes on reading the old one."""
        del self._makers[node.output[0]]
        node.output[0] = output
        self._makers[output] = node

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that have a wholly known one."""
        shapes = {}
        for name, sizes in tensor_shapes(self._model).items():
            known = tuple(size for size in sizes if size is not None)
            if len(known) == len(sizes):
                shapes[name] = known
        return shapes

    def finish(self) -> None:
        """Order the nodes by what they read, and drop what nobody reads."""
        makers = self._makers
        ordered: list[Any] = []
        seen: set[str] = set()
        stack = [makers[value.name] for value in reversed(self.graph.output)]
        while stack:
            node = stack[-1]
            missing = [makers[name] for name in node.input if name in makers and name not in seen]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            if node.output[0] not in seen:
                seen.update(node.output)
                ordered.append(node)
        copies = [self._copy(node) for node in ordered]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        self._makers = {name: node for node in self.graph.node for name in node.output}
        drop_unread_constants(self.graph)

    def _copy(self, node: Any) -> Any:
        copy = self._onnx.NodeProto()
        copy.CopyFrom(node)
        return copy
