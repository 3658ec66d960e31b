"""Letting an ONNX graph move integer codes about, instead of going back to float for every operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.export.graph.editor import drop_unread_constants, drop_unread_nodes, redirect_readers, tensor_shapes
from ptq4vm.system.extras import needed

MOVES = ("Concat", "Split", "Slice", "Resize")
"""Operations that give codes for codes: a DequantizeLinear before them may as well come after them."""
_AXIS = 1


class CodeMover:
    """Moves DequantizeLinear nodes of activations towards the convolutions, in place.

    Args:
        model: An ``onnx.ModelProto``, simplified.
        openvino: What the graph is shaped for: OpenVINO, or ONNX Runtime. The latter cuts off where it should round in
            resizing codes, and refuses sums and products of tensors with a scale for each channel.
    """

    def __init__(self, model: Any, openvino: bool = True) -> None:
        self._onnx = needed("onnx", "onnx")
        self._graph = model.graph
        self._openvino = openvino
        self._moves = MOVES if openvino else tuple(kind for kind in MOVES if kind != "Resize")
        self._constants: dict[str, NDArray[Any]] = {
            tensor.name: self._onnx.numpy_helper.to_array(tensor) for tensor in self._graph.initializer
        }
        self._count = 0
        self._channels = {name: sizes[_AXIS] for name, sizes in tensor_shapes(model).items() if len(sizes) > _AXIS}

    def run(self) -> None:
        """Move, merge and remove until nothing changes."""
        while self._sink() or self._merge_division() or self._cancel():
            pass
        if not self._openvino:
            self._multiply_apart()
        drop_unread_nodes(self._graph)
        drop_unread_constants(self._graph)

    def _producers(self) -> dict[str, Any]:
        return {name: node for node in self._graph.node for name in node.output}

    def _dequantizer(self, producers: dict[str, Any], name: str) -> Any:
        """The node that turns an activation's codes into this tensor, if one does."""
        node = producers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] in self._constants:
            return None
        return node

    def _grid(self, node: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._constants[node.input[1]], self._constants[node.input[2]]

    def _sink(self) -> bool:
        producers = self._producers()
        for place, node in enumerate(self._graph.node):
            if node.op_type not in self._moves:
                continue
            data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
            sources = [self._dequantizer(producers, name) for name in data]
            if any(source is None for source in sources) or not self._fits(sources):
                continue
            scales = self._moved_scales(node, sources)
            if scales is None:
                continue
            for index, source in enumerate(sources):
                node.input[index] = source.input[0]
            zero = self._grid(sources[0])[1].ravel()[0]
            for index, scale in enumerate(scales):
                name = node.output[index]
                node.output[index] = f"{name}/codes"
                self._graph.node.insert(place + 1, self._dequantize(node.output[index], scale, zero, name))
            return True
        return False

    def _fits(self, sources: list[Any]) -> bool:
        """Whether all have one zero point."""
        return len({int(zero) for source in sources for zero in self._grid(source)[1].ravel()}) == 1

    def _moved_scales(self, node: Any, sources: list[Any]) -> list[NDArray[Any]] | None:
        """Scale of every output: one value, or one for each channel; ``None`` where they cannot be told."""
        scales = [self._grid(source)[0] for source in sources]
        if node.op_type == "Concat" and len({scale.tobytes() for scale in scales}) > 1:
            scales = [self._for_channels(source, scale) for source, scale in zip(sources, scales, strict=True)]
        if all(scale.ndim == 0 and scale == scales[0] for scale in scales):
            return [scales[0]] * len(node.output)
        if any(scale.ndim == 0 for scale in scales):
            return None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if node.op_type == "Concat":
            return [np.concatenate(scales)] if axis == _AXIS else None
        if node.op_type == "Split":
            sizes = self._constants[node.input[1]].ravel()
            return np.split(scales[0], np.cumsum(sizes)[:-1]) if axis == _AXIS else None
        return [scales[0]]

    def _for_channels(self, source: Any, scale: NDArray[Any]) -> NDArray[Any]:
        """A tensor's scale for every channel, where their number is known."""
        count = self._channels.get(source.output[0])
        return np.full(count, scale) if scale.ndim == 0 and count else scale

    def _dequantize(self, codes: str, scale: NDArray[Any], zero: Any, name: str) -> Any:
        scale = np.asarray(scale, np.float32)
        if scale.ndim and bool((scale == scale[0]).all()):
            scale = scale[0].reshape(())
        zeros = np.full(scale.shape, zero, np.uint8)
        inputs = [codes, self._constant(scale), self._constant(zeros)]
        return self._onnx.helper.make_node("DequantizeLinear", inputs, [name], f"{name}/dequantize", axis=_AXIS)

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"grid/{self._count}"
        self._count += 1
        self._constants[name] = value
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def _merge_division(self) -> bool:
        """A division by scales right after the way back to float: let that way have the quotients."""
        producers = self._producers()
        for place, node in enumerate(self._graph.node):
            if node.op_type != "Div" or node.input[1] not in self._constants:
                continue
            source = self._dequantizer(producers, node.input[0])
            divisor = self._constants[node.input[1]]
            if source is None or divisor.ndim not in (0, 3, 4):
                continue
            scale, zero = self._grid(source)
            quotient = (scale / divisor.ravel() if divisor.ndim else scale / divisor).astype(np.float32)
            merged = self._dequantize(source.input[0], quotient, zero.ravel()[0], node.output[0])
            self._graph.node.remove(node)
            self._graph.node.insert(place, merged)
            return True
        return False

    def _cancel(self) -> bool:
        """Codes to float and back to the same codes: leave both out."""
        producers = self._producers()
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            source = self._dequantizer(producers, node.input[0]) if node.op_type == "QuantizeLinear" else None
            if source is None or node.output[0] in outputs:
                continue
            own = self._constants[node.input[1]], self._constants[node.input[2]]
            if not all(_same(a, b) for a, b in zip(own, self._grid(source), strict=True)):
                continue
            self._graph.node.remove(node)
            redirect_readers(self._graph, node.output[0], source.input[0])
            return True
        return False

    def _multiply_apart(self) -> None:
        """Multiply by the scales of channels after the way back to float, not on it."""
        readers: dict[str, set[str]] = {}
        for node in self._graph.node:
            for name in node.input:
                readers.setdefault(name, set()).add(node.op_type)
        for place, node in reversed(list(enumerate(self._graph.node))):
            if node.op_type != "DequantizeLinear" or node.input[0] in self._constants:
                continue
            scale, zero = self._grid(node)
            if scale.ndim == 0 or readers.get(node.output[0]) == {"Conv"}:
                continue
            name, bare = node.output[0], f"{node.output[0]}/bare"
            factor = self._constant(np.asarray(scale, np.float32).reshape(1, -1, 1, 1))
            self._graph.node.remove(node)
            multiply = self._onnx.helper.make_node("Mul", [bare, factor], [name], f"{name}/scale")
            self._graph.node.insert(place, multiply)
            one = np.ones((), np.float32)
            self._graph.node.insert(place, self._dequantize(node.input[0], one, zero.ravel()[0], bare))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two grids are one, written once or once for every channel."""
    return bool(np.all(a == b)) and (a.size == b.size or min(a.size, b.size) == 1)


def states_as_codes(model: Any, names: Sequence[str]) -> dict[str, int]:
    """Let recurrent states enter and leave a graph as the codes that it stores them in, in place.

    Args:
        model: An ``onnx.ModelProto`` through which :class:`CodeMover` went.
        names: Of the state inputs (``r1i``, ...); each leaves under the name with ``o`` at the end.

    Returns:
        The code of 0 of every state; empty, and the graph as it was, where a state is not stored as codes.
    """
    onnx = needed("onnx", "onnx")
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    ends = []
    for name in names:
        readers = [node for node in graph.node if name in node.input]
        writer = producers.get(f"{name[:-1]}o")
        if writer is None or [node.op_type for node in readers] != ["QuantizeLinear"]:
            return {}
        own, written = ([constants[i] for i in node.input[1:]] for node in (readers[0], writer))
        if writer.op_type != "DequantizeLinear" or not all(map(_same, own, written)):
            return {}
        ends.append((name, readers[0], writer))
    zeros = {name: int(constants[reader.input[2]].ravel()[0]) for name, reader, _ in ends}
    for name, reader, writer in ends:
        redirect_readers(graph, reader.output[0], name)
        graph.node.remove(reader)
        out, codes = f"{name[:-1]}o", writer.input[0]
        if any(out in node.input for node in graph.node):  # arithmetic goes on with the float state
            writer.output[0] = f"{out}/float"
            redirect_readers(graph, out, writer.output[0])
        else:
            graph.node.remove(writer)
        maker = producers[codes]
        maker.output[list(maker.output).index(codes)] = out
        redirect_readers(graph, codes, out)
    for value in [*graph.input, *graph.output]:
        if value.name in zeros or f"{value.name[:-1]}i" in zeros:
            value.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return zeros
