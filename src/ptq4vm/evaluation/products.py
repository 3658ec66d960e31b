"""Products of two activations, as attention has them: which factors are multiplied, and how often a frame."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.junction import Operand

Factors = tuple[str, str]
"""Paths of the operands that both factors of a product passed; empty for a factor that passed none."""
_PRODUCTS = (
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__),
    *(torch.bmm, Tensor.bmm, torch.mm, Tensor.mm),
)
_NAMES = ("input", "self", "other", "mat2")
_FUSED = F.scaled_dot_product_attention
_MOVES = frozenset(
    (
        *("transpose", "swapaxes", "permute", "movedim", "t", "flatten", "unflatten", "reshape", "view"),
        *("squeeze", "unsqueeze", "contiguous", "__get__"),  # the last is mT and the like
    )
)


def count_products(network: MattingNetwork, size: tuple[int, int], downsample_ratio: float = 1.0) -> dict[Factors, int]:
    """Multiply-accumulates of all matrix products of two activations for one frame, by what is multiplied.

    Products value by value (gates, squeeze and excitation) are left out, as those of activation functions are; so is
    what is written otherwise than ``@``, ``matmul``, ``bmm``, ``mm`` or ``scaled_dot_product_attention``.

    Args:
        network: The network in eval mode; it is run once.
        size: ``(H, W)`` pixels.
        downsample_ratio: Size at which the network itself runs, as a fraction of the frame's.
    """
    frame = torch.zeros(1, 1, 3, *size, device=next(network.parameters()).device)
    with ExitStack() as stack, torch.no_grad():
        seen = _Follow()
        for path, module in network.named_modules():
            if isinstance(module, Operand):
                stack.enter_context(module.register_forward_hook(partial(seen.passes, path)))
        stack.enter_context(seen)
        network.matte(frame, downsample_ratio=downsample_ratio)
    return seen.counts


class _Follow(TorchFunctionMode):
    """Remembers which operand a tensor passed, as long as it is only moved about, and counts products."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[Factors, int] = {}
        # the tensors are kept alive: another one could get the number of a tensor that is gone
        self._known: dict[int, tuple[Tensor, str]] = {}

    def passes(self, path: str, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        """Take in what an operand gives, as a tensor of its own: queries may be the keys of another operand."""
        own = output.view_as(output)
        self._known[id(own)] = own, path
        return own

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _PRODUCTS:
            first, second = [*args, *(kwargs[name] for name in _NAMES if name in kwargs)][:2]
            pair = (second, first) if func is Tensor.__rmatmul__ else (first, second)
            self._count(self._names(*pair), result.numel() * pair[0].shape[-1])
        elif func is _FUSED:
            query, key, value = args[:3]
            scores = query.numel() * key.shape[-2]
            self._count(self._names(query, key), scores)
            self._count(("", self._name(value)), scores // query.shape[-1] * value.shape[-1])
        elif args and getattr(func, "__name__", "") in _MOVES and isinstance(result, Tensor):
            path = self._name(args[0])
            if path and result.numel() == args[0].numel():
                self._known[id(result)] = result, path
        return result

    def _name(self, tensor: Any) -> str:
        return self._known.get(id(tensor), (None, ""))[1]

    def _names(self, first: Tensor, second: Tensor) -> Factors:
        return self._name(first), self._name(second)

    def _count(self, factors: Factors, products: int) -> None:
        self.counts[factors] = self.counts.get(factors, 0) + products
