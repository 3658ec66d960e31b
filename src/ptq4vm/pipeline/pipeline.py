"""The whole run: float reference, round to nearest, BIQ, GAC+OFA, each evaluated; resumable at every step."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytorch_lightning as pl
from rich.progress import track
from torch import nn

from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.errors import CheckpointError
from ptq4vm.evaluation.cost import Cost, measure_cost
from ptq4vm.evaluation.layer_errors import layer_errors
from ptq4vm.methods.method import Method, Preset, method_values, preset_values
from ptq4vm.methods.mixed_bits import Budget, choose_bits
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.formats import channels_last
from ptq4vm.pipeline.measuring import measured, seconds
from ptq4vm.pipeline.run import Run, RunResult
from ptq4vm.pipeline.teacher import folded
from ptq4vm.pipeline.training import Training
from ptq4vm.quant.checkpoint import (
    CheckpointInfo,
    has_quantized,
    load_quantized,
    load_quantized_state,
    quantized_skeleton,
    quantized_state,
    read_info,
    save_quantized,
)
from ptq4vm.quant.fold import absorb
from ptq4vm.quant.insert import observe, swap
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import Partition, QuantSpec, spec_values
from ptq4vm.runs.progress import SharedStages, fingerprint, tensors_hash
from ptq4vm.system.trainers import processes

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Pipeline(Run):
    """The quantization of one network on one data module, resumable at every step.

    Attributes:
        datamodule: Calibration samples and evaluation clips.
        spec: Bits, observers and placement of the quantizers.
        method: The method, which says which stages run.
        preset: The schedules of the stages.
        budget: What mixed bits may cost; uniform bits where it is empty.
        baseline: Whether rounding to nearest with min-max ranges is measured too, as the stage ``rtn``.
        stage_cache: Folder where runs that begin alike share their reconstruction: the grid of an ablation then
            computes it once.
    """

    datamodule: MattingDataModule
    spec: QuantSpec
    method: Method
    preset: Preset
    budget: Budget = field(default_factory=Budget)
    baseline: bool = True
    stage_cache: Path | None = None

    def run(self) -> RunResult:
        """Do what is left to do of the run.

        Raises:
            PTQ4VMError: With one line that says what is wrong and what to do; what was finished stays.
        """
        pl.seed_everything(self.seed, workers=True, verbose=False)
        teacher, partition = self._teacher()
        if not self.spec.is_float:
            self._warn_of_overlap()
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
        self._begin(self._identity(partition))
        network = self._finished(teacher)
        if network is None:
            self._state.put("finished", False)
            self._evaluate(teacher, "fp32")
            network = teacher
            if not self.spec.is_float:
                spec = self._chosen(teacher, partition)
                network = self._quantize(teacher, partition, spec)
                notes = {"method": method_values(self.method), **self.notes}
                info = CheckpointInfo(self.model, spec, partition, notes)
                save_quantized(self.run_dir, network, info)
        stages, timing = measured(self._state), seconds(self._state)
        network = network.eval()
        steps = dict(self._state.get("steps") or {})
        spec = self.spec if self.spec.is_float else read_info(self.run_dir).spec
        cost = self._cost(network, teacher, partition, spec)
        return self._end(RunResult(network, stages, timing, steps, cost, self._layers(network, teacher)))

    def _teacher(self) -> tuple[MattingNetwork, Partition]:
        """The folded float network, and its blocks."""
        partition = resolve(self.network, self.partition)
        return folded(self.network, partition).requires_grad_(False), partition

    def _cost(self, network: MattingNetwork, teacher: MattingNetwork, partition: Partition, spec: QuantSpec) -> Cost:
        """Cost at the size of the frames that are evaluated; at that of the samples where there are none."""
        clips = self.datamodule.evaluation_clips
        crop = self.preset.calibration.crop
        size = clips[0].size if clips else crop or self.datamodule.clip_sets.calibration[0].size
        return measure_cost(network, teacher, partition, spec, size, self.downsample_ratio)

    def _layers(self, network: MattingNetwork, teacher: MattingNetwork) -> dict[str, float]:
        """Errors of the layers on the first calibration sample."""
        saved = self._state.get("layers")
        if saved is None and not self.spec.is_float:
            saved = layer_errors(teacher, network, self.datamodule.calibration_batch([0]).frames)
            self._state.put("layers", saved)
        return dict(saved or {})

    def _warn_of_overlap(self) -> None:
        sets = self.datamodule.clip_sets
        both = [clip.name for clip in sets.evaluation if clip in sets.calibration]
        if both:
            log.warning(
                "%d evaluation clips, as %s, are calibrated on too, which makes every figure too good: "
                "give clips to calibrate on (data.calibration_root)",
                len(both),
                both[0],
            )

    def _finished(self, teacher: MattingNetwork) -> MattingNetwork | None:
        """The network that an earlier run finished with, or ``None``."""
        if not self._state.get("finished"):
            return None
        network: nn.Module = teacher
        if not self.spec.is_float:
            if not has_quantized(self.run_dir):
                return None
            try:
                network = load_quantized(self.run_dir, copy.deepcopy(self.network), read_info(self.run_dir))
            except CheckpointError as error:
                log.warning("%s; making it again from the finished stages", error)
                return None
        log.info("%s is finished: nothing is left to do", self.run_dir)
        return channels_last(_matting(network))

    def _identity(self, partition: Partition) -> dict[str, str]:
        """Everything that decides the result, under the names that users know it by; no budgets, no paths."""
        # several processes make one batch of theirs
        batch_size = self.preset.calibration.batch_size * (
            processes(self.trainer) if self.method.learns_globally else 1
        )
        schedule = replace(
            self.preset,
            calibration=replace(self.preset.calibration, batch_size=batch_size),
            reconstruction=replace(self.preset.reconstruction, memory_mib=0),
            closed_form=replace(self.preset.closed_form, memory_mib=0),
        )
        augmentation = self.datamodule.augmentation
        return fingerprint(
            model=dict(self.model),
            weights=tensors_hash(self.network.state_dict()),
            bits=[self.spec.weight.bits, self.spec.activation.bits],
            method=[method_values(self.method), spec_values(self.spec)],
            partition=partition,
            preset=None if self.spec.is_float else preset_values(schedule, self.method),
            seed=self.seed,
            downsample_ratio=self.downsample_ratio,
            calibration_clips=None if self.spec.is_float else self.datamodule.content_hash(),
            evaluation_clips=[(c.name, c.num_frames, c.size) for c in self.datamodule.evaluation_clips],
            # only where there is any, so that runs from before it was known go on
            **({"augmentation": augmentation} if augmentation is not None and not self.spec.is_float else {}),
            **({"budget": self.budget} if self.budget.active else {}),
        )

    @property
    def _final(self) -> str:
        """The stage whose network is the result."""
        if self.spec.is_float:
            return "fp32"
        return (self.method.stages or ("rtn",))[-1]

    def _shared(self) -> SharedStages | None:
        """The place where runs that begin alike find each other's reconstruction; ``None`` without a stage cache."""
        if self.stage_cache is None or not self.method.biq:
            return None
        parts = self._state.notes["fingerprint"]
        apart = ("method", "preset", "calibration_clips", "evaluation_clips", "downsample_ratio")
        form = {k: v for k, v in method_values(self.method)["reconstruction"].items() if k != "label"}
        schedule = replace(self.preset.reconstruction, memory_mib=0)
        own = fingerprint(
            form=[form, spec_values(self.spec)],
            schedule=[self.preset.calibration, schedule],
            clips=self.datamodule.content_hash(flow=False),
        )
        return SharedStages(self.stage_cache, {k: v for k, v in parts.items() if k not in apart} | own)

    def _evaluate(self, network: MattingNetwork, stage: str) -> None:
        """Evaluate a stage's network, unless an earlier run did.

        The float network and the final one are looked at again in a run that was not finished: the pictures, which
        are drawn at its end, compare the two.
        """
        results = self._state.get("results") or {}
        pictured = self.observer is not None and stage in ("fp32", self._final)
        if not self.datamodule.evaluation_clips or (stage in results and not pictured):
            return
        self._measure(stage, network, self.datamodule)

    def _chosen(self, teacher: MattingNetwork, partition: Partition) -> QuantSpec:
        """The choices with the bits of every layer, as an earlier run found them where there was one."""
        if not self.budget.active:
            return self.spec
        saved = self._state.get("mixed_bits")
        if saved is None:
            with self._state.clock("sensitivity"):
                clips = self.datamodule.calibration_batch()
                found = choose_bits(teacher, partition, self.spec, self.budget, clips.frames, self.seed, clips.alpha)
            saved = {"weight_bits": dict(found.weight_bits), "activation_bits": dict(found.activation_bits)}
            self._state.put("mixed_bits", saved)
        return replace(self.spec, **saved)

    def _quantize(self, teacher: MattingNetwork, partition: Partition, spec: QuantSpec) -> MattingNetwork:
        baseline = self.baseline and self._final != "rtn"
        if baseline and self.datamodule.evaluation_clips and "rtn" not in measured(self._state):
            with self._state.clock("rtn"):
                nearest = self._start(teacher, partition, _nearest(self.spec))
            self._evaluate(nearest, "rtn")
        network = self._calibrated(teacher, partition, spec)
        if self._final == "rtn":
            self._evaluate(network, "rtn")
        training = Training(self._state, self.datamodule, self.trainer, self.loggers, self._shared())
        if self.method.closed_form:
            training.round_in_closed_form(teacher, network, partition.blocks, self.preset.closed_form, self.seed)
            self._evaluate(network, "closed_form")
        if self.method.biq:
            form = self.method.reconstruction
            training.reconstruct(teacher, network, partition.blocks, form, self.preset.reconstruction, self.seed)
            self._evaluate(network, form.label)
        if self.method.learns_globally:
            training.calibrate(teacher, network, self.method.global_settings(self.preset.gac), self._final)
            absorb(network)
            self._evaluate(network, self._final)
        absorb(network)
        return network

    def _calibrated(self, teacher: MattingNetwork, partition: Partition, spec: QuantSpec) -> MattingNetwork:
        """The network with its ranges observed, as an earlier run left it where there was one."""
        saved = self._state.load_tensors("start")
        if saved is not None:
            network = quantized_skeleton(teacher, partition, spec)
            load_quantized_state(network, saved[0], str(self._state.path("start.safetensors")))
            return _matting(network)
        with self._state.clock("calibrate"):
            network = self._start(teacher, partition, spec)
        self._state.save_tensors("start", quantized_state(network), {})
        return network

    def _start(self, teacher: MattingNetwork, partition: Partition, spec: QuantSpec) -> MattingNetwork:
        """Observe ranges on the calibration samples and insert quantizers, rounding to nearest."""
        plan = make_plan(teacher, partition, spec)
        clips = self.datamodule.calibration_clips()

        def run() -> None:
            for clip in track(clips, description=f"observing ({spec.activation.observer})", transient=True):
                teacher.matte(clip.frames)

        return _matting(swap(teacher, plan, observe(teacher, plan, run, self.seed)))


def _matting(network: nn.Module) -> MattingNetwork:
    """The same network, whose class quantizing keeps."""
    assert isinstance(network, MattingNetwork)
    return network


def _nearest(spec: QuantSpec) -> QuantSpec:
    """Round to nearest with min-max ranges, one scale per tensor, at the same bits: the baseline of every table."""
    weight = replace(spec.weight, observer="minmax")
    return replace(spec, weight=weight, activation=replace(spec.activation, observer="minmax", granularity="tensor"))
