"""Where an exported file leaves its network: the result of every layer, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptq4vm.engines.step import StepEngine
from ptq4vm.exporting.trace import input_names
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import QuantLayer


class Deviation(NamedTuple):
    """How far an exported file is from its network in one layer.

    Attributes:
        path: Path of the layer in the network.
        error: Relative error of its result: the root of noise power over signal power; 0 for an equal one.
    """

    path: str
    error: float


def deviations(
    network: MattingNetwork,
    engine: StepEngine,
    inputs: Sequence[Tensor],
    ratio: float = 1.0,
    earlier: Tensor | None = None,
) -> list[Deviation]:
    """Compare the result of every layer (before activation functions) for one frame.

    Args:
        network: The fake-quantized network.
        engine: The engine of a file that was exported from it.
        inputs: ``src`` ``(1, 3, H, W)`` in [0, 1] and the states, float32.
        ratio: Downsample ratio that was fixed in the file.
        earlier: ``(N, 3, H, W)`` uint8: the frames before, for a file that keeps its states inside.

    Returns:
        One for each layer, in the order in which they run; those that the engine joined with others are left out.

    Raises:
        ExportError: The file is missing or damaged by now.
    """
    expected = _expected(network, inputs, ratio)
    if not expected:  # nothing is quantized
        return []
    feeds = dict(zip(input_names(len(inputs) - 1), (x.contiguous().numpy() for x in inputs), strict=True))
    before = [] if earlier is None else list(earlier.permute(0, 2, 3, 1).contiguous().numpy())
    found = engine.layer_results(feeds, list(expected), before)
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
