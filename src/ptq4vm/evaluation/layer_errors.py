"""Where a quantized network loses: the error of every layer's output."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor

from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers


@torch.no_grad()
def layer_errors(teacher: MattingNetwork, network: MattingNetwork, frames: Tensor) -> dict[str, float]:
    """Noise power over signal power at the output of every quantized layer, each network running by itself.

    Args:
        teacher: The folded float network.
        network: The quantized copy of ``teacher``.
        frames: One clip, ``(1, T, 3, H, W)`` float RGB in [0, 1].

    Returns:
        Path of a layer to its error, in definition order; 0 is no error, 1 is as much noise as signal. Layers that the
        clip does not reach are left out.
    """
    paths = list(quantized_layers(network))
    targets = _outputs(teacher, paths, frames)
    found = _outputs(network, paths, frames)
    return {path: _relative(found[path], targets[path]) for path in paths if targets.get(path)}


def _outputs(network: MattingNetwork, paths: Iterable[str], frames: Tensor) -> dict[str, list[Tensor]]:
    outputs: dict[str, list[Tensor]] = {path: [] for path in paths}
    with ExitStack() as hooks:
        for path, found in outputs.items():
            layer = network.get_submodule(path)
            hooks.enter_context(layer.register_forward_hook(lambda m, args, out, found=found: found.append(out)))
        network.matte(frames)
    return outputs


def _relative(found: list[Tensor], targets: list[Tensor]) -> float:
    noise = sum(float((a - b).square().sum()) for a, b in zip(found, targets, strict=True))
    signal = sum(float(b.square().sum()) for b in targets)
    return noise / max(signal, 1e-20)
