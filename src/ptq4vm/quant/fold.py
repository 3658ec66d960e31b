"""Fold batch norm into the convolutions before it, and absorb the global affine after GAC."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptq4vm.errors import ConfigError
from ptq4vm.quant.layers import QuantLayer


def fold_batch_norm(network: nn.Module, keep: Iterable[str] = ()) -> nn.Module:
    """Replace every (Conv2d, BatchNorm2d) pair of siblings by one convolution and an identity, in place.

    A batch norm belongs to the convolution registered right before it under the same parent.

    Args:
        network: In evaluation mode.
        keep: Module paths that are left as they are, with everything below.

    Returns:
        The same network.

    Raises:
        ConfigError: The network is in training mode, or a batch norm has no convolution before it.
    """
    if network.training:
        raise ConfigError("fold_batch_norm needs the network in eval mode: call .eval() first")
    kept = tuple(keep)
    for path, parent in list(network.named_modules()):
        if any(path == k or path.startswith(k + ".") for k in kept):
            continue
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            below_kept = f"{path}.{name}".lstrip(".") in kept
            if isinstance(child, nn.BatchNorm2d) and not below_kept:
                if previous is None or not isinstance(previous[1], nn.Conv2d):
                    raise ConfigError(f"batch norm {path}.{name} follows no convolution: declare it in float_modules")
                setattr(parent, previous[0], fuse_conv_bn_eval(previous[1], child))
                setattr(parent, name, nn.Identity())
            previous = (name, child)
    return network


@torch.no_grad()
def absorb(network: nn.Module) -> nn.Module:
    """Harden every weight quantizer and absorb every affine, in place: afterwards nothing extra runs.

    Outputs stay the same up to float rounding. Returns the same network.
    """
    for module in network.modules():
        if isinstance(module, QuantLayer):
            module.absorb_affine()
            module.harden()
    return network
