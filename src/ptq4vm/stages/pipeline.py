"""The whole run: float reference, round to nearest, BIQ, GAC+OFA, each evaluated; resumable at every step."""

from __future__ import annotations

import copy
import hashlib
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from rich.progress import track
from torch import nn

from ptq4vm.data.datamodule import MattingDataModule
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import CheckpointInfo, load_quantized_state, quantized_state, save_quantized
from ptq4vm.quant.fold import absorb, fold_batch_norm
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import Partition, QuantSpec
from ptq4vm.quant.swap import make_plan, observe, swap
from ptq4vm.stages.evaluation import EvaluationResult, FrameObserver, evaluate
from ptq4vm.stages.gac import GlobalAffineCalibration, TeacherTargets
from ptq4vm.stages.method import Method, Preset
from ptq4vm.stages.progress import RunState, fingerprint
from ptq4vm.stages.reconstruction import BlockReconstruction, BlockReport

log = logging.getLogger(__name__)

TrainerFactory = Callable[..., pl.Trainer]
ObserverFactory = Callable[[str], FrameObserver]


@dataclass(frozen=True)
class QuantizationResult:
    """What a run gives.

    Attributes:
        network: The quantized network, absorbed, in eval mode (the folded float one for ``bits=fp32``).
        stages: Evaluation after each stage (``fp32``, ``rtn``, ``biq``, ``gac``); empty without evaluation clips.
        timing: ``{"stages": {name: seconds}, "blocks": {path: seconds}, "total": seconds}``.
    """

    network: MattingNetwork
    stages: dict[str, EvaluationResult]
    timing: dict[str, Any]


