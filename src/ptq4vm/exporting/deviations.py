"""Where an exported file leaves its network: the result of every layer, side by side, or one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptq4vm.engines.step import StepEngine, Tensors
from ptq4vm.exporting.trace import input_names, output_names
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import QuantLayer
from ptq4vm.quant.quantizers.base import ActivationQuantizer

FLOAT_ERROR = 2.0**-21
"""What a float32 sum of some hundred products may be off, as a share of it: a few steps between float32 numbers."""


class Deviation(NamedTuple):
    """How far an exported file is from its network in one layer.

    Attributes:
        path: Path of the layer in the network; of :func:`stepwise` also ``pha`` and ``r1o, ...``, what the file gives.
        error: Relative error of its result: the root of noise power over signal power; 0 for an equal one.
        own: How far the network's own result is from itself where all that is rounded to codes is larger, and smaller,
            by :data:`FLOAT_ERROR`: values halfway between two codes then go up, and down.
    """

    path: str
    error: float
    own: float = 0.0


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
    expected: Tensors = {}
    with _seen(network, lambda path, result: expected.update({path: result.detach().clone().numpy()})), torch.no_grad():
        network(*inputs, downsample_ratio=ratio)
    if not expected:  # nothing is quantized
        return []
    feeds = dict(zip(input_names(len(inputs) - 1), (x.contiguous().numpy() for x in inputs), strict=True))
    before = [] if earlier is None else list(earlier.permute(0, 2, 3, 1).contiguous().numpy())
    found = engine.layer_results(feeds, list(expected), before)
    return [Deviation(path, _relative(found[path], value)) for path, value in expected.items() if path in found]


def stepwise(network: MattingNetwork, engine: StepEngine, frames: Tensor, ratio: float = 1.0) -> list[list[Deviation]]:
    """Compare every layer with what the network computes from the file's own results of the layers before it.

    Differences do not add up from layer to layer then: what is left is what a layer itself computes otherwise, and the
    few values halfway between two codes that went the other way in it.

    Args:
        network: The fake-quantized network.
        engine: The engine of a file that was exported from it.
        frames: ``(N, 3, H, W)`` uint8, matted in turn, from states of zeros.
        ratio: Downsample ratio that was fixed in the file.

    Returns:
        For each frame one for each layer that the engine tells of, in the order in which they run, then alpha, whose
        error is relative to 1, and the states that the file gives. Empty where the engine does not tell alpha.

    Raises:
        ExportError: The file is missing or damaged by now.
    """
    states = [torch.zeros_like(state) for state in _step(network, frames[:1], [], ratio)[2:]]
    steps = []
    for number, frame in enumerate(frames):
        inputs = [frame[None].float() / 255, *states]
        feeds = dict(zip(input_names(len(states)), (x.contiguous().numpy() for x in inputs), strict=True))
        told = output_names(len(states) if engine.state_shapes((frame.shape[-2], frame.shape[-1])) else 0)
        names = [*quantized_layers(network), *told[1:]]
        found = engine.layer_results(feeds, names, list(frames[:number].permute(0, 2, 3, 1).contiguous().numpy()))
        if "pha" not in found:
            return []
        plain, up, down = (_forced(network, inputs, ratio, found, nudge) for nudge in (0, FLOAT_ERROR, -FLOAT_ERROR))
        steps.append(
            [
                Deviation(
                    path,
                    _relative(found[path], value, path == "pha"),
                    _relative(up[path], down[path], path == "pha"),
                )
                for path, value in plain.items()
                if path in found
            ]
        )
        states = [torch.from_numpy(plain[name]) for name in output_names(len(states))[2:]]
    return steps


def _step(network: MattingNetwork, frames: Tensor, states: Sequence[Tensor], ratio: float) -> list[Tensor]:
    with torch.no_grad():
        return list(network(frames.float() / 255, *states, downsample_ratio=ratio))


def _forced(network: MattingNetwork, inputs: Sequence[Tensor], ratio: float, found: Tensors, nudge: float) -> Tensors:
    """Results of layers, alpha and states where each layer reads what the file has found instead of them."""
    results: Tensors = {}

    def exchange(path: str, result: Tensor) -> Tensor | None:
        results[path] = result.detach().clone().numpy()
        if path not in found:
            return None
        return torch.from_numpy(np.ascontiguousarray(found[path][:, : result.shape[1]]))

    with _seen(network, exchange), nudged(network, nudge), torch.no_grad():
        outputs = network(*inputs, downsample_ratio=ratio)
    given = zip(output_names(len(inputs) - 1), outputs, strict=True)
    return results | {name: output.contiguous().numpy() for name, output in given if name != "fgr"}


@contextmanager
def nudged(network: nn.Module, by: float) -> Iterator[None]:
    """Let all that is rounded to codes be larger by a share ``by`` of itself; values between two codes then move."""
    with ExitStack() as hooks:
        for module in network.modules() if by else ():
            if isinstance(module, ActivationQuantizer):
                hooks.enter_context(module.register_forward_pre_hook(lambda module, args: (args[0] * (1 + by),)))
        yield


@contextmanager
def _seen(network: MattingNetwork, see: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Show the results of all layers to ``see`` as they are computed; what it returns takes their place."""

    def watch(path: str, layer: QuantLayer) -> Any:
        quantizer: nn.Module | None = layer.output_quantizer
        if quantizer is None:
            return layer.register_forward_hook(lambda module, args, output: see(path, output))
        # the exported layer's result is what goes into it
        return quantizer.register_forward_pre_hook(lambda module, args: _or_none(see(path, args[0])))

    with ExitStack() as hooks:
        for path, layer in quantized_layers(network).items():
            hooks.enter_context(watch(path, layer))
        yield


def _or_none(value: Tensor | None) -> tuple[Tensor] | None:
    return None if value is None else (value,)


def _relative(value: NDArray[np.float32], expected: NDArray[np.float32], of_one: bool = False) -> float:
    """Root of noise power over signal power; a file may give a layer more channels, of zeros."""
    power = 1.0 if of_one else float(np.square(expected, dtype=np.float64).mean())
    noise = np.square(value[:, : expected.shape[1]] - expected, dtype=np.float64).mean()
    return float(np.sqrt(noise / max(power, 1e-20)))
