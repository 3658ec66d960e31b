"""The one editor of ONNX graphs: constants, who makes and who reads a tensor, new nodes in any order.

A pass over a graph is a function ``pass_(editor) -> None`` that changes it in place, without changing what it computes.
Graphs are those of an ``onnx.ModelProto`` without subgraphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptq4vm.system.extras import needed

Shapes = dict[str, tuple[int | None, ...]]
"""Of tensors, by name; ``None`` for sizes that are not known."""


class Grid(NamedTuple):
    """How codes stand for numbers: ``(code - zero) * scale``."""

    scale: float
    zero: int


class Editor:
    """An ONNX graph that is being changed.

    Nodes that :meth:`add` puts at the end stand where they stand until :meth:`finish` orders them; what asks for shapes
    needs them in order.

    Args:
        model: An ``onnx.ModelProto`` without subgraphs; changed in place.

    Attributes:
        model: The ``onnx.ModelProto`` that is being changed.
        graph: The model's graph. A node's inputs may be changed directly; its outputs change by :meth:`rename`.

    Raises:
        ConfigError: onnx is not installed.
    """

    def __init__(self, model: Any) -> None:
        self._onnx = needed("onnx", "onnx")
        self.model = model
        self.graph = model.graph
        self._counts: Counter[str] = Counter()
        self._look_up()

    def _look_up(self) -> None:
        """Find makers and constants again, after many have changed."""
        self._makers = {name: node for node in self.graph.node for name in node.output}
        self._tensors = {tensor.name: tensor for tensor in self.graph.initializer}
        self._values: dict[str, NDArray[Any]] = {}

    # what is there

    def nodes(self, kind: str) -> list[Any]:
        """List all nodes of a kind (``Conv``), in their present order."""
        return [node for node in self.graph.node if node.op_type == kind]

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        return name in self._tensors

    def value(self, name: str) -> NDArray[Any] | None:
        """Give the value of the constant ``name``, or ``None`` for a tensor that is computed."""
        if name not in self._values and name in self._tensors:
            self._values[name] = self._onnx.numpy_helper.to_array(self._tensors[name])
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

    def is_output(self, name: str) -> bool:
        """Whether a tensor leaves the graph."""
        return any(value.name == name for value in self.graph.output)

    def only_reader(self, name: str, kind: str = "") -> Any:
        """The one node that reads a tensor; ``None`` where there are more, it is of another kind, or an output."""
        readers = self.readers(name)
        alone = len(readers) == 1 and not self.is_output(name)
        return readers[0] if alone and kind in ("", readers[0].op_type) else None

    def scales(self, node: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point of a QuantizeLinear or DequantizeLinear: ``()`` or ``(C,)`` float32 and integer."""
        scale, zero = (self.value(name) for name in node.input[1:])
        assert scale is not None and zero is not None
        return scale, zero

    def grid(self, node: Any) -> Grid | None:
        """The grid of a QuantizeLinear or DequantizeLinear node; ``None`` for one with several scales."""
        scale, zero = self.scales(node)
        return Grid(float(scale.ravel()[0]), int(zero.ravel()[0])) if scale.size == 1 else None

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes as plain values."""
        return {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}

    def held(self, node: Any) -> NDArray[Any]:
        """The value that a Constant node holds."""
        return self._onnx.numpy_helper.to_array(node.attribute[0].t)

    def _inferred(self) -> list[Any]:
        """What ONNX infers of all tensors that are no constants, as ``onnx.ValueInfoProto``."""
        graph = self._onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        return [*graph.input, *graph.output, *graph.value_info]

    def code_tensors(self) -> set[str]:
        """Names of the computed tensors that hold codes, unsigned 8-bit integers; nodes must be in order."""
        kind = self._onnx.TensorProto.UINT8
        return {value.name for value in self._inferred() if value.type.tensor_type.elem_type == kind}

    def shapes(self) -> Shapes:
        """Shapes of all tensors whose number of dimensions is known; nodes must be in order."""
        shapes: Shapes = {}
        for value in self._inferred():
            if value.type.tensor_type.HasField("shape"):
                sizes = value.type.tensor_type.shape.dim
                shapes[value.name] = tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
        return shapes

    def known_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that have a wholly known one; nodes must be in order."""
        shapes = {}
        for name, sizes in self.shapes().items():
            known = tuple(size for size in sizes if size is not None)
            if len(known) == len(sizes):
                shapes[name] = known
        return shapes

    # what is added

    def add_tensor(self, tensor: Any) -> None:
        """Add a constant as an ``onnx.TensorProto`` with its name."""
        self.graph.initializer.append(tensor)
        self._tensors[tensor.name] = self.graph.initializer[-1]

    def set_constant(self, name: str, value: NDArray[Any]) -> None:
        """Add a constant under a name that no tensor has, or had until its node was removed."""
        self.add_tensor(self._onnx.numpy_helper.from_array(value, name))
        self._values[name] = value

    def constant(self, value: ArrayLike, stem: str = "shaped") -> str:
        """Add a constant and return its name: ``<stem>/<number>``."""
        name = self._fresh(stem)
        self.set_constant(name, np.asarray(value))
        return name

    def _fresh(self, stem: str) -> str:
        """A name that nothing has, also in a graph that another editor has changed before."""
        while True:
            self._counts[stem] += 1
            name = f"{stem}/{self._counts[stem] - 1}"
            if name not in self._makers and name not in self._tensors:
                return name

    def add(self, kind: str, inputs: list[str], output: str = "", name: str = "", **attributes: Any) -> str:
        """Add a node with one output at the end and return the output's name."""
        output = output or self._fresh("shaped")
        self.insert(len(self.graph.node), kind, inputs, [output], name or output, **attributes)
        return output

    def insert(
        self, place: int, kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
    ) -> None:
        """Insert a node so that it stands at ``place``."""
        self.graph.node.insert(place, self._onnx.helper.make_node(kind, inputs, outputs, name, **attributes))
        self._makers.update(dict.fromkeys(outputs, self.graph.node[place]))

    def quantize(self, x: str, grid: Grid) -> str:
        """Add a QuantizeLinear node and return the name of its codes."""
        return self.add("QuantizeLinear", [x, *self._grid_constants(grid)])

    def dequantize(self, codes: str, grid: Grid, output: str = "") -> str:
        """Add a DequantizeLinear node and return the name of its float tensor."""
        return self.add("DequantizeLinear", [codes, *self._grid_constants(grid)], output)

    def _grid_constants(self, grid: Grid) -> list[str]:
        return [self.constant(np.float32(grid.scale)), self.constant(np.uint8(grid.zero))]

    # what is changed

    def redirect(self, old: str, new: str, but: str = "") -> None:
        """Let all nodes read another tensor instead of ``old``, but for the node that gives ``but``."""
        for node in self.graph.node:
            if but and but in node.output:
                continue
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def redirect_all(self, alias: Mapping[str, str]) -> None:
        """Let all nodes read other tensors instead of these; readers of the graph's inputs and outputs stay."""
        fixed = {value.name for value in [*self.graph.input, *self.graph.output]}
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name in alias and name not in fixed:
                    node.input[index] = alias[name]

    def rename(self, node: Any, output: str, index: int = 0) -> None:
        """Give one of a node's outputs another name; who read it goes on reading the old one."""
        del self._makers[node.output[index]]
        node.output[index] = output
        self._makers[output] = node

    def rename_tensors(self, names: Mapping[str, str]) -> None:
        """Give tensors other names wherever they are mentioned; inputs and outputs of the graph keep theirs."""
        fixed = {value.name for value in [*self.graph.input, *self.graph.output]}
        for node in self.graph.node:
            for field in (node.input, node.output):
                for index, name in enumerate(field):
                    if name in names and name not in fixed:
                        field[index] = names[name]
        for tensor in self.graph.initializer:
            if tensor.name in names and tensor.name not in fixed:
                tensor.name = names[tensor.name]
        self._look_up()

    # what is removed

    def remove(self, node: Any) -> None:
        """Remove a node whose outputs nobody reads any more, or another node gives now."""
        self.graph.node.remove(node)
        for name in node.output:
            del self._makers[name]

    def drop_unread_nodes(self) -> None:
        """Drop nodes whose results nobody reads; nodes must come after those that they read."""
        read = {value.name for value in self.graph.output}
        for node in reversed(list(self.graph.node)):
            if read.isdisjoint(node.output):
                self.remove(node)
            else:
                read.update(node.input)

    def drop_unread_constants(self) -> None:
        """Drop constants that no node reads and that are no outputs."""
        read = {name for node in self.graph.node for name in node.input} | {value.name for value in self.graph.output}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        self._look_up()

    def finish(self) -> None:
        """Order the nodes by what they read, and drop what nobody reads."""
        makers = self._makers
        ordered: list[Any] = []
        seen: set[str] = set()
        stack = [makers[value.name] for value in reversed(self.graph.output) if value.name in makers]
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
        self.drop_unread_constants()

    def _copy(self, node: Any) -> Any:
        copy = self._onnx.NodeProto()
        copy.CopyFrom(node)
        return copy


Pass = Callable[[Editor], None]
"""A change of a graph that leaves what it computes as it is."""


def drop_unread(editor: Editor) -> None:
    """Drop nodes whose results nobody reads, then constants that no node reads; nodes must be in order."""
    editor.drop_unread_nodes()
    editor.drop_unread_constants()
