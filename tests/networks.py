"""Networks and clips for tests: a tiny recurrent network, RVM and the transformer with random weights, discs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptq4vm import settings
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.vmformer.network import VMFormerMini
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.insert import observe, swap
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import Partition, QuantSpec
from ptq4vm.types import ClipBatch

TINY_PARTITION = Partition(
    blocks=("stem", "body", "recur", "project"),
    edge_layers=("stem.conv", "project"),
    branches={"recur.mix.0": (8, 8)},
)

RVM_PARTITION = Partition(
    blocks=(
        "backbone.features.*",
        "aspp",
        "decoder.decode4",
        "decoder.decode3",
        "decoder.decode2",
        "decoder.decode1",
        "decoder.decode0",
        "project_mat",
    ),
    float_modules=("refiner", "project_seg"),
    edge_layers=("backbone.features.0.0", "project_mat.conv"),
    branches={
        "decoder.decode3.conv.0": (128, 40, 3),
        "decoder.decode2.conv.0": (80, 24, 3),
        "decoder.decode1.conv.0": (40, 16, 3),
        "decoder.decode0.conv.0": (32, 3),
    },
)


class TinyRecurrence(nn.Module):
    """``h <- tanh(conv([x, h]))`` over a clip; called once for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = torch.zeros_like(x[:, 0]) if h is None else h
        outputs = []
        for frame in x.unbind(1):
            h = self.mix(torch.cat([frame, h], 1))
            outputs.append(h)
        return torch.stack(outputs, 1), h


class TinyMatting(MattingNetwork):
    """About 2000 parameters: two convolution blocks with batch norm, a recurrent one, a projection. One state."""

    num_states = 1

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.add_module("conv", nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False))
        self.stem.add_module("norm", nn.BatchNorm2d(8))
        self.stem.add_module("act", nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish())
        self.recur = TinyRecurrence(8)
        self.project = nn.Conv2d(8, 4, 1)

    def forward(self, src: Tensor, state: Tensor | None = None, downsample_ratio: float = 1.0) -> list[Tensor]:
        clips = src if src.ndim == 5 else src.unsqueeze(1)
        features = self.body(self.stem(clips.flatten(0, 1)))
        hidden, state = self.recur(features.unflatten(0, clips.shape[:2]), state)
        out = nn.functional.interpolate(self.project(hidden.flatten(0, 1)), scale_factor=2)
        out = out.unflatten(0, clips.shape[:2]) if src.ndim == 5 else out
        foreground, alpha = out.split([3, 1], -3)
        return [(foreground + src).clamp(0, 1), alpha.clamp(0, 1), state]


def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Batch norms whose statistics matter, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.2, 0.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def random_rvm(variant: str, refiner: str = "deep_guided_filter", seed: int = 0) -> RVM:
    """RVM with random weights and batch norms whose statistics matter, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RVM(variant, refiner)
    randomize(network, seed)
    return network


def folded_rvm(variant: str = "mobilenetv3") -> RVM:
    """RVM with random weights, batch norms folded where it is quantized, and nothing that requires gradients."""
    network = random_rvm(variant)
    fold_batch_norm(network, RVM_PARTITION.float_modules)
    return network.requires_grad_(False)


def random_transformer(seed: int = 0) -> VMFormerMini:
    """The small transformer of one layer with random weights, those that begin as 0 too, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = VMFormerMini(1)
    randomize(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, module.in_features**-0.5, generator=generator)
    return network.requires_grad_(False)


def transformer_partition() -> Partition:
    """What quantization does to a transformer of one layer."""
    return settings.partition(FAMILIES["vmformer"]().partition({"layers": 1}))


def quantized_transformer(network: VMFormerMini, spec: QuantSpec) -> VMFormerMini:
    """A transformer of one layer rounded to nearest on random frames."""
    folded = VMFormerMini(1).eval()
    folded.load_state_dict(network.state_dict())
    fold_batch_norm(folded).requires_grad_(False)
    frames = torch.rand(1, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = quantize(folded, transformer_partition(), spec, frames)
    assert isinstance(found, VMFormerMini)
    return found


def tiny_matting(seed: int = 0) -> TinyMatting:
    """The tiny network with batch norms, in eval mode; its alpha lies around a half."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TinyMatting()
        nn.init.constant_(network.project.bias, 0.5)
    randomize(network, seed)
    return network


def tiny_folded(seed: int = 0) -> TinyMatting:
    """The tiny network with batch norms folded and nothing that requires gradients."""
    network = tiny_matting(seed)
    fold_batch_norm(network)
    network.requires_grad_(False)
    return network


def quantize(
    folded: MattingNetwork, partition: Partition, spec: QuantSpec, frames: Tensor, seed: int = 0
) -> MattingNetwork:
    """Round to nearest with ranges observed on ``frames``."""
    plan = make_plan(folded, resolve(folded, partition), spec)
    quantized = swap(folded, plan, observe(folded, plan, lambda: folded(frames), seed))
    assert isinstance(quantized, MattingNetwork)
    return quantized


def disc_clips(count: int = 4, length: int = 3, size: int = 16, step: int = 2, seed: int = 0) -> ClipBatch:
    """Discs that move right by ``step`` pixels a frame over noise, with their exact alpha and flow."""
    generator = torch.Generator().manual_seed(seed)
    background = torch.rand(count, 1, 3, size, size, generator=generator) * 0.5
    centres = torch.rand(count, 1, 2, generator=generator) * size / 2 + size / 8
    x = (
        torch.arange(size).view(1, 1, 1, size)
        - centres[..., 0, None, None]
        - step * torch.arange(length).view(1, -1, 1, 1)
    )
    y = torch.arange(size).view(1, 1, size, 1) - centres[..., 1, None, None]
    alpha = (size / 4 - torch.hypot(x, y) + 0.5).clamp(0, 1).unsqueeze(2)
    colour = torch.rand(count, 1, 3, 1, 1, generator=generator) * 0.3 + 0.7
    flow = torch.zeros(count, length - 1, 2, size, size)
    flow[:, :, 0] = -step
    visible = torch.ones(count, length - 1, 1, size, size)
    visible[..., :step] = 0
    return ClipBatch(alpha * colour + (1 - alpha) * background, alpha, flow, visible, torch.arange(count))
