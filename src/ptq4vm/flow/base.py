"""What an optical flow provider is, and the register of all providers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ptq4vm.system.registry import Registry
from ptq4vm.types import ClipSource, FlowPair


class TwoWayFlow(NamedTuple):
    """Flow between the consecutive frames of a clip, both ways, in pixels (x, then y).

    Attributes:
        backward: ``(T-1, 2, H, W)`` float32; entry i lives on the grid of frame i+1 and points to frame i.
        forward: ``(T-1, 2, H, W)`` float32; entry i lives on the grid of frame i and points to frame i+1.
    """

    backward: Tensor
    forward: Tensor


class ForwardFlow(NamedTuple):
    """Flow from each frame of a clip to the next: :class:`ptq4vm.types.FlowPair` the other way.

    Attributes:
        forward: ``(T-1, 2, H, W)`` float32, pixels; :attr:`TwoWayFlow.forward`.
        visible: ``(T-1, 1, H, W)`` bool. True where the pixel of frame i is also seen in frame i+1.
    """

    forward: Tensor
    visible: Tensor


@runtime_checkable
class FlowEstimator(Protocol):
    """Estimates flow from pixels."""

    @property
    def name(self) -> str:
        """The estimator and every setting that changes its result, as one string: part of the cache key."""
        ...

    def estimate(self, frames: Tensor) -> TwoWayFlow:
        """Flow between consecutive frames. ``frames``: ``(T, 3, H, W)`` uint8 RGB with T at least 2."""
        ...


@runtime_checkable
class SourceFlow(Protocol):
    """Takes flow from the clip itself, so that there is nothing to estimate or to cache."""

    @property
    def name(self) -> str:
        """The provider as one string; see :attr:`FlowEstimator.name`."""
        ...

    def from_source(self, source: ClipSource, start: int, stop: int) -> FlowPair:
        """Flow between the consecutive frames of ``start:stop``."""
        ...


FLOWS: Registry[Callable[..., FlowEstimator | SourceFlow]] = Registry("flow", "ptq4vm.flow")
"""Classes of providers. A configuration names one by its ``_target_``; a package from outside decorates its class with
``FLOWS.register(name)``, and names it in the entry point group ``ptq4vm.flows``."""
