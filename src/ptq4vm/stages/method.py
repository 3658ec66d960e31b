"""Which stages a method runs, and a preset's schedule for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ptq4vm.errors import ConfigError
from ptq4vm.stages.gac import GACSettings
from ptq4vm.stages.reconstruction import ReconstructionSettings


@dataclass(frozen=True)
class Method:
    """A quantization method: its name and its switches.

    Attributes:
        name: For tables and files.
        biq: Run the block-wise reconstruction.
        gac: Run the global affine calibration.
        ofa: Add the optical flow loss to it (needs ``gac``).
    """

    name: str = "ptq4vm"
    biq: bool = True
    gac: bool = True
    ofa: bool = True

    def __post_init__(self) -> None:
        if self.ofa and not self.gac:
            raise ConfigError("method.ofa=true needs method.gac=true: the flow loss is part of the global stage")


@dataclass(frozen=True)
class CalibrationSettings:
    """How calibration samples are drawn; see :class:`ptq4vm.data.datamodule.MattingDataModule`.

    Attributes:
        clips: Samples.
        clip_length: Frames of each.
        crop: ``(h, w)`` in pixels, or ``None`` for whole frames.
        batch_size: Samples in a step of the global stage.
        hflip: Probability of mirroring a sample.
        zoom: Largest factor by which half of the samples are enlarged; 1 for none.
    """

    clips: int = 64
    clip_length: int = 4
    crop: tuple[int, int] | None = None
    batch_size: int = 4
    hflip: float = 0.5
    zoom: float = 1.0


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
