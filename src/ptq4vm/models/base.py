"""The interface that every matting network offers to the rest of the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.types import MattingOutput, States

Replacements = Mapping[type[nn.Module], Callable[[Any], nn.Module]]
"""Kinds of modules, and what makes of one of them the module to take its place."""


class MattingNetwork(nn.Module, ABC):
    """A network that predicts foreground and alpha, carrying any number of recurrent states through time.

    Subclasses write :meth:`forward` and set :attr:`num_states`; callers that do not care which network they hold
    use :meth:`matte`.
    """

    num_states: int = 0
    """How many recurrent states the network takes and returns; 0 for a network that sees each frame alone."""

    @property
    def state_strides(self) -> tuple[int, ...]:
        """How many times smaller than the network's picture each state is, rows and columns rounded up.

        1/2, 1/4, 1/8, ... by default. An engine that runs an exported file of any frame size makes the first states so.
        """
        return tuple(2 ** (number + 1) for number in range(self.num_states))

    @property
    def size_step(self) -> int:
        """What rows and columns must be multiples of so that no size is rounded on the way down and up again.

        Pictures of all such sizes run through one exported graph, which engines re-shape to a frame's aspect. 0, which
        is the default, says that the graph holds sizes, or that the network does not see every picture as it is.
        """
        return 0

    @abstractmethod
    def forward(self, src: Tensor, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Return ``[foreground, alpha, *states]``.

        Takes ``src``, then :attr:`num_states` states (each may be ``None`` or left out), and the keyword
        ``downsample_ratio: float = 1.0``.
        """

    def matte(self, src: Tensor, states: States = (), downsample_ratio: float = 1.0) -> MattingOutput:
        """Predict foreground and alpha.

        Args:
            src: ``(B, T, 3, H, W)`` clips or ``(B, 3, H, W)`` frames, float RGB in [0, 1].
            states: What an earlier call returned, to go on from there; empty before the first frame.
            downsample_ratio: Size at which the network itself runs, as a fraction of the input's, in (0, 1].

        Raises:
            ValueError: ``src`` has another shape, or the number of states is wrong.
        """
        if states and len(states) != self.num_states:
            raise ValueError(f"{type(self).__name__} carries {self.num_states} states, got {len(states)}")
        foreground, alpha, *after = self(src, *states, downsample_ratio=downsample_ratio)
        return MattingOutput(foreground, alpha, tuple(after))

    def export_replacements(self, target: str) -> Replacements:
        """Say which modules get another form where the network is exported, and which; none by default.

        A replacement takes the same inputs and gives the same outputs, up to the rounding of floats. It may keep the
        children of what it replaces under their names: those that are quantized are replaced afterwards.

        Args:
            target: Name of the export target, such as ``onnx`` or ``openvino``. One that the network does not know gets
                what suits any engine.

        Returns:
            By class; a module is given to the first entry that it is an instance of, subclasses included.
        """
        return {}


class TrainableMatting(MattingNetwork):
    """A network that ``ptq4vm train`` learns the weights of: by distillation from a float one, or on true alphas."""

    weight_bits: int = 32
    """Bits of a trained weight: 1 in binary networks."""

    def advance(self, progress: float) -> None:
        """Be told before every epoch how far training is, from 0 to 1; nothing by default."""
        return None

    def decide(self) -> None:
        """Bring the trained network into the form that is stored and run, in place; by default to eval mode."""
        self.eval().requires_grad_(False)

    def decided_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What builds the stored form, where ``arguments`` built this network; the same by default."""
        return dict(arguments)


class FrameMatting(MattingNetwork):
    """A network that sees every frame alone, at a size of its own, and gives alpha only.

    The foreground is the frame itself. Subclasses write :meth:`own_size` and :meth:`alpha`.
    """

    @abstractmethod
    def own_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the picture at which a frame of ``height`` and ``width`` pixels is seen."""

    @abstractmethod
    def alpha(self, image: Tensor) -> Tensor:
        """Alpha ``(N, 1, h, w)`` in [0, 1] of pictures ``(N, 3, h, w)`` of :meth:`own_size`, RGB in [0, 1]."""

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        """Matte frames or clips.

        Args:
            src: ``(B, 3, H, W)`` or ``(B, T, 3, H, W)``, float RGB in [0, 1].
            downsample_ratio: Without effect: the network runs at its own size whatever the frame's is.

        Returns:
            ``[foreground, alpha]``: ``src`` itself, and alpha ``(B, [T, ]1, H, W)`` in [0, 1].

        Raises:
            ValueError: ``src`` is neither frames nor clips of three channels.
        """
        check_frames(src)
        frames = src.flatten(0, 1) if src.ndim == 5 else src
        size = (frames.shape[-2], frames.shape[-1])
        image = F.interpolate(frames, self.own_size(*size), mode="bilinear", align_corners=False)
        alpha = F.interpolate(self.alpha(image), size, mode="bilinear", align_corners=False)
        return [src, alpha.unflatten(0, src.shape[:2]) if src.ndim == 5 else alpha]


def check_frames(src: Tensor) -> None:
    """Refuse what is neither frames nor clips of three channels. Raises :class:`ValueError`."""
    if src.ndim not in (4, 5) or src.shape[-3] != 3:
        raise ValueError(f"src must be (B, 3, H, W) or (B, T, 3, H, W), got {tuple(src.shape)}")
