"""Whether an exported file computes what its fake-quantized network computes."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.backends import mkldnn

from ptq4vm.engines.registry import open_engine
from ptq4vm.engines.step import StepEngine
from ptq4vm.errors import DataError
from ptq4vm.exporting.deviations import FLOAT_ERROR, Deviation, deviations, nudged, stepwise
from ptq4vm.media.portrait import draw_portrait
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.saturation import saturating_layers
from ptq4vm.types import Clip, MattingOutput, States

__all__ = ["Parity", "moving_portrait", "open_engine", "verify"]

LARGEST_DIFFERENCE = 2 / 255
"""Of alpha, on average over all pixels and frames."""
LARGEST_MAD_CHANGE = 0.02
"""Relative to the fake-quantized network's."""
DEPARTS = 0.01
"""Root of noise power over signal power from which on a layer's result is called another one."""
OWN_TIMES = 2.0
"""How many times further than PyTorch from itself a file may be where its every layer is right."""


@dataclass(frozen=True)
class Parity:
    """How close another computation of alpha is to a network's; what explains a failure is only looked for after one.

    Attributes:
        clips: Names of what was compared; states are carried from frame to frame of each.
        frames: How many there were together.
        mean: Mean absolute difference of alpha, in [0, 1].
        largest: Largest absolute difference of a pixel's alpha.
        worst: The clip (its place in the list) and the frame with the largest mean difference.
        mad: Mean absolute error against the truth, times 1000, of the network and of the other.
        layers: Deviation of the layers in the worst frame, in the graph's order.
        own: How close the network in PyTorch is to itself where it rounds otherwise: without oneDNN, whose convolutions
            only sum in another order, or with all that is rounded to codes larger, or smaller, by as little as sums of
            float32 may be off; the furthest of these. A value between two codes may go either way; where the network
            enlarges such differences from layer to layer, an engine that sums in an order of its own cannot be expected
            to come closer than this.
        steps: Deviation of each layer, alpha and states from what PyTorch computes from the file's own results of the
            layers before (:func:`ptq4vm.exporting.deviations.stepwise`), the largest of two frames about the worst.
        cpu: What the other computation ran on, in words; empty for PyTorch.
        saturating: Layers whose sums that CPU may cut off, with the smallest and largest sum of two products
            (:func:`ptq4vm.quant.overflow.pair_bounds`); empty where it computes all of them exactly.
    """

    clips: tuple[str, ...]
    frames: int
    mean: float
    largest: float
    worst: tuple[int, int]
    mad: tuple[float, float]
    layers: tuple[Deviation, ...] = ()
    steps: tuple[Deviation, ...] = ()
    own: Parity | None = None
    cpu: str = ""
    saturating: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def mad_change(self) -> float:
        """By how much the file's error against the truth differs from the network's, as a share of the latter."""
        return abs(self.mad[1] - self.mad[0]) / max(self.mad[0], 1e-9)

    @property
    def exact(self) -> bool:
        """Whether only rounding sets the file apart.

        Each of its layers computes from what it reads what PyTorch computes from that, but for values between two
        codes, and alpha is no further off than twice what such values move in PyTorch itself.
        """
        right = all(step.error < max(DEPARTS, step.own) for step in self.steps)
        return bool(self.steps) and right and self.own is not None and self.mean <= OWN_TIMES * self.own.mean

    @property
    def passed(self) -> bool:
        """Whether both limits hold; that of alpha's difference need not where only rounding is beyond it."""
        return (self.mean < LARGEST_DIFFERENCE or self.exact) and self.mad_change <= LARGEST_MAD_CHANGE

    def __str__(self) -> str:
        """One line."""
        parts = [
            f"{'passed' if self.passed else 'failed'}: {self.frames} frames ({', '.join(self.clips)})",
            f"mean alpha difference {self.mean * 255:.3f}/255 (limit 2)",
            f"largest {self.largest * 255:.1f}/255",
            f"MAD {self.mad[0]:.3f} to {self.mad[1]:.3f} ({self.mad_change:.2%}, limit 2%)",
            *([f"on a {self.cpu}"] if self.cpu else []),
        ]
        return "; ".join([", ".join(parts), *self._explained()])

    def _explained(self) -> Iterator[str]:
        """What a difference beyond the limits may come from."""
        if self.own is not None:
            apart = f"{self.own.mean * 255:.3f}/255 and {self.own.mad_change:.2%}"
            yield f"PyTorch is up to {apart} away from itself where sums or values differ by one float step"
        if self.exact:
            most = max(self.steps, key=lambda step: step.error)
            yield (
                "only rounding sets the file apart: from what it reads, each layer computes what PyTorch computes "
                f"(to {most.error:.2%} of its signal, {most.path}), and this network moves that far on these frames "
                "where a value between two codes goes the other way"
            )
        else:
            yield from self._departures()
        if self.saturating and not self.exact:
            path, bounds = next(iter(self.saturating.items()))
            yield (
                f"this CPU cuts sums of two products off at 16 bits, and {len(self.saturating)} layers can go beyond, "
                f"the first {path} (from {bounds[0]} to {bounds[1]}): quantize again with overflow=safe"
            )

    def _departures(self) -> Iterator[str]:
        """Where the file leaves its network: the layer that itself computes otherwise, and the first that differs."""
        clip, frame = self.worst
        wrong = next((step for step in self.steps if step.error >= max(DEPARTS, step.own)), None)
        if wrong is not None:
            yield f"{wrong.path} computes otherwise than PyTorch from the same values ({wrong.error:.1%} of its signal)"
        if self.layers:
            largest = max(self.layers, key=lambda layer: layer.error)
            first = next((layer for layer in self.layers if layer.error >= DEPARTS), largest)
            text = f"the first layer to depart is {first.path} ({first.error:.1%} of its signal"
            text += f", frame {frame} of {self.clips[clip]})"
            yield text if first is largest else f"{text}, furthest is {largest.path} ({largest.error:.1%})"


