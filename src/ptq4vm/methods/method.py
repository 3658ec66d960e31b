"""Which stages a method runs, and a preset's schedule for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ptq4vm.errors import ConfigError
from ptq4vm.methods.closed_form import ClosedFormSettings
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.schedule import UNITS, ReconstructionPass, ReconstructionSettings
from ptq4vm.quant.registries import ROUNDINGS

PASSES: Mapping[str, Mapping[str, float]] = {
    "joint": {"joint": 1.0},
    "weights": {"weights": 1.0},
    "weights_then_scales": {"weights": 0.8, "scales": 0.2},
}
"""For each way to learn, its passes and their shares of the steps."""

TAKEN = ("fp32", "rtn", "closed_form", "gac", "ofa")
"""Labels of the other stages."""


@dataclass(frozen=True)
class ReconstructionForm:
    """What tells the reconstructing methods apart; the schedule is the preset's, and the same for all.

    Attributes:
        label: Name of the stage in tables, logs and files.
        unit: What is reconstructed at once: ``layer`` (AdaRound), ``block`` (BRECQ, QDrop, BIQ) or ``network``. Every
            unit gets the preset's steps, so that each weight is updated equally often by all methods, at about the
            same cost: a step of the network costs what a step of each of its blocks costs.
        learn: ``joint`` learns rounding and activation scales together. ``weights`` learns the rounding while
            activations pass unquantized. ``weights_then_scales`` does that in a first pass over all units and learns
            the activation scales in a second one, with the published 20000 to 5000 steps as shares.
        fisher: Weight the error by the diagonal Fisher information of the alpha loss (BRECQ, equation 10).
        damping: Share of the plain squared error in that weighting, in [0, 1]: where alpha is clamped its gradient
            is 0, and the output there would be free.
        drop: Mix in unquantized activations, with the preset's probabilities (QDrop).
        rounding: What learns how weights round: ``adaround``, ``nearest`` (nothing is learned), or what
            :data:`ptq4vm.quant.registries.ROUNDINGS` knows besides.
    """

    label: str = "biq"
    unit: str = "block"
    learn: str = "joint"
    fisher: bool = False
    damping: float = 0.1
    drop: bool = True
    rounding: str = "adaround"

    def __post_init__(self) -> None:
        for key, choices in (("unit", UNITS), ("learn", tuple(PASSES)), ("rounding", ROUNDINGS.names())):
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"method.reconstruction.{key}={getattr(self, key)!r} is unknown: use {', '.join(choices)}"
                )
        if self.fisher and self.unit != "block":
            raise ConfigError("method.reconstruction.fisher=true needs unit=block")
        if not self.label.isidentifier() or self.label in TAKEN:
            raise ConfigError(
                f"method.reconstruction.label={self.label!r}: use a plain word other than {', '.join(TAKEN)}"
            )
        if not 0 <= self.damping <= 1:
            raise ConfigError(f"method.reconstruction.damping={self.damping}: use a share in [0, 1]")

    def passes(self, schedule: ReconstructionSettings) -> tuple[ReconstructionPass, ...]:
        """What each pass over the units learns, with its share of the schedule's steps."""
        if not self.drop:
            schedule = replace(schedule, drop=0.0, input_drop=0.0)
        found = []
        for kind, steps in zip(PASSES[self.learn], _shares(schedule.steps, PASSES[self.learn]), strict=True):
            rounding_lr = 0.0 if kind == "scales" else schedule.rounding_lr
            scale_lr = 0.0 if kind == "weights" else schedule.scale_lr
            settings = replace(schedule, steps=steps, rounding_lr=rounding_lr, scale_lr=scale_lr)
            found.append(ReconstructionPass(settings, self.unit, kind != "weights", self.rounding))
        return tuple(found)


def _shares(steps: int, passes: Mapping[str, float]) -> list[int]:
    """Whole steps of each pass, at least one, adding up to ``steps`` where that is possible."""
    counts = [max(1, round(share * steps)) for share in passes.values()]
    counts[0] = max(1, steps - sum(counts[1:]))
    return counts


def stage_labels(closed_form: bool, reconstruction: str | None, gac: bool, ofa: bool) -> tuple[str, ...]:
    """Labels of the learning stages that switches ask for, in the order in which they run.

    Args:
        closed_form: Whether weights are rounded in closed form.
        reconstruction: Label of the reconstruction; ``None`` where there is none.
        gac: Whether the global stage learns an affine.
        ofa: Whether the global stage has the flow loss; it is called so only without ``gac``.
    """
    whole = ("gac",) if gac else ("ofa",) if ofa else ()
    blocks = () if reconstruction is None else (reconstruction,)
    return (("closed_form",) if closed_form else ()) + blocks + whole


