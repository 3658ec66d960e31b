"""The two training stages of a run, each going on where an earlier run was killed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.progress import track

from ptq4vm.data.datamodule import MattingDataModule
from ptq4vm.errors import SaveError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import load_quantized_state, quantized_state
from ptq4vm.stages.gac import GACSettings, GlobalAffineCalibration, TeacherTargets
from ptq4vm.stages.progress import AtomicCheckpointIO, RunState, newest_checkpoint
from ptq4vm.stages.reconstruction import BlockReconstruction, BlockReport, ReconstructionSettings
from ptq4vm.stages.trainers import LoggerFactory, TrainerFactory, interruptible

log = logging.getLogger(__name__)


@dataclass
class Training:
    """Runs the training stages.

    Attributes:
        state: What is done, and where it is kept.
        datamodule: Calibration samples.
        trainer: Builds a Lightning Trainer from the arguments that a stage adds.
        loggers: Gives the Lightning loggers of a stage, by its name.
    """

    state: RunState
    datamodule: MattingDataModule
    trainer: TrainerFactory
    loggers: LoggerFactory

    def reconstruct(
        self,
        teacher: MattingNetwork,
        network: MattingNetwork,
        blocks: Sequence[str],
        settings: ReconstructionSettings,
        seed: int,
    ) -> None:
        """BIQ of ``network`` in place, from the first block that is not done."""
        done = self._restore_blocks(network)
        if done:
            log.info("BIQ: %d of %d blocks were done before", done, len(blocks))
        if done == len(blocks):
            return
        clips = self.datamodule.calibration_batch()
        module = BlockReconstruction(teacher, network, blocks, clips.frames, settings, seed, start=done)
        module.finished = lambda report: self._keep_blocks(module, report)
        with self.state.clock("biq"):
            self._fit(
                "biq", module, max_epochs=module.epochs, reload_dataloaders_every_n_epochs=1, enable_checkpointing=False
            )

    def _restore_blocks(self, network: MattingNetwork) -> int:
        """Load the blocks that are done and return how many; the float weights of the others stay."""
        saved = self.state.load_tensors("biq")
        if saved is None:
            return 0
        tensors, metadata = saved
        whole = {**quantized_state(network), **tensors}
        load_quantized_state(network, whole, str(self.state.path("biq.safetensors")))
        return int(metadata["blocks"])

    def _keep_blocks(self, module: BlockReconstruction, report: BlockReport) -> None:
        """Save the tensors of every finished block, and how long the last took."""
        done = module.blocks[: module.blocks.index(report.block) + 1]
        state = quantized_state(module.quantized)
        tensors = {key: value for key, value in state.items() if any(_inside(key, path) for path in done)}
        self.state.save_tensors("biq", tensors, {"blocks": str(len(done))})
        self.state.tick(report.block, report.seconds)

    def calibrate(self, teacher: MattingNetwork, network: MattingNetwork, settings: GACSettings) -> None:
        """GAC with OFA of ``network`` in place, from the last epoch that was saved."""
        module = GlobalAffineCalibration(network, settings, None)
        saved = self.state.load_tensors("gac")
        if saved is not None:
            log.info("GAC was done before")
            network.load_state_dict(saved[0])
            return
        folder = self.state.path("gac")
        newest = newest_checkpoint(folder)
        if newest is not None:
            log.info("GAC goes on after %s", newest.stem)
        with self.state.clock("gac"):
            if settings.needs_teacher:
                clips = track(self.datamodule.calibration_clips(), description="float targets", transient=True)
                module.targets = TeacherTargets.compute(teacher, clips)
            self._fit(
                "gac",
                module,
                {"datamodule": self.datamodule, "ckpt_path": newest, "weights_only": True},
                max_epochs=settings.epochs,
                callbacks=[ModelCheckpoint(folder, filename="{epoch:04d}")],
                plugins=[AtomicCheckpointIO()],
            )
        self.state.save_tensors("gac", dict(network.state_dict()), {})
        shutil.rmtree(folder)

    def _fit(self, stage: str, module: pl.LightningModule, fit: dict[str, Any] | None = None, **arguments: Any) -> None:
        """Train with a Trainer of ``arguments``, calling its ``fit`` with ``fit``."""
        trainer = self.trainer(
            logger=self.loggers(stage) or False, num_sanity_val_steps=0, enable_model_summary=False, **arguments
        )
        try:
            with interruptible():
                trainer.fit(module, **(fit or {}))
        except OSError as error:  # of a logger, say
            raise SaveError(f"cannot write below {self.state.folder.parent}: {error}; free some space") from error
        finally:
            module.teardown("fit")  # which Lightning leaves out after an error
            module.cpu()


def _inside(key: str, path: str) -> bool:
    """Whether a tensor belongs to a module; the empty path is the whole network."""
    return path == "" or key.startswith(f"{path}.")
