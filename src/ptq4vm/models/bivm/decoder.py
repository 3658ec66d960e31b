"""BiVM's sparse decoder (SHB, section 3.3, eq. 14 to 17): most of the picture needs only the cheap half of a layer.

Matting is decided along edges. A mask, made once a frame from the decoder's coarsest features, tells where they are:
there a layer is a binary 3x3 convolution plus a binary 1x1 one, elsewhere the 1x1 one alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.models.bivm.exact import Double, Halve, Sigmoid, Tanh, double, halve
from ptq4vm.models.bivm.layers import Convolutions
from ptq4vm.models.rvm.decoder import ConvGRU, Merge, over_time, recur_half
from ptq4vm.models.rvm.export import PlainGRU
from ptq4vm.models.rvm.layers import merge_time, split_time
from ptq4vm.ops.junction import Junction

DENSITY = 0.25
"""Largest share of the mask that may be set: the share at which all published operations of networks with SHB agree."""


def residue(features: Tensor) -> Tensor:
    """How much features change from one pixel to the next: their distance from their own down- and upsampled selves.

    Args:
        features: ``(N, C, H, W)``.

    Returns:
        ``(N, 1, H, W)`` float64 in [0, 1): ``tanh(r / std(r))`` with ``r`` the mean over channels of
        ``|x - up(down(x))|`` (eq. 14), so that one threshold suits every frame (eq. 15). 0 for even features.
    """
    height, width = features.shape[-2:]
    smooth = double(halve(features))[..., :height, :width]
    away = (features - smooth).abs().double().mean(1, True)
    spread = (away - away.mean((2, 3), True)).square().mean((2, 3), True).sqrt()
    return torch.tanh(away / spread.clamp(min=1e-6))


def entropy(share: Tensor) -> Tensor:
    """Entropy, in bits, of a mask that is set on the share ``share`` in [0, 1] of its pixels; of any shape."""
    p = share.clamp(1e-7, 1 - 1e-7)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def choose_threshold(residues: Tensor, density: float = DENSITY, candidates: int = 63) -> float:
    """The threshold whose mask says the most (eq. 16): the largest entropy among those that set at most ``density``.

    Args:
        residues: From :func:`residue`, of any number of frames.
        density: Largest share of pixels that may be set, in (0, 1].
        candidates: How many thresholds, evenly spaced in (0, 1), are compared.
    """
    thresholds = torch.arange(1, candidates + 1, device=residues.device) / (candidates + 1)
    shares = torch.stack([(residues > threshold).float().mean() for threshold in thresholds])
    says = torch.where(shares <= density, entropy(shares), -torch.ones_like(shares))
    return float(thresholds[says.argmax()])


class Mask(nn.Module):
    """The mask of a frame from the decoder's coarsest features, with a threshold that training follows.

    Attributes:
        threshold: Scalar; a running mean of :func:`choose_threshold` over the batches of training.
    """

    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(0.75))

    def forward(self, features: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, 1, H, W)`` of 0 and 1; no gradient flows through it."""
        found = residue(features.detach())
        if self.training:
            self.threshold.lerp_(torch.tensor(choose_threshold(found), device=found.device), 0.1)
        return (found > self.threshold).to(features.dtype)


