"""Values that travel between the packages. This module imports nothing of ours.

Shape letters used everywhere: B clips in a batch, T frames in a clip, C channels, H rows, W columns.
Images are RGB. Alpha and colour are in [0, 1] as float32 and in [0, 255] as uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:  # matting with an exported file has no use for torch, whose import takes seconds
    from torch import Tensor

States: TypeAlias = "tuple[Tensor | None, ...]"
"""Recurrent states of a matting network, finest first; ``None`` before the first frame."""


@dataclass(frozen=True)
class Clip:
    """Decoded frames of one clip, as stored: 8 bit.

    Attributes:
        name: Unique name inside a dataset, with forward slashes (``subset/clip``).
        frames: Composite I, ``(T, 3, H, W)`` uint8.
        alpha: True alpha, ``(T, 1, H, W)`` uint8.
        foreground: True foreground F, ``(T, 3, H, W)`` uint8, or ``None`` where it is unknown.
    """

    name: str
    frames: Tensor
    alpha: Tensor
    foreground: Tensor | None = None


@runtime_checkable
class ClipSource(Protocol):
    """A clip that is listed but not yet decoded; cheap to hold, picklable, safe to read from workers."""

    @property
    def name(self) -> str:
        """Unique name inside a dataset, with forward slashes."""
        ...

    @property
    def num_frames(self) -> int:
        """The number of frames of the clip."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """The size of a frame, ``(H, W)`` in pixels."""
        ...

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        """Decode frames ``start:stop``. Raises :class:`ptq4vm.errors.DataError`, naming the file."""
        ...


@runtime_checkable
class AnalyticFlowSource(Protocol):
    """A clip source that knows its optical flow exactly, because its motion was synthesised."""

    def read_flow(self, start: int = 0, stop: int | None = None) -> FlowPair:
        """Flow between consecutive frames of ``start:stop``."""
        ...


ClipList = Sequence[ClipSource]


class FlowPair(NamedTuple):
    """Optical flow between the ``T - 1`` consecutive pairs of a clip.

    Attributes:
        backward: Flow, ``(T-1, 2, H, W)`` float32, pixels (x, then y). Entry i lives on the grid of frame i+1 and
            points to frame i: ``frame[i+1](p)`` shows what ``frame[i](p + backward[i](p))`` shows.
        visible: Mask, ``(T-1, 1, H, W)`` bool. True where the pixel of frame i+1 is also seen in frame i.
    """

    backward: Tensor
    visible: Tensor


class ClipBatch(NamedTuple):
    """A batch of equally long clips, ready for a network.

    Attributes:
        frames: Composites, ``(B, T, 3, H, W)`` float32 in [0, 1].
        alpha: True alphas, ``(B, T, 1, H, W)`` float32 in [0, 1].
        flow: Flow as in :attr:`FlowPair.backward`, ``(B, T-1, 2, H, W)`` float32 pixels; ``None`` when not asked for.
        visible: Mask of the flow, ``(B, T-1, 1, H, W)`` float32, 1 where flow holds; ``None`` with ``flow``.
        index: Numbers of the calibration samples, ``(B,)`` int64, to look up what was cached for each.
    """

    frames: Tensor
    alpha: Tensor
    flow: Tensor | None = None
    visible: Tensor | None = None
    index: Tensor | None = None  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class EvalChunk(NamedTuple):
    """Consecutive frames of one evaluation clip (a clip is streamed as one or more chunks, in order).

    Attributes:
        clip: Index of the clip in the evaluation list.
        start: Index of the chunk's first frame in the clip (0: reset recurrent states).
        last: Whether it is the clip's last chunk.
        frames: Composites, ``(t, 3, H, W)`` uint8.
        alpha: True alphas, ``(t, 1, H, W)`` uint8.
        foreground: True foreground, ``(t, 3, H, W)`` uint8, or ``None`` where it is unknown.
    """

    clip: int
    start: int
    last: bool
    frames: Tensor
    alpha: Tensor
    foreground: Tensor | None = None


class MattingOutput(NamedTuple):
    """The prediction of a matting network.

    Attributes:
        foreground: Colours of the foreground, ``(B, T, 3, H, W)`` (or ``(B, 3, H, W)`` for single frames) in [0, 1].
        alpha: Opacity of the foreground, ``(B, T, 1, H, W)`` (or ``(B, 1, H, W)``) in [0, 1].
        states: Recurrent states after the last frame, each ``(B, C_i, H_i, W_i)``.
    """

    foreground: Tensor
    alpha: Tensor
    states: States
