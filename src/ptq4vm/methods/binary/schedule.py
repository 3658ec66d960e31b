"""Schedules of binarization-aware training: which stages there are, and what each of them learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ptq4vm.errors import ConfigError
from ptq4vm.methods.binary.norms import FOLLOW, MEASURE, MODES

LABELS = ("truth", "teacher")


@dataclass(frozen=True)
class MattingStage:
    """One stage of matting: what is drawn, at which rates, against which targets.

    Attributes:
        epochs: Passes over the samples.
        clips: Samples that are drawn.
        clip_length: Frames of each sample.
        crop: ``(h, w)`` of each sample, pixels; whole frames when ``None``.
        size: ``(h, w)`` that samples are scaled to, pixels; ``None`` leaves them as they are. Whole frames are cut to
            its shape before.
        batch_size: Samples in a batch.
        hflip: Probability that a sample is mirrored.
        zoom: Largest enlargement of half of the samples.
        downsample_ratio: Size at which the network itself runs; below 1 the refiner learns too.
        encoder_lr: Adam's rate for the encoder.
        lr: Adam's rate for the LR-ASPP, the decoder and the projections.
        refiner_lr: Adam's rate for the refiner.
        cosine: Whether the rates fall to 0 along half a cosine; otherwise they stay.
        labels: ``truth``, or ``teacher``: the float network's alpha, for pictures without one. The foreground's target
            is the float network's in both cases.
        segmentation_weight: Weight of the cross-entropy of the segmentation in every second step, which then is
            nothing else; 0 leaves these steps out.
        mimic_weight: Weight of LBM, the mimicking of the float network's features; 0 leaves it out.
        elastic_weight: Weight of the elastic regularization of shortcuts; 0 leaves it out.
        norms: ``follow``: statistics of batch norms are running means; ``measure``: nothing is learned in this stage,
            they are measured anew over its samples.
    """

    epochs: int = 1
    clips: int = 64
    clip_length: int = 4
    crop: tuple[int, int] | None = (256, 256)
    size: tuple[int, int] | None = None
    batch_size: int = 4
    hflip: float = 0.5
    zoom: float = 1.0
    downsample_ratio: float = 1.0
    encoder_lr: float = 1e-4
    lr: float = 2e-4
    refiner_lr: float = 2e-4
    cosine: bool = False
    labels: str = "truth"
    segmentation_weight: float = 0.0
    mimic_weight: float = 0.0
    elastic_weight: float = 0.0
    norms: str = FOLLOW

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ConfigError(f"labels={self.labels!r} is unknown: use one of {', '.join(LABELS)}")
        if self.norms not in MODES:
            raise ConfigError(f"norms={self.norms!r} is unknown: use one of {', '.join(MODES)}")
        if self.epochs < 0:
            raise ConfigError(f"epochs={self.epochs}: use 0 or more")
        if not 0 < self.downsample_ratio <= 1:
            raise ConfigError(f"downsample_ratio={self.downsample_ratio:g}: use more than 0, at most 1")

    @property
    def needs_teacher(self) -> bool:
        """Whether the float network gives targets or features."""
        return self.norms != MEASURE and (self.labels == "teacher" or self.mimic_weight > 0)


@dataclass(frozen=True)
class PretrainingStage:
    """Image classification before matting, with the encoder and a linear layer behind it.

    Attributes:
        root: Folder of pictures, one folder a class; ``None`` leaves the stage out.
        epochs: Passes over the pictures.
        size: Height and width of what the encoder sees, pixels.
        batch_size: Pictures in a batch.
        lr: Adam's rate, which falls to 0 linearly.
    """

    root: str | None = None
    epochs: int = 256
    size: int = 224
    batch_size: int = 256
    lr: float = 5e-4


@dataclass(frozen=True)
class Schedule:
    """A whole training.

    Attributes:
        stages: Stages of matting by name, in order.
        pretraining: Classification before them.
        initialise: Whether the float network's parameters are where training begins, in every place where the two
            networks have one of the same name and shape.
    """

    stages: Mapping[str, MattingStage]
    pretraining: PretrainingStage = field(default_factory=PretrainingStage)
    initialise: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("schedule.stages is empty: give a stage, as schedule=quick does")
