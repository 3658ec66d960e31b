"""The network's weights from its ONNX graph: float16 initializers, found by the names of the convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptq4vm.errors import WeightsError
from ptq4vm.models.isnet.network import ISNet
from ptq4vm.system.extras import needed

_PARTS = 3  # of a convolution's inputs: the picture, the kernel and the bias


def convert(pieces: list[Path]) -> dict[str, Tensor]:
    """State dict of :class:`ISNet`, float32.

    Args:
        pieces: The parts of the ``.onnx`` file, in order.

    Raises:
        ConfigError: The package onnx is not installed.
        WeightsError: They are no ONNX graph, or one of another network.
    """
    onnx = needed("onnx", "onnx")
    message = needed("google.protobuf.message", "onnx")
    try:
        graph = onnx.load_model_from_string(b"".join(piece.read_bytes() for piece in pieces)).graph
    except (OSError, message.DecodeError) as error:
        raise WeightsError(f"the pieces are no ONNX graph ({error}): fetch them again") from error
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == _PARTS:
            path = node.name.strip("/").removesuffix("/Conv").replace("/", ".")
            for part, name in zip(("weight", "bias"), node.input[1:], strict=True):
                if name in constants:
                    found[f"{path}.{part}"] = onnx.numpy_helper.to_array(constants[name]).astype(np.float32)
    with torch.device("meta"):
        wanted = ISNet().state_dict()
    missing = [key for key, value in wanted.items() if key not in found or found[key].shape != tuple(value.shape)]
    if missing:
        raise WeightsError(f"the ONNX graph has no {missing[0]} of this network: it is another one")
    return {key: torch.from_numpy(found[key]) for key in wanted}
