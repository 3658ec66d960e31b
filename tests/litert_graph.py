"""MediaPipe's graphs for LiteRT itself: their own transposed convolution becomes the standard one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OWN = b"Convolution2DTransposeBias"


def standard_graph(file: Path) -> bytes:
    """The graph with ``TRANSPOSE_CONV`` in the place of MediaPipe's operation, which LiteRT does not have."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file.read_bytes(), 0))
    graph = model.subgraphs[0]
    own = next(i for i, code in enumerate(model.operatorCodes) if code.customCode == _OWN)
    code = model.operatorCodes[own]
    code.customCode = None
    code.builtinCode = schema.BuiltinOperator.TRANSPOSE_CONV
    code.deprecatedBuiltinCode = schema.BuiltinOperator.TRANSPOSE_CONV
    code.version = 3  # the first with a bias
    operator = next(each for each in graph.operators if each.opcodeIndex == own)
    shape = np.array(graph.tensors[operator.outputs[0]].shape, np.int32)
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(shape.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.shape, tensor.type, tensor.buffer = [4], schema.TensorType.INT32, len(model.buffers) - 1
    tensor.name = b"size"
    graph.tensors.append(tensor)
    picture, kernel, bias = operator.inputs
    operator.inputs = [len(graph.tensors) - 1, kernel, picture, bias]
    operator.customOptions = None
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeConvOptions
    options = schema.TransposeConvOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 2, 2
    operator.builtinOptions = options
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def interpreter(file: Path, threads: int = 1) -> Any:
    """LiteRT's interpreter of the standard graph, ready to run."""
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=standard_graph(file), num_threads=threads)
    found.allocate_tensors()
    return found


def run(found: Any, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Alpha ``(h, w)`` of a picture ``(h, w, 3)`` in [0, 1], of the graph's own size."""
    found.set_tensor(found.get_input_details()[0]["index"], picture[None])
    found.invoke()
    return np.asarray(found.get_tensor(found.get_output_details()[0]["index"])[0, ..., 0])
