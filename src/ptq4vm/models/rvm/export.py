"""RVM's special modules in the form in which they are exported.

The guided filter is shaped for each engine: it is half of the time of a large frame and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.models.base import Replacements
from ptq4vm.models.rvm.decoder import ConvGRU
from ptq4vm.models.rvm.layers import merge_time, split_time
from ptq4vm.models.rvm.refiner import BoxFilter, FastGuidedFilterRefiner, GuidedFilter

_COLOURS, _GUIDES = 3, 4


def replacements(target: str) -> Replacements:
    """Say which of RVM's modules get another form; see
    :meth:`ptq4vm.models.base.MattingNetwork.export_replacements`."""
    return {ConvGRU: PlainGRU, GuidedFilter: partial(refiner_for, target=target)}


def refiner_for(refiner: nn.Module, target: str) -> nn.Module:
    """Give a refiner the form that an engine is quick with; what is no guided filter stays as it is.

    Args:
        refiner: The refiner; it is not changed.
        target: ``openvino`` or ``onnx``; with another target, every refiner stays as it is.
    """
    if target == "openvino" and isinstance(refiner, GuidedFilter):
        return PointwiseRefiner(refiner)
    if target == "onnx" and isinstance(refiner, FastGuidedFilterRefiner):
        return JoinedRefiner(refiner)
    return refiner


class PlainGRU(ConvGRU):
    """The recurrent unit with its mixture written out: an exported ``lerp`` would compute it in two ways and choose.

    Args:
        gru: The unit whose layers and junctions are taken over.
    """

    def __init__(self, gru: ConvGRU) -> None:
        nn.Module.__init__(self)
        self.ih, self.hh, self.reset, self.state = gru.ih, gru.hh, gru.reset, gru.state

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """See :meth:`ConvGRU.step`."""
        h = self.state(h)
        r, z = self.ih(torch.cat([x, h], 1)).chunk(2, 1)
        candidate = self.hh(torch.cat([x, self.reset(r * h)], 1))
        return self.state(h + z * (candidate - h))


class JoinedRefiner(FastGuidedFilterRefiner):
    """The fast guided filter with the window means of its images taken at once.

    ONNX Runtime takes channels by sixteen, and needs as long for four; OpenVINO loses more by joining than it gains.

    Args:
        refiner: The filter whose values are taken over.
    """

    def __init__(self, refiner: FastGuidedFilterRefiner) -> None:
        super().__init__(refiner.eps)
        self.box_filter = BoxFilter(_GUIDES * 4)

    def window_means(self, *images: Tensor) -> Sequence[Tensor]:
        """See :meth:`GuidedFilter.window_means`."""
        return self.box_filter(torch.cat(images, 1)).split(_GUIDES, 1)


class PointwiseRefiner(nn.Module):
    """A guided filter that applies ``A * guide + b`` at full size by 1x1 convolutions.

    OpenVINO enlarges four channels in the time of eight, and takes its time over joining and splitting channels where
    they lie side by side. So A and b are enlarged as one, multiplied by the guide and by ones, and added up by the
    convolutions that also part the foreground from alpha. The result differs by the rounding of float32.

    Args:
        refiner: The guided filter whose fit to the small image is used as it is.
    """

    guide: Tensor
    ones: Tensor
    sums: Tensor

    def __init__(self, refiner: GuidedFilter) -> None:
        super().__init__()
        self.refiner = refiner
        colours, units = torch.eye(_COLOURS), torch.eye(_GUIDES)
        mean, none = torch.full((1, _COLOURS), 1 / _COLOURS), torch.zeros(_GUIDES, _COLOURS)
        self.register_buffer("guide", torch.cat([colours, mean, none])[:, :, None, None], persistent=False)
        self.register_buffer("ones", torch.cat([torch.zeros(_GUIDES), torch.ones(_GUIDES)]), persistent=False)
        self.register_buffer("sums", torch.cat([units, units], 1)[:, :, None, None], persistent=False)

    def forward(
        self, fine_image: Tensor, base_image: Tensor, base_residual: Tensor, base_alpha: Tensor, base_hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`GuidedFilter.forward`."""
        fit = torch.cat(self.refiner.fit(base_image, base_residual, base_alpha, base_hidden), 1)
        guide = F.conv2d(merge_time(fine_image), self.guide, self.ones)
        terms = F.interpolate(fit, guide.shape[-2:], mode="bilinear", align_corners=False) * guide
        residual, alpha = (F.conv2d(terms, sums) for sums in self.sums.split([_COLOURS, 1]))
        return split_time(residual, fine_image), split_time(alpha, fine_image)