class SparseConv(nn.Module):
    """``mask * conv3x3(b) + conv1x1(b)`` of the same bits ``b``, each with its own norm where there is one (eq. 17).

    Args:
        make: Makes the convolutions.
        inp: Channels that come in.
        out: Channels that go out.
        norm: Whether a batch norm follows each of the two; otherwise they have biases.
    """

    def __init__(self, make: Convolutions, inp: int, out: int, norm: bool = True) -> None:
        super().__init__()
        self.activation = make.activation(inp)
        if norm:
            self.wide, self.point = (make.conv_norm(inp, out, kernel, bare=True) for kernel in (3, 1))
        else:
            self.wide, self.point = (nn.Sequential(make.conv(inp, out, k, bias=True, bare=True)) for k in (3, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features ``(N, inp, H, W)`` and mask ``(N, 1, H, W)`` of 0 and 1 to ``(N, out, H, W)``."""
        bits = self.activation(x)
        y: Tensor = mask * self.wide(bits) + self.point(bits)
        return y


class SparseGRU(nn.Module):
    """A convolutional gated recurrent unit with sparse convolutions; the state stays in float.

    ``r, z = sigmoid(ih([x, h]))``, ``c = tanh(hh([x, r*h]))``, ``h' = (1-z)*h + z*c``.
    """

    def __init__(self, make: Convolutions, channels: int) -> None:
        super().__init__()
        self.ih = SparseConv(make, 2 * channels, 2 * channels, norm=False)
        self.hh = SparseConv(make, 2 * channels, channels, norm=False)
        self.sigmoid, self.tanh = Sigmoid(), Tanh()

    def step(self, x: Tensor, h: Tensor, mask: Tensor) -> Tensor:
        """Next state from one frame ``x`` and the state ``h``, both ``(B, C, H, W)``, and the mask ``(B, 1, H, W)``."""
        r, z = self.sigmoid(self.ih(torch.cat([x, h], 1), mask)).chunk(2, 1)
        candidate = self.tanh(self.hh(torch.cat([x, r * h], 1), mask))
        return h + z * (candidate - h)

    def forward(self, x: Tensor, h: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run over frames ``(B, C, H, W)`` or a clip ``(B, T, C, H, W)`` as RVM's unit, with masks likewise."""
        return over_time(self.step, x, h, mask)


class DenseGRU(PlainGRU):
    """RVM's recurrent unit of other layers, its mixture written out: single multiplications and additions.

    Args:
        ih: From input and state to the gates, twice the channels.
        hh: From input and reset state to the candidate.
    """

    def __init__(self, ih: nn.Sequential, hh: nn.Sequential) -> None:
        nn.Module.__init__(self)
        self.ih, self.hh, self.reset, self.state = ih, hh, Junction(), Junction()

    @classmethod
    def make(cls, make: Convolutions, channels: int) -> DenseGRU:
        """A unit of its own convolutions, for ``channels`` channels."""
        ih, hh = (make.conv(2 * channels, out, 3, bias=True) for out in (2 * channels, channels))
        return cls(nn.Sequential(ih, Sigmoid()), nn.Sequential(hh, Tanh()))


class SparseUpsamplingBlock(nn.Module):
    """Upsample, join with the encoder's skip and the pooled image, convolve, recur over half of the channels.

    Args:
        make: Makes the convolutions.
        channels: Channels of what is upsampled, of the skip and of the image.
        out: Channels that go out.
        factor: How many times larger its result is than the mask.
    """

    def __init__(self, make: Convolutions, channels: tuple[int, int, int], out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.join = Merge(Double())
        self.conv = SparseConv(make, sum(channels), out)
        self.nonlinearity = make.plain_nonlinearity(out)
        self.gru = SparseGRU(make, out // 2)

    def forward(
        self, x: Tensor, skip: Tensor, image: Tensor, state: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features at twice the size of ``x`` with ``out`` channels, and the state after the last frame."""
        joined = self.join(x, skip, image)
        where = enlarge(mask, joined, self.factor)
        y = split_time(self.nonlinearity(self.conv(joined, where)), skip)
        return recur_half(self.gru, y, state, split_time(where, skip))


class SparseOutputBlock(nn.Module):
    """Upsample to the image's size, join with the image, convolve twice: binary, then in float; nothing recurrent.

    Args:
        make: Makes the first convolution.
        last: Makes the last one, which stays in float.
        channels: Channels of what is upsampled and of the image.
        out: Channels that go out.
        factor: How many times larger its result is than the mask.
    """

    def __init__(
        self, make: Convolutions, last: Convolutions, channels: tuple[int, int], out: int, factor: int
    ) -> None:
        super().__init__()
        self.factor = factor
        self.join = Merge(Double())
        self.first = SparseConv(make, sum(channels), out)
        self.first_nonlinearity = make.plain_nonlinearity(out)
        self.last = SparseConv(last, out, out)
        self.last_nonlinearity = nn.ReLU()

    def forward(self, x: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """Features with ``out`` channels at the size of ``image``."""
        joined = self.join(x, image)
        where = enlarge(mask, joined, self.factor)
        y = self.first_nonlinearity(self.first(joined, where))
        return split_time(self.last_nonlinearity(self.last(y, where)), image)


def enlarge(mask: Tensor, like: Tensor, factor: int) -> Tensor:
    """A mask ``(N, 1, h, w)`` enlarged by a whole factor, cut to the size of ``like`` ``(N, C, H, W)``."""
    height, width = like.shape[-2:]
    return F.interpolate(mask, scale_factor=factor, mode="nearest")[..., :height, :width]


def exchange_units(decoder: nn.Module) -> None:
    """Let RVM's recurrent units compute in exact arithmetic, in place; see :mod:`ptq4vm.models.bivm.exact`."""
    for module in list(decoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is ConvGRU:
                module.register_module(name, PlainGRU(child))


class SparseDecoder(nn.Module):
    """Four recurrent scales from 1/16 to 1/2, then the full size, sparse but for the first.

    Args:
        make: Makes the convolutions.
        features: Channels of the encoder's features at 1/2, 1/4, 1/8 and of the bottleneck at 1/16.
        widths: Channels that the blocks at 1/8, 1/4, 1/2 and full size give out.
        last: Makes the last convolution, which stays in float.
    """

    def __init__(
        self,
        make: Convolutions,
        features: tuple[int, int, int, int],
        widths: tuple[int, int, int, int],
        last: Convolutions,
    ) -> None:
        super().__init__()
        self.halve = Halve()
        self.mask = Mask()
        self.decode4 = DenseGRU.make(make, features[3] // 2)
        self.decode3 = SparseUpsamplingBlock(make, (features[3], features[2], 3), widths[0], 2)
        self.decode2 = SparseUpsamplingBlock(make, (widths[0], features[1], 3), widths[1], 4)
        self.decode1 = SparseUpsamplingBlock(make, (widths[1], features[0], 3), widths[2], 8)
        self.decode0 = SparseOutputBlock(make, last, (widths[2], 3), widths[3], 16)

    def forward(
        self,
        image: Tensor,
        features: tuple[Tensor, Tensor, Tensor, Tensor],
        states: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Decode frames or clips; see :meth:`ptq4vm.models.rvm.decoder.RecurrentDecoder.forward`."""
        levels = [merge_time(image)]
        for _ in range(3):
            levels.append(self.halve(levels[-1]))
        s0, s1, s2, s3 = (split_time(level, image) for level in levels)
        f1, f2, f3, f4 = features
        x, r4 = recur_half(self.decode4, f4, states[3])
        mask = self.mask(merge_time(x))
        x, r3 = self.decode3(x, f3, s3, states[2], mask)
        x, r2 = self.decode2(x, f2, s2, states[1], mask)
        x, r1 = self.decode1(x, f1, s1, states[0], mask)
        return self.decode0(x, s0, mask), (r1, r2, r3, r4)
