"""Weights of 4 bits and fewer, two codes to a byte."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.graph.names import layer_of
from ptq4vm.system.extras import needed


def pack_weights(editor: Editor, bits: Mapping[str, int]) -> None:
    """Store weight codes of 4 bits and fewer two to a byte, and their zero points likewise.

    Args:
        editor: Editor of a graph whose layers :func:`ptq4vm.exporting.graph.names.name_layers` named.
        bits: Bit-width of every layer's weight, by path; those of 4 and fewer are packed.
    """
    onnx = needed("onnx", "onnx")
    narrow = {path for path, count in bits.items() if count <= 4}
    nodes = [node for node in editor.nodes("DequantizeLinear") if editor.is_constant(node.input[0])]
    # equal tensors are kept once: one that an 8-bit layer uses too stays 8-bit
    wide = {node.input[0] for node in nodes if layer_of(node) not in narrow}
    packed: dict[str, str] = {}
    for node in nodes:
        if node.input[0] in wide:
            continue
        for position in (0, 2):
            name = node.input[position]
            if name not in packed:
                packed[name] = f"{name}.int4"
                codes = editor.value(name)
                assert codes is not None
                content = pack_int4(codes)
                kind = onnx.TensorProto.INT4
                editor.add_tensor(onnx.helper.make_tensor(packed[name], kind, codes.shape, content, raw=True))
            node.input[position] = packed[name]
    editor.drop_unread_constants()


def pack_int4(codes: NDArray[np.int8]) -> bytes:
    """Codes in [-8, 7] two to a byte, the first in the low half, as ONNX stores int4."""
    halves = codes.ravel().astype(np.uint8) & 15
    if halves.size % 2:
        halves = np.append(halves, np.uint8(0))
    return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8).tobytes()
