"""The two training stages of a run, each going on where an earlier run was killed."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from rich.progress import track

from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.errors import SaveError
from ptq4vm.io import remedy
from ptq4vm.methods.closed_form import ClosedFormRounding, ClosedFormSettings
from ptq4vm.methods.fisher import FisherWeights
from ptq4vm.methods.gac import GACSettings, GlobalAffineCalibration, TeacherTargets
from ptq4vm.methods.method import ReconstructionForm
from ptq4vm.methods.reconstruction import BlockReconstruction, BlockReport
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.methods.units import make_units
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import load_quantized_state, quantized_state
from ptq4vm.runs.progress import AtomicCheckpointIO, RunState, SharedStages, newest_checkpoint
from ptq4vm.system.trainers import ONE_DEVICE, LoggerFactory, TrainerFactory, interruptible, processes

log = logging.getLogger(__name__)


@dataclass
class Training:
    """The training stages of a run.

    Attributes:
        state: The state of the run: what is done, and where it is kept.
        datamodule: The data module with the calibration samples.
        trainer: Factory that builds a Lightning Trainer from the arguments that a stage adds.
        loggers: Factory that gives the Lightning loggers of a stage, by its name.
        shared: The place where a reconstruction that another run has finished is found.
    """

    state: RunState
    datamodule: MattingDataModule
    trainer: TrainerFactory
    loggers: LoggerFactory
    shared: SharedStages | None = None

    def round_in_closed_form(
        self,
        teacher: MattingNetwork,
        network: MattingNetwork,
        blocks: Sequence[str],
        settings: ClosedFormSettings,
        seed: int,
    ) -> None:
        """Round ``network`` in closed form, in place, from the first block that is not done."""
        label = "closed_form"
        _, done = self._restore_units(label, network)
        if done == len(blocks):
            return
        if done:
            log.info("closed form: %d of %d blocks were done before", done, len(blocks))
        frames = self.datamodule.calibration_batch().frames
        module = ClosedFormRounding(teacher, network, blocks, frames, settings, seed, done)
        module.finished = lambda block, seconds: self._keep(label, network, list(blocks), 0, block, seconds)
        with self.state.clock(label):
            self._fit(label, module, max_epochs=1, enable_checkpointing=False, **ONE_DEVICE)

    def reconstruct(
        self,
        teacher: MattingNetwork,
        network: MattingNetwork,
        blocks: Sequence[str],
        form: ReconstructionForm,
        schedule: ReconstructionSettings,
        seed: int,
    ) -> None:
        """Reconstruct ``network`` in place, from the first unit of the first pass that is not done."""
        label = form.label
        passes = form.passes(schedule)
        self._take_over(label)
        begun, done = self._restore_units(label, network)
        units = make_units(network, blocks, form.unit)
        if begun or done:
            log.info(
                "%s: %d of %d %s were done before",
                label.upper(),
                begun * len(units) + done,
                len(passes) * len(units),
                f"{form.unit}s",
            )
        for number, what in list(enumerate(passes))[begun:]:
            start, done = done, 0
            if start == len(units):
                continue
            clips = self.datamodule.calibration_batch()
            fisher = FisherWeights(clips.frames, clips.alpha, form.damping) if form.fisher else None
            module = BlockReconstruction(
                teacher, network, blocks, clips.frames, what, seed + 7919 * number, start, label, fisher
            )
            module.finished = partial(self._keep_units, label, module, number)
            name = label if number == 0 else f"{label}-scales"
            with self.state.clock(label):
                self._fit(
                    name,
                    module,
                    max_epochs=module.epochs,
                    reload_dataloaders_every_n_epochs=1,
                    enable_checkpointing=False,
                    **ONE_DEVICE,  # a block is a matter of seconds, and its data are captured in this process
                )
        self.state.count_steps(label, sum(what.settings.steps for what in passes) * len(units))
        self._share(label)

    def _take_over(self, label: str) -> None:
        """Begin with what another run has finished, unless this run has begun."""
        found = self.shared.load() if self.shared is not None and self.state.load_tensors(label) is None else None
        if found is None:
            return
        log.info("%s: taken from a run that began alike", label.upper())
        tensors, metadata = found
        self.state.take_over(label, json.loads(metadata["timing"]))
        self.state.save_tensors(label, tensors, metadata)

    def _share(self, label: str) -> None:
        """Let other runs begin with what this one has finished."""
        if self.shared is None or label in (self.state.get("shared") or ()):
            return
        saved = self.state.load_tensors(label)
        assert saved is not None
        timing = {"seconds": self.state.timing["stages"][label], "blocks": self.state.timing["blocks"]}
        self.shared.save(saved[0], {**saved[1], "timing": json.dumps(timing)})

    def _restore_units(self, label: str, network: MattingNetwork) -> tuple[int, int]:
        """Load the units that are done; return the number of the pass and of its units.

        The float weights of the others stay.
        """
        saved = self.state.load_tensors(label)
        if saved is None:
            return 0, 0
        tensors, metadata = saved
        whole = {**quantized_state(network), **tensors}
        load_quantized_state(network, whole, str(self.state.path(f"{label}.safetensors")))
        return int(metadata["pass"]), int(metadata["units"])

    def _keep_units(self, label: str, module: BlockReconstruction, number: int, report: BlockReport) -> None:
        """Save the tensors of every finished unit, and how long the last took."""
        paths = [unit.path for unit in module.units]
        self._keep(label, module.quantized, paths, number, report.block, report.seconds)

    def _keep(
        self, label: str, network: MattingNetwork, paths: Sequence[str], number: int, last: str, seconds: float
    ) -> None:
        """Save the tensors of the modules at ``paths`` up to the last that is done."""
        done = paths[: list(paths).index(last) + 1]
        tensors = quantized_state(network)
        if number == 0:  # later passes find everything decided
            tensors = {key: value for key, value in tensors.items() if any(_inside(key, path) for path in done)}
        self.state.save_tensors(label, tensors, {"pass": str(number), "units": str(len(done))})
        self.state.tick(last or "network", seconds)

    def calibrate(
        self, teacher: MattingNetwork, network: MattingNetwork, settings: GACSettings, label: str = "gac"
    ) -> None:
        """Calibrate ``network`` globally (GAC with OFA), in place, from the last epoch that was saved."""
        module = GlobalAffineCalibration(network, settings, None)
        saved = self.state.load_tensors("gac")
        if saved is not None:
            log.info("GAC was done before")
            network.load_state_dict(saved[0])
            return
        folder = self.state.path("gac")
        arguments, saving = saved_by_epochs(folder, {"datamodule": self.datamodule})
        with self.state.clock(label):
            if settings.needs_teacher:
                clips = track(self.datamodule.calibration_clips(), description="float targets", transient=True)
                module.targets = TeacherTargets.compute(teacher, clips)
            self._fit(label, module, arguments, max_epochs=settings.epochs, **saving)
        batches = math.ceil(len(self.datamodule.samples) // processes(self.trainer) / self.datamodule.batch_size)
        self.state.count_steps(label, settings.epochs * batches)
        self.state.save_tensors("gac", dict(network.state_dict()), {})
        shutil.rmtree(folder)

    def _fit(
        self, stage: str, module: pl.LightningModule, arguments: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Train with a Trainer of ``more``, calling its ``fit`` with ``arguments``."""
        fit(self.trainer, self.loggers(stage), self.state.folder.parent, module, arguments, **more)


