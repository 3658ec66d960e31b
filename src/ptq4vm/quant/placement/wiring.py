"""Which stored tensors the layers of a network read: found by running it, not declared.

An integer engine keeps a tensor as integer codes from the operation that makes it to every operation that reads it.
Concatenation, slicing, chunking, resizing and padding with zeros move codes without looking at them: 0 is a code of
every grid. So a layer reads one or several *sites* (modules whose outputs are stored), each in a run of its input
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ptq4vm.ops.junction import Junction, Regrid
from ptq4vm.quant.partition import QUANTIZABLE

ACTIVATION_FUNCTIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU)
GATES = (nn.Sigmoid, nn.Tanh)
"""Functions whose results are multiplied: bounded, and as large as the tensor that they gate."""
KINKED = (nn.ReLU, nn.Hardsigmoid)
"""Functions that an integer convolution computes as it rounds: its results are clipped to codes anyway."""
CHANNELS = -3
ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
_SIZE = 64  # of the picture that is traced, pixels


class Segment(NamedTuple):
    """A run of channels of a stored tensor.

    Attributes:
        site: Path of the module that gives it.
        start: Index of the first channel in that tensor.
        stop: Index of the channel after the last.
    """

    site: str
    start: int
    stop: int


Segments = tuple[Segment, ...]


@dataclass(frozen=True)
class Wiring:
    """What the layers of a network read, and who reads it.

    Attributes:
        inputs: Segments that a layer reads, in the order of its input channels; layers are missing that read something
            else (the normalised image, a mean).
        regrids: The same for :class:`Regrid` modules.
        gates: Paths of sigmoids and hyperbolic tangents.
        channels: How many channels the tensor of every site has.
        results: Layers whose results are added up (``None``), or go into a curved function: the path of that function.
    """

    inputs: dict[str, Segments]
    regrids: dict[str, Segments]
    gates: tuple[str, ...]
    channels: dict[str, int]
    results: dict[str, str | None]


class _Follow(TorchFunctionMode):
    """Remembers of every tensor which segments it consists of, as long as it is only moved about."""

    def __init__(self) -> None:
        super().__init__()
        # the tensors are kept alive: another one could get the number of a tensor that is gone
        self._known: dict[int, tuple[Tensor, Segments]] = {}
        self._makers: dict[int, tuple[Tensor, str]] = {}
        self.added: set[str] = set()

    def get(self, tensor: Any) -> Segments | None:
        return self._known.get(id(tensor), (None, None))[1]

    def set(self, tensor: Tensor, segments: Segments) -> None:
        self._known[id(tensor)] = tensor, segments

    def maker(self, tensor: Any) -> str | None:
        """The layer that has just given this tensor."""
        return self._makers.get(id(tensor), (None, None))[1]

    def made(self, tensor: Tensor, layer: str) -> None:
        self._makers[id(tensor)] = tensor, layer

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.cat and _dimension(args, kwargs) in (CHANNELS, 1):
            parts = [self.get(part) for part in args[0]]
            if all(part is not None for part in parts):
                self.set(result, tuple(segment for part in parts if part for segment in part))
        elif func in (torch.chunk, Tensor.chunk, torch.split, Tensor.split):
            self._cut(args[0], result)
        elif (
            func in (F.interpolate, Tensor.contiguous)
            or (func is F.pad and _pads_zeros(*args, **kwargs))
            or (func is Tensor.__getitem__ and args[1][0] is Ellipsis)
        ):
            segments = self.get(args[0])
            if segments is not None and result.shape[CHANNELS] == args[0].shape[CHANNELS]:
                self.set(result, segments)
        elif func in ADDITIONS:
            self.added.update(layer for layer in map(self.maker, args[:2]) if layer is not None)
        return result

    def _cut(self, whole: Tensor, parts: Sequence[Tensor]) -> None:
        segments = self.get(whole)
        if segments is None or sum(part.shape[CHANNELS] for part in parts) != whole.shape[CHANNELS]:
            return
        start = 0
        for part in parts:
            stop = start + part.shape[CHANNELS]
            self.set(part, _slice(segments, start, stop))
            start = stop


def _dimension(args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    return int(kwargs.get("dim", args[1] if len(args) > 1 else 0))


def _pads_zeros(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> bool:
    """Whether what :func:`torch.nn.functional.pad` puts around is 0."""
    return mode == "constant" and not value


def _slice(segments: Segments, start: int, stop: int) -> Segments:
    """Channels ``start`` to ``stop`` of a tensor made of ``segments``."""
    found, first = [], 0
    for site, low, high in segments:
        last = first + high - low
        if first < stop and start < last:
            found.append(Segment(site, low + max(0, start - first), low + min(high - low, stop - first)))
        first = last
    return tuple(found)


def trace(network: nn.Module) -> Wiring:
    """Follow the tensors of a folded float network through two small frames, the second with the first's states.

    Args:
        network: A matting network in eval mode; not changed.
    """
    follow = _Follow()
    inputs: dict[str, Segments] = {}
    regrids: dict[str, Segments] = {}
    channels: dict[str, int] = {}
    curved: dict[str, str] = {}

    def reads(path: str, found: dict[str, Segments], tensor: Tensor) -> None:
        segments = follow.get(tensor)
        if segments is not None:
            found[path] = segments

    def gives(path: str, tensor: Tensor) -> None:
        channels[path] = tensor.shape[CHANNELS]
        follow.set(tensor, (Segment(path, 0, channels[path]),))

    def feeds(path: str, tensor: Tensor) -> None:
        layer = follow.maker(tensor)
        if layer is not None:
            curved[layer] = path

    with ExitStack() as hooks:
        add = hooks.enter_context
        for path, module in network.named_modules():
            if isinstance(module, ACTIVATION_FUNCTIONS) and not isinstance(module, KINKED):
                add(module.register_forward_pre_hook(lambda m, a, path=path: feeds(path, a[0])))
            if isinstance(module, QUANTIZABLE):
                add(module.register_forward_pre_hook(lambda m, a, path=path: reads(path, inputs, a[0])))
                add(module.register_forward_hook(lambda m, a, out, path=path: follow.made(out, path)))
            elif isinstance(module, Regrid):
                add(module.register_forward_pre_hook(lambda m, a, path=path: reads(path, regrids, a[0])))
            elif isinstance(module, (*ACTIVATION_FUNCTIONS, Junction)):
                add(module.register_forward_hook(lambda m, a, out, path=path: gives(path, out)))
        device = next(network.parameters()).device
        frame = torch.linspace(0, 1, 3 * _SIZE * _SIZE, device=device).view(1, 3, _SIZE, _SIZE)
        with torch.no_grad(), follow:
            _, _, *states = network(frame)
            network(frame, *states)
    gates = tuple(path for path in channels if isinstance(network.get_submodule(path), GATES))
    return Wiring(inputs, regrids, gates, channels, {**dict.fromkeys(follow.added), **curved})
