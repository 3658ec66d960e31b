"""Image classification with the encoder of a binary network, before it learns to matte."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.errors import TrainingError
from ptq4vm.methods.binary.schedule import PretrainingStage
from ptq4vm.models.bivm.network import BiVM


class Pretraining(pl.LightningModule):
    """Trains the encoder and a linear layer on its coarsest features; the linear layer is thrown away.

    Args:
        network: The binary network, whose encoder is changed in place.
        classes: How many classes the pictures have.
        stage: Schedule of the stage.
    """

    def __init__(self, network: BiVM, classes: int, stage: PretrainingStage) -> None:
        super().__init__()
        self.encoder = network.backbone
        self.head = nn.Linear(self.encoder.channels[3], classes)  # type: ignore[index, arg-type]
        self.stage = stage

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, its rate falling linearly to 0."""
        optimizer = torch.optim.Adam(self.parameters(), self.stage.lr)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """Cross-entropy of a batch: pictures ``(N, 3, H, W)`` in [0, 1] and numbers of their classes ``(N,)``."""
        pictures, classes = batch
        logits = self.head(self.encoder(pictures)[3].mean((2, 3)))
        loss = F.cross_entropy(logits, classes)
        if not bool(torch.isfinite(loss)):
            raise TrainingError("pre-training gave a loss that is not finite: use a smaller schedule.pretraining.lr")
        self.log("loss", loss.detach(), prog_bar=True)
        self.log("accuracy", (logits.detach().argmax(1) == classes).float().mean(), prog_bar=True)
        return loss