def saved_by_epochs(folder: Path, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a stage is trained that saves every epoch and goes on after the last one that an earlier run saved.

    Args:
        folder: Folder in a run's state for the epochs of this stage.
        data: Arguments of the Trainer's ``fit`` that give the batches.

    Returns:
        Arguments of the Trainer's ``fit``, and of the Trainer.
    """
    newest = newest_checkpoint(folder)
    if newest is not None:
        log.info("%s goes on after %s", folder.name.upper(), newest.stem)
    saving = {"callbacks": [ModelCheckpoint(folder, filename="{epoch:04d}")], "plugins": [AtomicCheckpointIO()]}
    return {**data, "ckpt_path": newest, "weights_only": True}, saving


def fit(
    make: TrainerFactory,
    loggers: list[Logger],
    run_dir: Path,
    module: pl.LightningModule,
    arguments: dict[str, Any] | None = None,
    **more: Any,
) -> pl.Trainer:
    """Train a module; it is on the CPU afterwards, whatever happens.

    Args:
        make: Builds the Trainer.
        loggers: Loggers of the stage, none for no log.
        run_dir: Folder that the run writes to, for messages.
        module: What is trained.
        arguments: Those of the Trainer's ``fit``.
        more: Further arguments of the Trainer.

    Returns:
        The Trainer.

    Raises:
        SaveError: A file cannot be written.
    """
    trainer = make(logger=loggers or False, num_sanity_val_steps=0, enable_model_summary=False, **more)
    try:
        with interruptible(trainer):
            trainer.fit(module, **(arguments or {}))
    except OSError as error:  # of a logger, say
        raise SaveError(f"cannot write below {run_dir}: {error}; {remedy(error, 'choose another run_dir')}") from error
    finally:
        module.teardown("fit")  # which Lightning leaves out after an error
        module.cpu()
    return trainer


def _inside(key: str, path: str) -> bool:
    """Tell whether a tensor belongs to a module; the empty path is the whole network."""
    return path == "" or key.startswith(f"{path}.")
