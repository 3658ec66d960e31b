"""A LiteRT graph that is being made, and its bytes as the schema lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.system.extras import needed

VERSION = 3
"""Of the schema."""
IDENTIFIER = b"TFL3"
_OPTIONS = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions", "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "CONCATENATION": "ConcatenationOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions", "AVERAGE_POOL_2D": "Pool2DOptions", "MEAN": "ReducerOptions",
    "SPLIT": "SplitOptions", "MAX_POOL_2D": "Pool2DOptions", "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}  # fmt: skip
"""Tables of options, of the operations that have one with something in it."""


@dataclass
class Tensor:
    """One tensor of the graph.

    Attributes:
        name: What it is called.
        shape: How long its dimensions are; pictures are ``(N, H, W, C)``.
        kind: Name of its type, such as ``int8``.
        scale: What its integers are multiplied by, one value or one for each position of ``axis``; none for floats.
        zero: The integer that stands for 0.
        axis: Dimension whose positions have scales of their own.
        data: What a constant holds; none where it is computed.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    scale: NDArray[np.float32] | None = None
    zero: int = 0
    axis: int = 0
    data: NDArray[Any] | None = None


@dataclass
class Operation:
    """One operation: its name in the schema, the numbers of the tensors that it reads and gives, and its options."""

    kind: str
    inputs: list[int]
    outputs: list[int]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


class Model:
    """Tensors and operations, in the order in which they run."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []

    def tensor(self, tensor: Tensor) -> int:
        """Add a tensor and return its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operation(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, **options: Any
    ) -> None:
        """Add an operation at the end."""
        self.operations.append(Operation(kind, list(inputs), list(outputs), options, version))

    def content(self, inputs: Mapping[str, int], outputs: Mapping[str, int], metadata: Mapping[str, bytes]) -> bytes:
        """The file's bytes."""
        schema, flatbuffers = needed("ai_edge_litert.schema_py_generated", "litert"), needed("flatbuffers", "litert")
        model = schema.ModelT()
        model.version, model.description = VERSION, "ptq4vm"
        model.buffers, model.metadata = [schema.BufferT()], []
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors = [_tensor(schema, model.buffers, each) for each in self.tensors]
        codes = list(dict.fromkeys((each.kind, each.version) for each in self.operations))
        model.operatorCodes = [_code(schema, *each) for each in codes]
        graph.operators = [_operator(schema, each, codes.index((each.kind, each.version))) for each in self.operations]
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        model.subgraphs, model.signatureDefs = [graph], [_signature(schema, inputs, outputs)]
        for name, content in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(model.buffers)
            model.metadata.append(entry)
            model.buffers.append(_buffer(schema, np.frombuffer(content, np.uint8)))
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


def _buffer(schema: Any, data: NDArray[Any]) -> Any:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    return buffer


def _tensor(schema: Any, buffers: list[Any], tensor: Tensor) -> Any:
    made = schema.TensorT()
    made.name, made.shape = tensor.name, list(tensor.shape)
    made.type, made.buffer = getattr(schema.TensorType, tensor.kind.upper()), 0
    if tensor.data is not None:
        made.buffer = len(buffers)
        buffers.append(_buffer(schema, tensor.data))
    if tensor.scale is not None:
        grid = schema.QuantizationParametersT()
        scale = np.atleast_1d(tensor.scale).astype(np.float32)
        grid.scale, grid.zeroPoint = scale.tolist(), [tensor.zero] * len(scale)
        grid.quantizedDimension = tensor.axis
        made.quantization = grid
    return made


def _code(schema: Any, kind: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    return code


def _operator(schema: Any, operation: Operation, code: int) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, operation.inputs, operation.outputs
    if operation.kind in _OPTIONS:
        name = _OPTIONS[operation.kind]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        made.builtinOptions = getattr(schema, f"{name}T")()
        for key, value in operation.options.items():
            setattr(made.builtinOptions, key, value)
    return made


def _signature(schema: Any, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0
    for field_name, ports in (("inputs", inputs), ("outputs", outputs)):
        entries = []
        for name, number in ports.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, number
            entries.append(entry)
        setattr(made, field_name, entries)
    return made
