"""Rewriting an ONNX graph in place: names, constants, and nodes that do nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.export.graph.editor import Shapes, drop_unread_constants, drop_unread_nodes, tensor_shapes
from ptq4vm.system.extras import needed

FOLDABLE = ("Gather", "Unsqueeze", "Squeeze", "Concat", "Cast", "Slice", "Add", "Sub", "Mul", "Div")
"""What sizes are computed with, when everything they depend on is constant."""
SMALL = 64
"""Elements of a constant that a size may depend on."""


class Rewriter:
    """Changes an ONNX model in place, without changing what it computes.

    Args:
        model: An ``onnx.ModelProto`` without subgraphs.
    """

    def __init__(self, model: Any) -> None:
        self._onnx = needed("onnx", "onnx")
        self._model = model
        self._graph = model.graph

    def name_layers(self, suffix: str, prefix: str) -> None:
        """Name layers by their paths.

        A weight whose codes are called ``<prefix><path><suffix>`` comes from a node ``<path>/weight`` afterwards, and
        the node that uses it, and its result, are called ``<path>``.
        """
        users = self._users()
        renamed: dict[str, str] = {}
        for node in self._graph.node:
            if node.op_type != "DequantizeLinear" or not node.input[0].endswith(suffix):
                continue
            path = node.input[0].removesuffix(suffix).removeprefix(prefix)
            node.name = f"{path}/weight"
            (user,) = users[node.output[0]]
            while user.op_type == "Transpose":  # of a linear layer
                (user,) = users[user.output[0]]
            user.name = path
            renamed[user.output[0]] = path
        for tensor in self._graph.initializer:
            renamed[tensor.name] = tensor.name.removeprefix(prefix)
            tensor.name = renamed[tensor.name]
        self._rename(renamed)

    def simplify(self) -> None:
        """Turn constant nodes into initializers, compute what is constant, and remove nodes that do nothing."""
        self._constants_to_initializers()
        self._bypass([node for node in self._graph.node if node.op_type == "Identity"])
        while self._fold():
            pass
        shapes = tensor_shapes(self._model)
        self._bypass([n for n in self._graph.node if n.op_type == "Slice" and _known_same(shapes, n)])
        self._join_slices(shapes)
        self._prune()

    def shorten_names(self, prefix: str) -> None:
        """Number the tensors whose names begin with ``prefix`` and leave it out of the names of nodes.

        Names of intermediate tensors are a twentieth of a 4-bit network's file.
        """
        tensors = dict.fromkeys(name for node in self._graph.node for name in [*node.output, *node.input])
        short = {name: str(number) for number, name in enumerate(n for n in tensors if n.startswith(prefix))}
        self._rename(short)
        for tensor in self._graph.initializer:
            tensor.name = short.get(tensor.name, tensor.name)
        for node in self._graph.node:
            node.name = node.name.removeprefix(prefix)

    def _users(self) -> dict[str, list[Any]]:
        users: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                users.setdefault(name, []).append(node)
        return users

    def _rename(self, names: dict[str, str]) -> None:
        """Give tensors other names wherever nodes mention them; inputs and outputs of the graph keep theirs."""
        fixed = {value.name for value in [*self._graph.input, *self._graph.output]}
        for node in self._graph.node:
            for field in (node.input, node.output):
                for index, name in enumerate(field):
                    if name in names and name not in fixed:
                        field[index] = names[name]

    def _bypass(self, nodes: list[Any]) -> None:
        """Remove nodes whose first input is as good as their output."""
        outputs = {value.name for value in self._graph.output}
        alias: dict[str, str] = {}
        for node in nodes:
            if node.output[0] in outputs:
                continue
            alias[node.output[0]] = alias.get(node.input[0], node.input[0])
            self._graph.node.remove(node)
        self._rename(alias)

    def _constants_to_initializers(self) -> None:
        for node in [node for node in self._graph.node if node.op_type == "Constant"]:
            self._add_constant(node.output[0], self._onnx.numpy_helper.to_array(node.attribute[0].t))
            self._graph.node.remove(node)

    def _add_constant(self, name: str, value: NDArray[Any]) -> None:
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))

    def _constants(self) -> dict[str, NDArray[Any]]:
        """Small constants: what sizes are computed from."""
        small = [tensor for tensor in self._graph.initializer if math.prod(tensor.dims) <= SMALL]
        return {tensor.name: self._onnx.numpy_helper.to_array(tensor) for tensor in small}

    def _fold(self) -> bool:
        """Compute nodes that depend on constants and known sizes only; True when there were any."""
        evaluator = needed("onnx.reference", "onnx").ReferenceEvaluator
        shapes, constants = tensor_shapes(self._model), self._constants()
        measured = {node.output[0]: node.input[0] for node in self._graph.node if node.op_type == "Shape"}
        found: dict[str, NDArray[Any]] = {}
        for node in list(self._graph.node):
            if node.op_type == "Shape" or node.op_type not in FOLDABLE:
                continue
            feeds = {name: constants[name] for name in node.input if name in constants}
            shape = shapes.get(measured.get(node.input[0], ""))
            if node.op_type == "Gather" and shape is not None and node.input[1] in constants:
                index = constants[node.input[1]]
                sizes = [shape[i] for i in index.ravel()]
                if None in sizes:
                    continue
                value = np.array(sizes, np.int64).reshape(index.shape)
            elif len(feeds) == len(set(node.input)):
                value = np.asarray(evaluator(node).run(None, feeds)[0])
            elif node.op_type == "Slice" and shape is not None and None not in shape:
                feeds[node.input[0]] = np.array(shape, np.int64)
                value = np.asarray(evaluator(node).run(None, feeds)[0])
            else:
                continue
            found[node.output[0]] = constants[node.output[0]] = value
            self._graph.node.remove(node)
        for name, value in found.items():
            self._add_constant(name, value)
        drop_unread_nodes(self._graph)
        return bool(found)

    def _join_slices(self, shapes: Shapes) -> None:
        """Replace slices that cut a tensor into consecutive parts by one Split."""
        constants = self._constants()
        groups: dict[tuple[str, int], list[tuple[int, int, Any]]] = {}
        for node in self._graph.node:
            if node.op_type == "Slice" and all(name in constants for name in node.input[1:]):
                starts, ends, axes, *steps = (constants[name].ravel().tolist() for name in node.input[1:])
                shape = shapes.get(node.input[0])
                if shape is not None and len(axes) == 1 and (not steps or steps[0] == [1]):
                    groups.setdefault((node.input[0], axes[0] % len(shape)), []).append((starts[0], ends[0], node))
        for (name, axis), cuts in groups.items():
            cuts.sort(key=lambda cut: cut[0])
            edges = [0, *(end for _, end, _ in cuts)]
            if len(cuts) < 2 or edges[:-1] != [start for start, _, _ in cuts] or edges[-1] != shapes[name][axis]:
                continue
            nodes = [node for _, _, node in cuts]
            sizes = f"{nodes[0].name}/sizes"
            self._add_constant(sizes, np.diff(edges).astype(np.int64))
            outputs = [node.output[0] for node in nodes]
            split = self._onnx.helper.make_node("Split", [name, sizes], outputs, f"{nodes[0].name}/Split", axis=axis)
            place = min(list(self._graph.node).index(node) for node in nodes)
            for node in nodes:
                self._graph.node.remove(node)
            self._graph.node.insert(place, split)

    def _prune(self) -> None:
        """Drop constants that nothing uses, and keep equal ones once."""
        first: dict[tuple[Any, ...], str] = {}
        alias: dict[str, str] = {}
        for tensor in self._graph.initializer:
            value = self._onnx.numpy_helper.to_array(tensor)
            key = (str(value.dtype), value.shape, value.tobytes())
            alias[tensor.name] = first.setdefault(key, tensor.name)
        self._rename(alias)
        drop_unread_constants(self._graph)


def _known_same(shapes: Shapes, node: Any) -> bool:
    """Whether a node's result has the shape of its first input, as far as is known."""
    shape = shapes.get(node.input[0])
    return shape is not None and None not in shape and shapes.get(node.output[0]) == shape
