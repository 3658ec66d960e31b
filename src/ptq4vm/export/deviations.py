"""Where an exported file leaves its network: the result of every layer, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptq4vm.engines.onnx import open_session
from ptq4vm.engines.openvino import read_model
from ptq4vm.errors import ExportError
from ptq4vm.export.trace import input_names
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import QuantLayer
from ptq4vm.system.extras import needed


class Deviation(NamedTuple):
    """Of one layer: its path, and the root of noise power over signal power of its result."""

    path: str
    error: float


def deviations(
    network: MattingNetwork, file: Path, inputs: Sequence[Tensor], ratio: float = 1.0, earlier: Tensor | None = None
) -> list[Deviation]:
    """Compare the result of every layer (before activation functions) for one frame.

    Args:
        network: The fake-quantized network.
        file: ``.onnx`` or ``.xml``, exported from it.
        inputs: ``src`` and the states.
        ratio: That was fixed in the file.
        earlier: ``(N, 3, H, W)`` uint8: the frames before, for a file that keeps its states inside.

    Returns:
        In the order in which the layers run; those that an engine's conversion joined with others are left out.

    Raises:
        ExportError: The file is missing or damaged.
    """
    expected = _expected(network, inputs, ratio)
    feeds = dict(zip(input_names(len(inputs) - 1), (x.contiguous().numpy() for x in inputs), strict=True))
    if file.suffix == ".onnx":
        found = _from_onnx(file, feeds, list(expected))
    else:
        found = _from_openvino(file, feeds, list(expected), [] if earlier is None else list(earlier))
    # a file may give a layer more channels, of zeros
    return [
        Deviation(path, _relative(found[path][:, : value.shape[1]], value))
        for path, value in expected.items()
        if path in found
    ]


def _relative(value: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    power = float(np.square(expected, dtype=np.float64).mean())
    return float(np.sqrt(np.square(value - expected, dtype=np.float64).mean() / max(power, 1e-20)))


def _expected(network: MattingNetwork, inputs: Sequence[Tensor], ratio: float) -> dict[str, NDArray[np.float32]]:
    """Results of the network's layers, in the order in which they run."""
    results: dict[str, NDArray[np.float32]] = {}

    def keep(path: str, tensor: Tensor) -> None:
        results[path] = tensor.detach().clone().numpy()

    def watch(path: str, layer: QuantLayer) -> Any:
        quantizer: nn.Module | None = layer.output_quantizer
        if quantizer is not None:  # the exported layer's result is what goes into it
            return quantizer.register_forward_pre_hook(lambda module, args: keep(path, args[0]))
        return layer.register_forward_hook(lambda module, args, output: keep(path, output))

    with ExitStack() as hooks, torch.no_grad():
        for path, layer in quantized_layers(network).items():
            hooks.enter_context(watch(path, layer))
        network(*inputs, downsample_ratio=ratio)
    return results


def _from_onnx(
    file: Path, feeds: Mapping[str, NDArray[np.float32]], paths: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    onnx = needed("onnx", "onnx")
    try:
        model = onnx.load_model(file)
    except (OSError, needed("google.protobuf.message", "onnx").DecodeError) as error:
        raise ExportError(f"{file} is no ONNX file or is damaged: export again") from error
    made = {name for node in model.graph.node for name in node.output}
    names = [path for path in paths if path in made]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString())
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _from_openvino(
    file: Path, feeds: Mapping[str, NDArray[np.float32]], paths: Sequence[str], earlier: Sequence[Tensor]
) -> dict[str, NDArray[np.float32]]:
    openvino = needed("openvino", "openvino")
    core = openvino.Core()
    model = read_model(file, core)
    made = {name for op in model.get_ops() for output in op.outputs() for name in output.get_names()}
    names = [path for path in paths if path in made]
    model.add_outputs(names)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    if len(model.inputs) == 1 < len(feeds):  # states are inside, pictures as they lie in memory
        for frame in earlier:
            request.infer({"src": frame.permute(1, 2, 0)[None].contiguous().numpy()})
        feeds = {"src": np.ascontiguousarray((feeds["src"] * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))}
    results = request.infer(dict(feeds))
    return {name: np.array(results[name]) for name in names}
