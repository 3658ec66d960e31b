"""Global affine calibration with optical flow assistance (PTQ4VM sections 3.3 and 3.4)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from ptq4vm.errors import ConfigError, TrainingError
from ptq4vm.methods.soundness import check_learned
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.warp import warp
from ptq4vm.quant.layers import Affine, QuantLayer
from ptq4vm.quant.quantizers.base import ActivationQuantizer
from ptq4vm.quant.quantizers.free import FreeCodes
from ptq4vm.types import ClipBatch, MattingOutput, States

log = logging.getLogger(__name__)

Average = Callable[[Tensor], Tensor]
"""Mean of a value over the processes that share a batch.

Losses divide by what is counted in the batch (visible pixels, the size of states). Processes that each divided by their
own count would train on a mean of means, with a sample's weight depending on its neighbours; divided by the averaged
count, the mean over the processes is the loss of the whole batch, and one process computes what it always did.
"""


def _own(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class GACSettings:
    """Schedule and losses of the global stage.

    Attributes:
        epochs: Passes over the calibration samples.
        affine_lr: Adam's rate for scales (their logarithm) and shifts; 0 leaves them out.
        scale_lr: Adam's rate for the logarithm of activation scales.
        granularity: ``tensor`` learns one scale and shift per convolution (as published), ``channel`` one per channel.
        flow_weight: lambda of the optical flow loss; 0 switches OFA off.
        trust: Largest difference between the true alpha and the float network's at which the truth is the target;
            elsewhere the float network is. 1 takes the truth everywhere, as published. Where the float network is
            wrong, a scale and a shift cannot teach it better: they learn to call backgrounds foreground.
        teacher_weight: Weight of the squared error to the float network's alpha.
        state_weight: Weight of the squared error to the float network's recurrent states, each relative to the
            state's own mean square.
        warmup: Share of steps in which the rates rise linearly, before the cosine.
        weight_lr: Adam's rate for the weights' codes, in codes, where a method frees them
            (:attr:`ptq4vm.methods.method.Method.free_weights`); 0 leaves them as they are.
        burn_in: In every second step, frames at the start of the clips that only bring the recurrent states to where
            they are in the middle of a video, without gradient.
    """

    epochs: int = 55
    affine_lr: float = 1e-4
    scale_lr: float = 1e-4
    granularity: str = "tensor"
    flow_weight: float = 0.05
    trust: float = 1.0
    teacher_weight: float = 0.0
    state_weight: float = 0.0
    warmup: float = 0.0
    burn_in: int = 0
    weight_lr: float = 0.0

    @property
    def needs_teacher(self) -> bool:
        """True when a loss compares with the float network."""
        return self.trust < 1 or self.teacher_weight > 0 or self.state_weight > 0

    def __post_init__(self) -> None:
        if self.granularity not in ("tensor", "channel"):
            raise ConfigError(f"gac granularity={self.granularity!r} is unknown: use tensor or channel")
        if self.epochs < 1:
            raise ConfigError(f"gac epochs={self.epochs}: use at least 1")


def alpha_loss(alpha: Tensor, target: Tensor) -> Tensor:
    """Squared error of alpha against the truth, ``(B, T, 1, H, W)`` both; equation 6 of the paper. Scalar."""
    return F.mse_loss(alpha, target)


def flow_loss(alpha: Tensor, flow: Tensor, visible: Tensor, average: Average = _own) -> Tensor:
    """Mean absolute difference of each alpha and the flow-warped alpha before it; equation 8 of the paper.

    Args:
        alpha: ``(B, T, 1, H, W)``.
        flow: ``(B, T-1, 2, H, W)``, pixels, from frame t to frame t-1.
        visible: ``(B, T-1, 1, H, W)``, 1 where frame t's pixel is seen in frame t-1.
        average: Over the processes that share the batch.

    Returns:
        Scalar; the mean is over visible pixels.
    """
    previous, current = alpha[:, :-1].flatten(0, 1), alpha[:, 1:].flatten(0, 1)
    seen = visible.flatten(0, 1)
    difference = (current - warp(previous, flow.flatten(0, 1))).abs() * seen
    return difference.sum() / average(seen.sum()).clamp_min(1)


@dataclass
class TeacherTargets:
    """What the float network gives for every calibration sample: alpha and last states, by sample number."""

    alpha: list[Tensor]
    states: list[tuple[Tensor, ...]]

    @classmethod
    @torch.no_grad()
    def compute(cls, teacher: MattingNetwork, clips: Iterable[ClipBatch]) -> TeacherTargets:
        """Run the float network once over every sample (batches of one, in sample order)."""
        alpha, states = [], []
        for clip in clips:
            output = teacher.matte(clip.frames)
            alpha.append(output.alpha[0])
            states.append(tuple(state[0] for state in output.states if state is not None))
        return cls(alpha, states)

    def batch(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Alpha ``(B, T, 1, H, W)`` and states ``(B, C, h, w)`` of the samples ``index`` ``(B,)``."""
        rows = index.tolist()
        return torch.stack([self.alpha[i] for i in rows]).to(index.device), [
            torch.stack(parts).to(index.device) for parts in zip(*(self.states[i] for i in rows), strict=True)
        ]


