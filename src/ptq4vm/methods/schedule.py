"""Schedule of a reconstruction: rates, steps and losses' weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ptq4vm.errors import ConfigError

UNITS = ("layer", "block", "network")


def check_counts(stage: str, values: object, names: Iterable[str]) -> None:
    """Check that attributes of a stage's settings are at least 1. Raises :class:`ConfigError`, naming the first."""
    for name in names:
        if getattr(values, name) < 1:
            raise ConfigError(f"{stage} {name}={getattr(values, name)}: use at least 1")


@dataclass(frozen=True)
class ReconstructionSettings:
    """Schedule of a block-wise reconstruction.

    Attributes:
        steps: Gradient steps per block.
        batch_frames: Frames in a step at most; recurrent blocks take as many whole clips as that makes.
        batch_positions: Output positions (pixels of the block's output, over all frames) in a step at most: blocks at
            full size then see fewer frames than blocks at 1/16 of it, for the same work. 0 sets no limit.
        rounding_lr: Adam's rate for AdaRound's V; 0 leaves weights rounded to nearest.
        scale_lr: Adam's rate for the logarithm of activation scales (a relative change), annealed by a cosine.
        bias_lr: Adam's rate for biases, annealed by a cosine; 0 leaves them (as published).
        round_weight: Weight of AdaRound's regularizer.
        relative: Divide the block's error by its value in the first step (with weights rounded to nearest, where
            activations pass unquantized: softly rounded weights begin without error), and the regularizer by the number
            of weights. One ``round_weight`` then means the same in a block whose error is 100 and in one where it is
            0.01; with the plain sums of the published form, a short schedule decides the rounding of the last blocks
            by the regularizer alone.
        beta_start: Exponent of the regularizer when it sets in, above ``beta_end``.
        beta_end: Exponent of the regularizer in the last step.
        warmup: Share of steps before the regularizer sets in.
        drop: Probability that an activation inside the block passes unquantized (QDrop).
        input_drop: Probability that an element of the block's input comes from the float network (QDrop).
        chunk_frames: Frames in one suspended forward; bounds the memory of what runs between blocks.
        memory_mib: Block outputs beyond this many MiB go to memory-mapped files.
        monitor: Steps between two measurements of the whole network's error, logged as ``<label>/alpha``: the mean
            absolute difference of its alpha to the float network's on the first calibration clip. 0 measures never.
    """

    steps: int = 20000
    batch_frames: int = 32
    batch_positions: int = 0
    rounding_lr: float = 1e-3
    scale_lr: float = 4e-5
    bias_lr: float = 0.0
    round_weight: float = 0.01
    relative: bool = False
    beta_start: float = 20.0
    beta_end: float = 2.0
    warmup: float = 0.2
    drop: float = 0.5
    input_drop: float = 0.5
    chunk_frames: int = 16
    memory_mib: float = 4096
    monitor: int = 0

    def __post_init__(self) -> None:
        for name in ("drop", "input_drop", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"reconstruction {name}={getattr(self, name)}: use a share in [0, 1]")
        check_counts("reconstruction", self, ("steps", "batch_frames", "chunk_frames"))


@dataclass(frozen=True)
class ReconstructionPass:
    """What one pass over all units learns, and its schedule.

    Attributes:
        settings: The schedule; a rate of 0 says what is not learned.
        unit: One of :data:`UNITS`.
        activations: False lets activations pass unquantized meanwhile.
        rounding: What learns how weights round: a name of :data:`ptq4vm.quant.registries.ROUNDINGS`.
    """

    settings: ReconstructionSettings
    unit: str = "block"
    activations: bool = True
    rounding: str = "adaround"


def beta(step: int, settings: ReconstructionSettings) -> float | None:
    """Exponent of AdaRound's regularizer at a step: linear from start to end, ``None`` during the warm-up."""
    begin = settings.warmup * settings.steps
    if step < begin:
        return None
    progress = (step - begin) / max(1.0, settings.steps - 1 - begin)
    return settings.beta_start + (settings.beta_end - settings.beta_start) * min(1.0, progress)
