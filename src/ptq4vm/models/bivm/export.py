"""Binary networks in the form in which the target ``bits`` exports them: one operation for each module of exact maths.

The operations are of the domain ``ptq4vm``; what each computes is said where its module is defined
(:mod:`ptq4vm.models.bivm.exact`, :mod:`~ptq4vm.models.bivm.layers`, :mod:`~ptq4vm.models.bivm.decoder`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ptq4vm.models.base import Replacements
from ptq4vm.models.bivm import exact
from ptq4vm.models.bivm.binarizers.base import SignActivation
from ptq4vm.models.bivm.decoder import Mask
from ptq4vm.models.bivm.layers import BinaryConv2d

DOMAIN = "ptq4vm"


class _Emit(torch.autograd.Function):
    """Computes what a module computes, and is one operation in a graph."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, kind: str, attributes: Mapping[str, Any], *inputs: Tensor) -> Tensor:
        result: Tensor = module(inputs[0])
        return result

    @staticmethod
    def symbolic(g: Any, module: nn.Module, kind: str, attributes: Mapping[str, Any], *inputs: Any) -> Any:
        sizes = [each.type().sizes() for each in inputs]
        shape = _shape(kind, attributes, sizes)
        return g.op(f"{DOMAIN}::{kind}", *inputs, **attributes).setType(inputs[0].type().with_sizes(shape))


def _shape(kind: str, attributes: Mapping[str, Any], sizes: Sequence[Sequence[int]]) -> list[int]:
    """Shape of an operation's result, which torch's exporter cannot know."""
    batch, channels, *pixels = sizes[0]
    if kind.endswith("Conv"):
        stride, padding, dilation = (attributes[f"{name}_i"] for name in ("stride", "padding", "dilation"))
        reach = [dilation * (taps - 1) + 1 for taps in sizes[1][2:]]
        moved = [(size + 2 * padding - taps) // stride + 1 for size, taps in zip(pixels, reach, strict=True)]
        return [batch, sizes[1][0], *moved]
    scaled = {"Halve": [(size + 1) // 2 for size in pixels], "Double": [2 * size for size in pixels], "Mean": [1, 1]}
    return [batch, 1 if kind == "Mask" else channels, *scaled.get(kind, pixels)]


class Operation(nn.Module):
    """A module as one operation of the exported graph.

    Args:
        module: The module, which it computes as before.
        kind: Name of the operation.
        attributes: Further values of the operation, named as torch's exporter wants them (``stride_i``).
        constants: Tensors that the operation takes after its input.
    """

    def __init__(
        self, module: nn.Module, kind: str, attributes: Mapping[str, Any], constants: tuple[Tensor, ...] = ()
    ) -> None:
        super().__init__()
        self._module = [module]  # in a list: its own modules are not exchanged once more
        self.kind, self.attributes = kind, dict(attributes)
        for number, constant in enumerate(constants):
            self.register_buffer(f"constant{number}", constant.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the module computes."""
        y: Tensor = _Emit.apply(self._module[0], self.kind, self.attributes, x, *self.buffers())
        return y


class _BitsConv(nn.Module):
    """A decided binary convolution: its activation, then one operation."""

    def __init__(self, conv: BinaryConv2d) -> None:
        super().__init__()
        assert conv.scale is not None
        self.activation = conv.activation
        bare = BinaryConv2d.__new__(BinaryConv2d)
        nn.Module.__init__(bare)
        bare.__dict__.update({k: v for k, v in conv.__dict__.items() if k != "_modules"})
        bare.activation = nn.Identity()
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        self.sum = Operation(
            bare,
            "BinaryConv",
            {
                "stride_i": conv.stride,
                "padding_i": conv.padding,
                "dilation_i": conv.dilation,
                "groups_i": conv.groups,
                "has_bias_i": int(conv.bias is not None),
            },
            (conv.weight, conv.scale.flatten(), bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H', W')``."""
        y: Tensor = self.sum(self.activation(x))
        return y


def _sign(module: SignActivation) -> Operation:
    shift = torch.zeros(1) if module.shift is None else module.shift.flatten()
    return Operation(module, "Sign", {"low_f": module.low}, (shift,))


def _conv(module: exact.ExactConv2d) -> Operation:
    bias = torch.zeros(module.out_channels) if module.bias is None else module.bias
    geometry = (module.stride[0], module.padding[0], module.dilation[0], module.groups)
    names = ("stride_i", "padding_i", "dilation_i", "groups_i")
    return Operation(module, "ExactConv", dict(zip(names, geometry, strict=True)), (module.weight, bias))


def _mask(module: Mask) -> Operation:
    return Operation(module, "Mask", {}, (module.threshold.view(1),))


def bits_replacements() -> Replacements:
    """What takes the place of which modules for the target ``bits``."""
    plain = (exact.Halve, exact.Double, exact.Tanh, exact.Sigmoid, exact.Mean, exact.Hardsigmoid, exact.Hardswish)
    return {
        BinaryConv2d: _BitsConv,
        SignActivation: _sign,
        exact.ExactConv2d: _conv,
        Mask: _mask,
        **{kind: partial(Operation, kind=kind.__name__, attributes={}) for kind in plain},
    }
