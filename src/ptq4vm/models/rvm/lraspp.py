"""Lite reduced atrous spatial pyramid pooling (Howard et al., "Searching for MobileNetV3", section 6.4)."""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.ops.junction import Junction


class LRASPP(nn.Module):
    """Gate projected features by a global descriptor: ``relu(bn(conv(x))) * sigmoid(conv(mean(x)))``."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.aspp1 = nn.Sequential(nn.Conv2d(inp, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        self.aspp2 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inp, out, 1, bias=False), nn.Sigmoid())
        self.gated = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, H, W)``; every frame is pooled by itself."""
        return self.gated(self.aspp1(x) * self.aspp2(x))
