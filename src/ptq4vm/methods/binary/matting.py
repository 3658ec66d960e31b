"""One stage of matting of a network that is trained, binary or in float, as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ptq4vm.errors import ConfigError, TrainingError
from ptq4vm.methods.binary.losses import alpha_loss, foreground_loss, mimicking_loss, segmentation_loss
from ptq4vm.methods.binary.norms import MEASURE, NormStatistics
from ptq4vm.methods.binary.schedule import MattingStage
from ptq4vm.models.base import MattingNetwork, TrainableMatting
from ptq4vm.models.bivm.decoder import choose_threshold, residue
from ptq4vm.models.bivm.encoder import elastic_penalty
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.ops.formats import channels_last
from ptq4vm.types import ClipBatch

MIMICKED = ("decode3", "decode2", "decode1")
"""Blocks of the decoder whose features are mimicked, coarsest first."""
_COARSEST = "decode4"


class Features:
    """What blocks of a network's decoder gave in its last forward.

    Args:
        network: With the blocks :data:`MIMICKED`; hooks are put on them.
    """

    def __init__(self, network: MattingNetwork) -> None:
        self.found: dict[str, Tensor] = {}
        for name in (*MIMICKED, _COARSEST):
            network.get_submodule(f"decoder.{name}").register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> None:
            self.found[name] = output[0]

        return keep

    def mimicked(self) -> list[Tensor]:
        """``(B, T, C, h, w)`` of the blocks :data:`MIMICKED`."""
        return [self.found[name] for name in MIMICKED]

    def mask(self) -> Tensor:
        """``(B*T, 1, h, w)``, set where the coarsest block's features change the most."""
        found = residue(self.found[_COARSEST].flatten(0, 1))
        return (found > choose_threshold(found)).to(found.dtype)


def unclipped(alpha: Tensor, raw: Tensor) -> Tensor:
    """Alpha in [0, 1] whose gradient is that of ``raw``, which it was clipped from.

    Clipping has no gradient outside [0, 1], and a network that calls everything background stays there: the first
    trainings here all ended so.
    """
    return raw + (alpha - raw).detach()


class BinaryMatting(pl.LightningModule):
    """Trains a network on clips, against their true alpha or a float network's.

    Args:
        network: The network; changed in place. Segmentation and LBM need the parts of RVM that binary networks have.
        teacher: The float network, in eval mode, which is not changed; needed where the stage asks for it.
        stage: What is learned, and how.

    Raises:
        ConfigError: The stage needs a float network, and there is none, or parts that the network has not.
    """

    def __init__(self, network: TrainableMatting, teacher: MattingNetwork | None, stage: MattingStage) -> None:
        super().__init__()
        if teacher is None and stage.needs_teacher:
            raise ConfigError("this stage learns from a float network: give teacher=rvm_mobilenetv3")
        if not isinstance(network, BiVM):
            for name in ("segmentation_weight", "mimic_weight", "elastic_weight"):
                if getattr(stage, name) > 0:
                    raise ConfigError(
                        f"{name}={getattr(stage, name):g} is for binary networks, which {type(network).__name__} "
                        "is not: use schedule=transformer, or 0"
                    )
        self.network = network
        self.stage = stage
        self._norms = NormStatistics(network, stage.norms)
        self.automatic_optimization = stage.norms != MEASURE
        self._teacher = [teacher] if teacher is not None else []  # in a list: no part of what is saved and trained
        self._projected: list[Tensor] = []
        if isinstance(network, BiVM):
            network.project_mat.register_forward_hook(self._keep_projected)
        self._seen = (Features(network), Features(teacher)) if teacher is not None and stage.mimic_weight > 0 else None

    def _keep_projected(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._projected = [output]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with a rate for the encoder, one for the refiner and one for all else."""
        rates = {"backbone": self.stage.encoder_lr, "refiner": self.stage.refiner_lr}
        groups: dict[float, list[nn.Parameter]] = {}
        for path, parameter in self.network.named_parameters():
            groups.setdefault(rates.get(path.partition(".")[0], self.stage.lr), []).append(parameter)
        optimizer = torch.optim.Adam([{"params": params, "lr": rate} for rate, params in groups.items()])
        total = max(1, int(self.trainer.estimated_stepping_batches))

        def rate(step: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * step / total)) if self.stage.cosine else 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Bring the float network to where the binary one is, and both into the layout that is fast on a CPU."""
        if isinstance(self.network, BiVM):
            for network in (self.network, *self._teacher):
                channels_last(network)
        for teacher in self._teacher:
            teacher.to(self.device).eval().requires_grad_(False)
        self._norms.begin(anew=self.current_epoch == 0)

    def on_fit_end(self) -> None:
        """Leave the batch norms as they were found, but for their statistics, and the layout as a file gives it."""
        self._norms.end()
        self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as in channels_last

    def on_train_epoch_start(self) -> None:
        """Tell the network how far training is."""
        self.network.train()
        self.network.advance(self.current_epoch / max(1, self.stage.epochs - 1))

    def training_step(self, batch: ClipBatch, step: int) -> Tensor | None:
        """Loss of a batch: of the matte, or of the segmentation in every second step where the stage wants it.

        ``None`` where norms are measured: the network has seen the batch, and that is all.
        """
        if self.stage.norms == MEASURE:
            with torch.no_grad():
                self.network.matte(batch.frames, downsample_ratio=self.stage.downsample_ratio)
            return None
        if self.stage.segmentation_weight > 0 and step % 2:
            logits, *_ = self.network(batch.frames, segmentation_pass=True)
            losses: Mapping[str, Tensor] = {
                "segmentation": self.stage.segmentation_weight * segmentation_loss(logits, batch.alpha)
            }
        else:
            losses = self._matting_losses(batch)
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise TrainingError("training gave a loss that is not finite: use a smaller schedule.stages.*.lr")
        self.log_dict({f"loss/{name}": value.detach() for name, value in losses.items()})
        self.log("loss", total.detach(), prog_bar=True)
        return total

    def _matting_losses(self, batch: ClipBatch) -> Mapping[str, Tensor]:
        """What is added up where the network mattes, by name."""
        stage, ratio = self.stage, self.stage.downsample_ratio
        found = self.network.matte(batch.frames, downsample_ratio=ratio)
        alpha, foreground = batch.alpha, None
        if self._teacher:
            with torch.no_grad():
                wanted = self._teacher[0].matte(batch.frames, downsample_ratio=ratio)
            foreground = wanted.foreground
            alpha = wanted.alpha if stage.labels == "teacher" else alpha
        ours = found.alpha
        if self._projected and ratio == 1:  # behind a refiner alpha is another one, which was not clipped from this
            ours = unclipped(ours, self._projected[0][..., 3:, :, :])
        losses = {"alpha": alpha_loss(ours, alpha)}
        if foreground is not None:
            losses["foreground"] = foreground_loss(found.foreground, foreground, alpha)
        if self._seen is not None:
            features, wanted_features = self._seen
            mimicked = mimicking_loss(features.mimicked(), wanted_features.mimicked(), wanted_features.mask())
            losses["mimicking"] = stage.mimic_weight * mimicked
        if stage.elastic_weight > 0:
            losses["elastic"] = stage.elastic_weight * elastic_penalty(self.network)
        return losses