class GlobalAffineCalibration(pl.LightningModule):
    """Learns a scale and a shift of every quantized layer, and activation scales, end to end over clips.

    With a ``weight_lr`` it also moves the weights' codes, so that the network makes up as a whole for what single
    layers cannot; they are decided again in the end.

    Args:
        quantized: Network after block-wise reconstruction, in eval mode; changed in place. Absorb afterwards with
            :func:`ptq4vm.quant.fold.absorb`.
        settings: Schedule and losses.
        targets: The float network's outputs, needed before training when a teacher or state weight is set.
    """

    def __init__(self, quantized: MattingNetwork, settings: GACSettings, targets: TeacherTargets | None = None) -> None:
        super().__init__()
        self.quantized = quantized
        self.settings = settings
        self.targets = targets
        self._processes = 1
        for module in quantized.modules():
            if isinstance(module, QuantLayer) and module.affine is None and settings.affine_lr > 0:
                channels = module.weight.shape[0] if settings.granularity == "channel" else 1
                module.affine = Affine(channels).to(module.weight.device)
            if isinstance(module, QuantLayer) and module.weight_quantizer is not None and settings.weight_lr > 0:
                module.weight_quantizer = FreeCodes.start(module.weight, module.weight_quantizer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with a cosine; one group for the affines, one for activation scales, one for codes that are free."""
        settings = self.settings
        affines, scales, codes = [], [], []
        for module in self.quantized.modules():
            if isinstance(module, Affine):
                affines += [module.log_scale, module.shift]
            elif isinstance(module, ActivationQuantizer):
                scales += module.learned()
            elif isinstance(module, FreeCodes):
                codes += module.learned()
        rates = ((affines, settings.affine_lr), (scales, settings.scale_lr), (codes, settings.weight_lr))
        groups = [{"params": params, "lr": rate} for params, rate in rates]
        optimizer = torch.optim.Adam([g for g in groups if g["params"]])
        total = int(self.trainer.estimated_stepping_batches)
        warm = settings.warmup * total

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Note how many processes share the batches."""
        self._processes = self.trainer.world_size

    def on_train_epoch_end(self) -> None:
        """Look at what was learned, before it is saved."""
        check_learned(self.quantized, "GAC")

    def on_train_end(self) -> None:
        """Decide the codes that were free."""
        for module in self.quantized.modules():
            if isinstance(module, QuantLayer):
                module.harden()

    def _average(self, value: Tensor) -> Tensor:
        if self._processes == 1:
            return value
        return self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Let every quantizer count the elements of the whole batch, where each process has counted its own."""
        if self._processes == 1:
            return
        for module in self.quantized.modules():
            if isinstance(module, ActivationQuantizer):
                module.share_gradients(self._processes)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        """Loss of one batch of clips: alpha, flow, and what the settings add."""
        settings = self.settings
        burn_in = settings.burn_in if batch_idx % 2 else 0
        states: States = ()
        if burn_in:
            with torch.no_grad():
                states = self.quantized.matte(batch.frames[:, :burn_in]).states
            batch = _without_first(batch, burn_in)
        output = self.quantized.matte(batch.frames, states)
        losses = self._losses(output, batch, burn_in)
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss of GAC became {loss.item()} at step {self.global_step}; lower its rates")
        self.log_dict({f"gac/{name}": value.detach() for name, value in losses.items()}, sync_dist=True)
        self.log("gac/loss", loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def _losses(self, output: MattingOutput, batch: ClipBatch, burn_in: int) -> dict[str, Tensor]:
        """Weighted losses by name; ``batch`` is without the frames of the burn-in."""
        settings = self.settings
        losses: dict[str, Tensor] = {}
        target = batch.alpha
        if settings.needs_teacher:
            if self.targets is None or batch.index is None:
                raise ConfigError("gac trust, teacher_weight and state_weight need TeacherTargets and numbered samples")
            alpha, states = self.targets.batch(batch.index)
            alpha = alpha[:, burn_in:]
            target = trusted(batch.alpha, alpha, settings.trust)
            losses["teacher"] = settings.teacher_weight * F.mse_loss(output.alpha, alpha)
            if states:  # a network may have none
                losses["states"] = settings.state_weight * _state_loss(output.states, states, self._average)
        losses["alpha"] = alpha_loss(output.alpha, target)
        if settings.flow_weight > 0:
            if batch.flow is None or batch.visible is None:
                raise ConfigError("gac flow_weight is set but the batches carry no flow: choose flow=dis, raft, ...")
            losses["flow"] = settings.flow_weight * flow_loss(output.alpha, batch.flow, batch.visible, self._average)
        return losses


def trusted(truth: Tensor, teacher: Tensor, trust: float) -> Tensor:
    """The true alpha where the float network agrees with it to within ``trust``, the float network's elsewhere."""
    return torch.where((teacher - truth).abs() <= trust, truth, teacher)


def _without_first(batch: ClipBatch, frames: int) -> ClipBatch:
    """The batch from frame ``frames`` on; flow between the remaining frames only."""
    return batch._replace(
        frames=batch.frames[:, frames:],
        alpha=batch.alpha[:, frames:],
        flow=None if batch.flow is None else batch.flow[:, frames:],
        visible=None if batch.visible is None else batch.visible[:, frames:],
    )


def _state_loss(states: Sequence[Tensor | None], targets: Sequence[Tensor], average: Average) -> Tensor:
    pairs = [(s, t) for s, t in zip(states, targets, strict=True) if s is not None]
    return torch.stack([(s - t).square().mean() / average(t.square().mean()).clamp_min(1e-6) for s, t in pairs]).mean()
