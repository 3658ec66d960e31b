"""Cutting calibration samples out of clips and their flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ptq4vm.data.base import BoxedClip
from ptq4vm.data.calibration.sampling import CalibrationSample
from ptq4vm.ops.warp import in_frame
from ptq4vm.types import ClipBatch, ClipSource, FlowPair


def cut_clip(source: ClipSource, sample: CalibrationSample) -> tuple[Tensor, Tensor]:
    """Cut frames ``(T, 3, h, w)`` and alpha ``(T, 1, h, w)`` of a sample, uint8. Raises :class:`DataError`."""
    height, width = sample.size
    if isinstance(source, BoxedClip):
        box = (sample.left, sample.top, sample.left + width, sample.top + height)
        clip = source.read_box(sample.start, sample.stop, box)
        return _turn(clip.frames, sample), _turn(clip.alpha, sample)
    clip = source.read(sample.start, sample.stop)
    return _cut(clip.frames, sample), _cut(clip.alpha, sample)


def cut_flow(flow: FlowPair, sample: CalibrationSample) -> tuple[Tensor, Tensor]:
    """Flow ``(T-1, 2, h, w)`` float16 of a sample, and where it holds, ``(T-1, 1, h, w)`` bool.

    It does not hold where it leads out of the crop: a warp of the crop cannot follow it.
    """
    backward = _cut_flow(flow.backward, sample)
    return backward.half(), _cut(flow.visible, sample) & in_frame(backward)


def batch(stored: Sequence[tuple[Tensor, ...]], indices: Sequence[int]) -> ClipBatch:
    """What was cut for samples ``indices`` (frames and alpha, perhaps flow and its mask) as one batch."""
    frames, alpha, *flow = (torch.stack(fields) for fields in zip(*stored, strict=True))
    found = ClipBatch(frames.float().div_(255), alpha.float().div_(255), index=torch.tensor(indices))
    return found._replace(flow=flow[0].float(), visible=flow[1].float()) if flow else found


def _cut(images: Tensor, sample: CalibrationSample) -> Tensor:
    """The sample's part of ``(N, C, H, W)`` images, flow or masks, of the same dtype."""
    height, width = sample.size
    return _turn(images[..., sample.top : sample.top + height, sample.left : sample.left + width], sample)


def _turn(box: Tensor, sample: CalibrationSample) -> Tensor:
    """Mirror and scale what was cut."""
    box = box.flip(-1) if sample.flip else box
    if sample.output is None:
        return box.contiguous()
    if box.dtype == torch.bool:
        return F.interpolate(box.float(), sample.output, mode="nearest-exact").bool()
    smaller = sample.output[0] < box.shape[-2]
    scaled = F.interpolate(box.float(), sample.output, mode="bilinear", align_corners=False, antialias=smaller)
    return scaled if box.is_floating_point() else scaled.round().to(box.dtype)


def _cut_flow(flow: Tensor, sample: CalibrationSample) -> Tensor:
    """Cut flow ``(N, 2, H, W)``; mirroring turns its x around, scaling changes its length."""
    (height, width), (new_height, new_width) = sample.size, sample.output or sample.size
    factors = flow.new_tensor([(-1 if sample.flip else 1) * new_width / width, new_height / height])
    return _cut(flow, sample) * factors.view(1, 2, 1, 1)