def verify(network: MattingNetwork, engine: StepEngine, clips: Sequence[Clip]) -> Parity:
    """Compare an exported file with the network that it was made from, frame by frame, each with its own states.

    Args:
        network: The quantized network, from :func:`ptq4vm.api.load_checkpoint`.
        engine: The file opened by :func:`ptq4vm.engines.registry.open_engine`.
        clips: Frames of the file's size, with their true alpha. States begin anew with each clip.

    Raises:
        DataError: There are no frames, or they are not of the file's size.
    """
    ratio = engine.downsample_ratio
    in_pytorch = partial(_mattes, network, ratio=ratio)
    parity = replace(_compare(in_pytorch, partial(_engine_mattes, engine), clips), cpu=str(engine.cpu))
    if parity.passed:
        return parity
    clip, frame = clips[parity.worst[0]], parity.worst[1]
    inputs = _inputs(network, clip, frame, ratio)
    return replace(
        parity,
        own=_own(network, in_pytorch, clips),
        steps=_steps(network, engine, clip.frames[max(frame - 1, 0) :][:2], ratio),
        layers=tuple(deviations(network, engine, inputs, ratio, clip.frames[:frame])),
        saturating={} if engine.exact(engine.cpu) else saturating_layers(network),
    )


def _own(network: MattingNetwork, mattes: Any, clips: Sequence[Clip]) -> Parity:
    """How far PyTorch is from itself where it rounds otherwise, at most; see :attr:`Parity.own`."""
    others: list[Otherwise] = [partial(nudged, network, by) for by in (FLOAT_ERROR, -FLOAT_ERROR)]
    if mkldnn.is_available():
        others.append(_without_onednn)
    found = [_compare(mattes, partial(mattes, otherwise=other), clips) for other in others]
    return max(found, key=lambda parity: parity.mean)