@dataclass
class Pipeline:
    """Quantizes one network on one data module.

    Attributes:
        network: Float network in eval mode; not changed.
        model: What ``quantizer.yaml`` says to rebuild its architecture.
        datamodule: Calibration samples and evaluation clips.
        spec: Bits and placement.
        partition: Blocks, float modules and edge layers (patterns allowed).
        method: Which stages run.
        preset: Their schedules.
        run_dir: Where everything goes.
        trainer: Builds a Lightning Trainer from the arguments that a stage adds.
        loggers: Gives the Lightning loggers of a training stage, by its name.
        observer: Gives, for a stage's name, who looks at its evaluated frames; pictures are drawn from that.
        seed: Of everything random.
        notes: Written into ``quantizer.yaml`` and into the identity of the run.
    """

    network: MattingNetwork
    model: Mapping[str, Any]
    datamodule: MattingDataModule
    spec: QuantSpec
    partition: Partition
    method: Method
    preset: Preset
    run_dir: Path
    trainer: TrainerFactory = pl.Trainer
    loggers: Callable[[str], list[Logger]] = lambda stage: []
    observer: ObserverFactory | None = None
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> QuantizationResult:
        """Do what is left to do.

        Raises:
            PTQ4VMError: With one line that says what is wrong and what to do; what was finished stays.
        """
        pl.seed_everything(self.seed, workers=True, verbose=False)
        teacher = fold_batch_norm(copy.deepcopy(self.network).eval(), self.partition.float_modules).requires_grad_(False)
        teacher = teacher.to(memory_format=torch.channels_last)
        partition = resolve(teacher, self.partition)
        if not self.spec.is_float:
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
        self._state = RunState(self.run_dir, self._identity(partition))
        self._timing: dict[str, Any] = self._state.get("timing") or {"stages": {}, "blocks": {}}
        self._evaluate(teacher, "fp32")
        network = teacher
        if not self.spec.is_float:
            network = self._quantize(teacher, partition)
            info = CheckpointInfo(self.model, self.spec, partition, {"method": asdict(self.method), **self.notes})
            save_quantized(self.run_dir, network, info)
        stages = {name: _result(value) for name, value in (self._state.get("results") or {}).items()}
        total = sum(self._timing["stages"].values())
        return QuantizationResult(network.eval(), stages, {**self._timing, "total": total})

    def _identity(self, partition: Partition) -> str:
        return fingerprint(
            model=dict(self.model),
            weights=_weights_hash(self.network),
            spec=self.spec,
            partition=partition,
            method=self.method,
            preset=self.preset,
            seed=self.seed,
            clips="" if self.spec.is_float else self.datamodule.content_hash(),
            evaluation=[clip.name for clip in self.datamodule.evaluation_clips],
        )

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = self._timing["stages"].get(stage, 0.0) + time.perf_counter() - began
            self._timing["stages"][stage] = seconds
            self._state.put("timing", self._timing)

    @property
    def _final(self) -> str:
        """The stage whose network is the result."""
        if self.spec.is_float:
            return "fp32"
        return "gac" if self.method.gac else "biq" if self.method.biq else "rtn"

    def _evaluate(self, network: nn.Module, stage: str) -> None:
        """Evaluate a stage's network, unless an earlier run did.

        The float network is evaluated again while the last stage is still open: the pictures compare the two.
        """
        results = self._state.get("results") or {}
        done = stage in results and (stage != "fp32" or self._final in results)
        if not self.datamodule.evaluation_clips or done:
            return
        observers = [self.observer(stage)] if self.observer is not None else []
        log.info("evaluating %s on %d clips", stage, len(self.datamodule.evaluation_clips))
        with self._clock(f"evaluate_{stage}"):
            found = evaluate(network, self.datamodule, observers=observers)  # type: ignore[arg-type]
        self._state.put("results", {**results, stage: {"mean": found.mean, "clips": found.clips}})

    def _quantize(self, teacher: MattingNetwork, partition: Partition) -> MattingNetwork:
        if self._final != "rtn" and self.datamodule.evaluation_clips and "rtn" not in (self._state.get("results") or {}):
            with self._clock("rtn"):
                baseline = self._start(teacher, partition, _nearest(self.spec))
            self._evaluate(baseline, "rtn")
        with self._clock("calibrate"):
            network = self._start(teacher, partition, self.spec)
        if self._final == "rtn":
            self._evaluate(network, "rtn")
        if self.method.biq:
            self._reconstruct(teacher, network, partition)
            self._evaluate(network, "biq")
        if self.method.gac:
            self._calibrate(teacher, network)
            network = absorb(network)  # type: ignore[assignment]
            self._evaluate(network, "gac")
        return absorb(network)  # type: ignore[return-value]

    def _start(self, teacher: MattingNetwork, partition: Partition, spec: QuantSpec) -> MattingNetwork:
        """Observe ranges on the calibration samples and insert quantizers, rounding to nearest."""
        plan = make_plan(teacher, partition, spec)
        clips = self.datamodule.calibration_clips()

        def run() -> None:
            for clip in track(clips, description=f"observing ({spec.activation.observer})", transient=True):
                teacher.matte(clip.frames)

        observers = observe(teacher, plan, run, self.seed)
        ranges = {path: [o.range() for o in found] for path, found in observers.items()}
        return swap(teacher, plan, ranges)  # type: ignore[return-value]

    def _fit(self, stage: str, module: pl.LightningModule, **kwargs: Any) -> None:
        fit = {k: kwargs.pop(k) for k in ("datamodule", "ckpt_path", "weights_only") if k in kwargs}
        trainer = self.trainer(
            logger=self.loggers(stage) or False, num_sanity_val_steps=0, enable_model_summary=False, **kwargs
        )
        trainer.fit(module, **fit)
        module.cpu()
        if trainer.interrupted:
            raise KeyboardInterrupt

    def _reconstruct(self, teacher: MattingNetwork, network: MattingNetwork, partition: Partition) -> None:
        """BIQ, from the first block that is not done."""
        saved = self._state.load_tensors("biq")
        done = 0
        if saved is not None:
            done = int(saved[1]["blocks"])
            state = {**quantized_state(network), **saved[0]}
            load_quantized_state(network, state, str(self._state.path("biq.safetensors")))
            log.info("BIQ: %d of %d blocks were done before", done, len(partition.blocks))
        if done == len(partition.blocks):
            return
        clips = self.datamodule.calibration_batch()
        module = BlockReconstruction(
            teacher, network, partition.blocks, clips.frames, self.preset.reconstruction, self.seed, start=done
        )
        module.finished = lambda report: self._keep_blocks(module, report)
        with self._clock("biq"):
            self._fit(
                "biq", module, max_epochs=module.epochs, reload_dataloaders_every_n_epochs=1, enable_checkpointing=False
            )

    def _keep_blocks(self, module: BlockReconstruction, report: BlockReport) -> None:
        """Save the tensors of every finished block, then the report of the last."""
        done = module.blocks[: module.blocks.index(report.block) + 1]
        state = quantized_state(module.quantized)
        tensors = {key: value for key, value in state.items() if any(key.startswith(f"{path}.") for path in done)}
        self._state.save_tensors("biq", tensors, {"blocks": str(len(done))})
        self._timing["blocks"][report.block] = report.seconds
        self._state.put("timing", self._timing)

    def _calibrate(self, teacher: MattingNetwork, network: MattingNetwork) -> None:
        """GAC with OFA, from the last epoch that was saved."""
        settings = self.preset.gac if self.method.ofa else replace(self.preset.gac, flow_weight=0.0)
        saved = self._state.load_tensors("gac")
        module = GlobalAffineCalibration(network, settings, None)
        if saved is not None:
            network.load_state_dict(saved[0])
            return
        with self._clock("gac"):
            if settings.needs_teacher:
                clips = track(self.datamodule.calibration_clips(), description="float targets", transient=True)
                module.targets = TeacherTargets.compute(teacher, clips)
            folder = self._state.path("gac")
            self._fit(
                "gac",
                module,
                datamodule=self.datamodule,
                ckpt_path=_newest_checkpoint(folder),
                weights_only=True,
                max_epochs=settings.epochs,
                callbacks=[ModelCheckpoint(folder, filename="{epoch:04d}")],
            )
        self._state.save_tensors("gac", dict(network.state_dict()), {})


def _newest_checkpoint(folder: Path) -> Path | None:
    """The last epoch's checkpoint that is whole: one that was cut off by a kill has its predecessor beside it."""
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
            log.warning("%s is not whole: going on from the epoch before it", path)
            path.unlink()
        else:
            return path
    return None


def _nearest(spec: QuantSpec) -> QuantSpec:
    """Round to nearest with min-max ranges, one scale per tensor, at the same bits: the baseline of every table."""
    weight = replace(spec.weight, observer="minmax")
    return replace(spec, weight=weight, activation=replace(spec.activation, observer="minmax", granularity="tensor"))


def _weights_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _result(value: Mapping[str, Any]) -> EvaluationResult:
    return EvaluationResult(dict(value["mean"]), dict(value["clips"]), {})