@dataclass(frozen=True)
class Method:
    """A quantization method: its name and its switches.

    Attributes:
        name: What tables and files call the method.
        biq: Whether to run the reconstruction, in the form that :attr:`reconstruction` says.
        gac: Whether to learn a scale and a shift of every layer, and activation scales, over clips (the global stage).
        ofa: Whether the global stage has the optical flow loss too; without ``gac`` it learns activation scales alone.
        reconstruction: Which reconstruction is run: its units, its rounding and its drops.
        closed_form: Whether weights are rounded in closed form, from second moments, before anything is learned.
        free_weights: Whether the global stage moves the weights' codes too, at the schedule's ``weight_lr``.
    """

    name: str = "ptq4vm"
    biq: bool = True
    gac: bool = True
    ofa: bool = True
    reconstruction: ReconstructionForm = field(default_factory=ReconstructionForm)
    closed_form: bool = False
    free_weights: bool = False

    @property
    def learns_globally(self) -> bool:
        """Whether the global stage runs."""
        return self.gac or self.ofa

    @property
    def stages(self) -> tuple[str, ...]:
        """Labels of the learning stages that run."""
        return stage_labels(self.closed_form, self.reconstruction.label if self.biq else None, self.gac, self.ofa)

    def global_settings(self, schedule: GACSettings) -> GACSettings:
        """A schedule of the global stage without what this method does not learn."""
        return replace(
            schedule,
            flow_weight=schedule.flow_weight if self.ofa else 0.0,
            affine_lr=schedule.affine_lr if self.gac else 0.0,
            weight_lr=schedule.weight_lr if self.free_weights else 0.0,
        )


def method_values(method: Method) -> dict[str, Any]:
    """All switches as plain values, as files and fingerprints have them.

    A choice that came after the first files is left out where it is the default: a run of before is no other run.
    """
    values = asdict(method)
    if values["reconstruction"]["rounding"] == ReconstructionForm.rounding:
        del values["reconstruction"]["rounding"]
    for name in ("closed_form", "free_weights"):
        if not values[name]:
            del values[name]
    return values


@dataclass(frozen=True)
class CalibrationSettings:
    """How calibration samples are drawn; see :class:`ptq4vm.data.calibration.datamodule.MattingDataModule`.

    Attributes:
        clips: How many samples are drawn.
        clip_length: Frames of each sample.
        crop: ``(h, w)`` in pixels, or ``None`` for whole frames.
        batch_size: Samples in a step of the global stage.
        hflip: Probability of mirroring a sample.
        zoom: Largest factor by which half of the samples are enlarged; 1 for none.
        longest: Pixels of the longer side of whole frames at most, which are scaled to it; ``None`` leaves them as they
            are.
    """

    clips: int = 64
    clip_length: int = 4
    crop: tuple[int, int] | None = None
    batch_size: int = 4
    hflip: float = 0.5
    zoom: float = 1.0
    longest: int | None = None


@dataclass(frozen=True)
class Preset:
    """A schedule for every stage.

    Raises:
        ConfigError: A learning rate or a weight of a loss is negative or not finite, or a clip ends before the
            global stage's burn-in.
    """

    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    reconstruction: ReconstructionSettings = field(default_factory=ReconstructionSettings)
    gac: GACSettings = field(default_factory=GACSettings)
    closed_form: ClosedFormSettings = field(default_factory=ClosedFormSettings)

    def __post_init__(self) -> None:
        if self.gac.burn_in >= self.calibration.clip_length:
            raise ConfigError(
                f"gac.burn_in={self.gac.burn_in} leaves nothing of clips of calibration.clip_length="
                f"{self.calibration.clip_length}: lower one or raise the other"
            )
        for stage in ("reconstruction", "gac"):
            for key, value in vars(getattr(self, stage)).items():
                if key.endswith(("_lr", "_weight")) and not (math.isfinite(value) and value >= 0):
                    raise ConfigError(f"{stage}.{key}={value}: use 0 or a positive number")


def preset_values(preset: Preset, method: Method) -> dict[str, Any]:
    """A schedule as plain values for fingerprints, without that of a stage that came later and is not run."""
    values = asdict(preset)
    if not method.closed_form:
        del values["closed_form"]
    if not method.free_weights:
        del values["gac"]["weight_lr"]
    return values