def _steps(network: MattingNetwork, engine: StepEngine, frames: Tensor, ratio: float) -> tuple[Deviation, ...]:
    """The largest deviation of each layer in some frames, in the order of the first."""
    largest: dict[str, Deviation] = {}
    for steps in stepwise(network, engine, frames, ratio):
        for step in steps:
            before = largest.setdefault(step.path, step)
            largest[step.path] = max(before, step, key=lambda each: each.error)
    return tuple(largest.values())


Mattes = Callable[[Clip], Iterator[NDArray[np.float32]]]
"""Alphas ``(H, W)`` of a clip's frames, in [0, 1]."""
Otherwise = Callable[[], AbstractContextManager[None]]
"""Makes PyTorch compute in another way while it is entered."""


def _compare(expected: Mattes, found: Mattes, clips: Sequence[Clip]) -> Parity:
    means: list[float] = []
    places: list[tuple[int, int]] = []
    largest, errors = 0.0, np.zeros(2)
    for number, clip in enumerate(clips):
        for frame, pair in enumerate(zip(expected(clip), found(clip), strict=True)):
            difference = np.abs(pair[1] - pair[0])
            means.append(float(difference.mean()))
            places.append((number, frame))
            largest = max(largest, float(difference.max()))
            truth = clip.alpha[frame, 0].numpy() / np.float32(255)
            errors += [np.abs(alpha - truth).mean() for alpha in pair]
    count, names = len(means), tuple(clip.name for clip in clips)
    if not count:
        raise DataError(f"{', '.join(names) or 'no clip'}: no frames to compare")
    mads = errors / count * 1e3
    worst = places[int(np.argmax(means))]
    return Parity(names, count, float(np.mean(means)), largest, worst, (float(mads[0]), float(mads[1])))


def _mattes(
    network: MattingNetwork, clip: Clip, *, ratio: float, otherwise: Otherwise = nullcontext
) -> Iterator[NDArray[np.float32]]:
    for output in _outputs(network, clip, ratio, otherwise):
        yield output.alpha[0, 0].numpy()


def _outputs(
    network: MattingNetwork, clip: Clip, ratio: float, otherwise: Otherwise = nullcontext
) -> Iterator[MattingOutput]:
    states: States = ()
    for frame in clip.frames:
        with torch.no_grad(), otherwise():
            output = network.matte(frame[None].float() / 255, states, ratio)
        states = output.states
        yield output


@contextmanager
def _without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a GPU that there is not
        with mkldnn.flags(enabled=False):
            yield


def _engine_mattes(engine: StepEngine, clip: Clip) -> Iterator[NDArray[np.float32]]:
    engine.reset()
    for frame in clip.frames:
        yield engine.matte(frame.permute(1, 2, 0).numpy()).alpha


def _inputs(network: MattingNetwork, clip: Clip, frame: int, ratio: float) -> list[Tensor]:
    """A frame and the states before it, zeros before the first."""
    src = clip.frames[frame][None].float() / 255
    last = deque(islice(_outputs(network, clip, ratio), max(frame, 1)), maxlen=1).pop()
    states = [state for state in last.states if state is not None]
    return [src, *(states if frame else map(torch.zeros_like, states))]


def moving_portrait(size: tuple[int, int], frames: int) -> Clip:
    """Draw a head and shoulders that sway before a smooth background, with exact alpha; for where no clip is given.

    Args:
        size: ``(H, W)`` of the frames, pixels.
        frames: How many frames to draw.
    """
    pictures, mattes = draw_portrait(size, frames, _enlarged)
    return Clip(
        "moving portrait",
        torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(mattes)[:, None],
    )


def _enlarged(coarse: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """As PyTorch enlarges, which rounds other than OpenCV: clips stay what they were in every version, to the bit."""
    picture = torch.from_numpy(coarse).permute(2, 0, 1)[None].contiguous()
    fine = torch.nn.functional.interpolate(picture, size, mode="bicubic", align_corners=False)
    return fine[0].permute(1, 2, 0).numpy()
