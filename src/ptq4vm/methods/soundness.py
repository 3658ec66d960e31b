"""What training has learned must be numbers that go on: looked at before anything of it is kept."""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.errors import TrainingError
from ptq4vm.quant.layers import Affine


def check_learned(module: nn.Module, stage: str, path: str = "") -> None:
    """Refuse a network, or a part of it, that training has led out of the finite numbers.

    Args:
        module: What was learned; its parameters and buffers are looked at.
        stage: The stage that learned it, for the message.
        path: Where ``module`` is in its network, for the message; empty for the whole network.

    Raises:
        TrainingError: A value is not finite, or a scale that is absorbed later has no positive finite value.
    """
    for key, value in module.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise _left(stage, path, key)
    for name, part in module.named_modules():
        if isinstance(part, Affine) and not _positive(part.scale):
            raise _left(stage, path, f"{name}.scale")


def _positive(scale: Tensor) -> bool:
    return bool((scale.isfinite() & (scale > 0)).all())


def _left(stage: str, path: str, key: str) -> TrainingError:
    name = ".".join(part for part in (path, key) if part)
    return TrainingError(f"{stage} led {name!r} out of the finite numbers; lower its learning rates")
