"""Binary video matting networks: BiVM, BiMatting, and RVM with its convolutions made binary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import Replacements, TrainableMatting
from ptq4vm.models.bivm.decoder import SparseDecoder, exchange_units
from ptq4vm.models.bivm.encoder import ElasticBinaryEncoder
from ptq4vm.models.bivm.exact import ExactConv2d
from ptq4vm.models.bivm.export import bits_replacements
from ptq4vm.models.bivm.layers import FLOAT, Convolutions, decide
from ptq4vm.models.rvm.decoder import RecurrentDecoder
from ptq4vm.models.rvm.export import replacements
from ptq4vm.models.rvm.lraspp import LRASPP
from ptq4vm.models.rvm.mobilenetv3 import MobileNetV3Encoder
from ptq4vm.models.rvm.network import RecurrentMatting

ENCODERS = ("ebb", "sbb", "mobilenetv3")
DECODERS = ("shb", "dense")

_KEPT = ("features.0.0", "decode0.conv.3")  # first and last convolutions stay in float
_POOLED, _WIDTHS = 128, (80, 40, 32, 16)


class BiVM(RecurrentMatting, TrainableMatting):
    """RVM's recurrent matting with a binary encoder and decoder; see :class:`RecurrentMatting`.

    Args:
        encoder: ``ebb`` (BiVM's), ``sbb`` (the same without elastic shortcuts: BiMatting's) or ``mobilenetv3`` (RVM's,
            its convolutions binary).
        decoder: ``shb`` (sparse) or ``dense`` (RVM's, its convolutions binary).
        binarizer: How weights and activations become binary, a name of
            :data:`ptq4vm.models.bivm.binarizers.base.BINARIZERS`; ``none`` for the full-precision twin.
        refiner: As :class:`RecurrentMatting` takes it; it stays in float.
        decided: Whether the weights are signs already: those of a finished training.

    Raises:
        ConfigError: A name is unknown.
    """

    def __init__(
        self,
        encoder: str = "ebb",
        decoder: str = "shb",
        binarizer: str = "reactnet",
        refiner: str = "deep_guided_filter",
        decided: bool = False,
    ) -> None:
        make = Convolutions(binarizer)
        backbone = _encoder(encoder, make)
        aspp = make.exchange(LRASPP(backbone.channels[3], _POOLED))
        super().__init__(backbone, aspp, _decoder(decoder, make, backbone.channels[:3]), refiner)
        self.binarizer = make.binarizer
        if decided:
            self.decide()

    @property
    def weight_bits(self) -> int:  # type: ignore[override]
        """See :attr:`TrainableMatting.weight_bits`."""
        return super().weight_bits if self.binarizer is None else 1

    def advance(self, progress: float) -> None:
        """See :meth:`TrainableMatting.advance`: the binarizer is told."""
        if self.binarizer is not None:
            self.binarizer.advance(progress)

    def decided_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`TrainableMatting.decided_arguments`."""
        return {**arguments, "decided": True}

    def export_replacements(self, target: str) -> Replacements:
        """See :meth:`MattingNetwork.export_replacements`: for ``bits``, what its engine computes as one operation."""
        if target == "bits":
            return bits_replacements()
        return {ExactConv2d: ExactConv2d.in_float, **replacements(target)}

    def decide(self) -> None:
        """Bring the network into the form that is stored and run, in place; see :func:`decide`.

        What comes after its last sign, and the refiner, stay as they are; so does all of a float twin.
        """
        self.eval().requires_grad_(False)
        if self.binarizer is None:
            return
        exchange_units(self.decoder)
        decide(self.backbone)
        decide(self.aspp)
        decide(self.decoder, exact=False)
        self.requires_grad_(False)


def _encoder(name: str, make: Convolutions) -> Any:
    if name == "mobilenetv3":
        return make.exchange(MobileNetV3Encoder(), _KEPT)
    if name in ENCODERS:
        return ElasticBinaryEncoder(make, elastic=name == "ebb")
    raise ConfigError(f"unknown encoder {name!r}: choose one of {', '.join(ENCODERS)}")


def _decoder(name: str, make: Convolutions, features: tuple[int, int, int]) -> nn.Module:
    joined = (*features, _POOLED)
    if name == "dense":
        return make.exchange(RecurrentDecoder(joined, _WIDTHS), _KEPT)
    if name in DECODERS:
        return SparseDecoder(make, joined, _WIDTHS, Convolutions(FLOAT))
    raise ConfigError(f"unknown decoder {name!r}: choose one of {', '.join(DECODERS)}")
