"""Families of networks: what the rest of the package asks of a kind of network, without knowing which it is.

A family is a folder of this package (or of another one) whose import registers a :class:`NetworkFamily` by the name
that ``conf/model/*.yaml`` and ``quantizer.yaml`` give as ``family``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ptq4vm.errors import WeightsError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.weights.cache import Wanted, find
from ptq4vm.models.weights.files import check_entries, read_state
from ptq4vm.system.registry import Registry

Arguments = Mapping[str, Any]
"""What tells the networks of a family apart, as plain values: ``{"variant": "mobilenetv3"}``."""


class NetworkFamily(ABC):
    """What belongs to one kind of network besides its layers.

    How its special modules are exported, the network itself says
    (:meth:`~ptq4vm.models.base.MattingNetwork.export_replacements`), and how many states it has. A family holds no
    values: it is made without arguments wherever it is asked something.
    """

    @property
    @abstractmethod
    def licence(self) -> str:
        """Whose the weights are and what binds whoever passes them on: a clause for the metadata of exported files."""

    @abstractmethod
    def build(self, arguments: Arguments) -> MattingNetwork:
        """Build a network with random weights, in eval mode, on the CPU.

        Args:
            arguments: What the user chose; from :meth:`complete` where a checkpoint brings the weights.

        Raises:
            ConfigError: A value is unknown.
            TypeError: An argument is unknown, or one is missing.
        """

    @abstractmethod
    def wanted(self, arguments: Arguments) -> Wanted:
        """Say what the pretrained weights of a network are called, where they are fetched and how they are checked.

        Raises:
            ConfigError: As :meth:`build`.
        """

    @abstractmethod
    def model_name(self, arguments: Arguments) -> str:
        """What a network is called in the metadata of exported files: ``rvm_mobilenetv3``."""

    @abstractmethod
    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """How a network is cut up where no configuration says it: a ``partition`` of ``conf/model`` as plain values.

        Its keys are the attributes of :class:`ptq4vm.quant.spec.Partition`.
        """

    def load(self, arguments: Arguments, weights: str | Path | None = None) -> MattingNetwork:
        """Build a network with pretrained weights, in eval mode, on the CPU.

        Args:
            arguments: What the user chose.
            weights: A file to load, ``.pth`` or ``.safetensors``; by default :func:`find` looks for :meth:`wanted`.

        Raises:
            ConfigError: As :meth:`build`.
            TypeError: As :meth:`build`.
            WeightsError: The weights cannot be found, or are not this network's.
        """
        network = self.build(arguments)
        network.load_state_dict(read_state(find(self.wanted(arguments), weights)))
        return network

    def complete(self, arguments: Arguments, network: MattingNetwork) -> dict[str, Any]:
        """Arguments for ``quantizer.yaml``, from which :meth:`build` makes the architecture of a loaded network again.

        Args:
            arguments: What the network was loaded with.
            network: From :meth:`load`; tells what the arguments left to the weights.
        """
        return dict(arguments)

    def downloads(self) -> Mapping[str, Arguments]:
        """Arguments of the networks whose weights ``ptq4vm weights NAME`` finds, by names that no other family has."""
        return {}


class TrainedFamily(NetworkFamily):
    """A family whose weights are nowhere to be fetched: ``ptq4vm train`` makes them."""

    schedule = ""
    """What the command that trains one wants besides ``model=``, with a space before it."""
    then = "checkpoint=RUN"
    """How a network is used that was trained in the folder ``RUN``."""

    @property
    def licence(self) -> str:
        """See :attr:`NetworkFamily.licence`."""
        return "weights trained by whoever made this file; where they were distilled from RVM, its GPL-3.0 may apply"

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`: nowhere; they are trained."""
        name = self.model_name(arguments)
        with torch.device("meta"):
            network = self.build(arguments)
        check = partial(check_entries, network=network, title=name)
        return Wanted(f"{name} (train it: ptq4vm train)", f"{name}.safetensors", name, (), check)

    def load(self, arguments: Arguments, weights: str | Path | None = None) -> MattingNetwork:
        """See :meth:`NetworkFamily.load`.

        Raises:
            WeightsError: No file is given, since none can be fetched, or it is not this network's.
        """
        if weights is None:
            name = self.model_name(arguments)
            raise WeightsError(
                f"{name} has no published weights: train it (ptq4vm train model={name}{self.schedule}), "
                f"then {self.then}"
            )
        return super().load(arguments, weights)


FAMILIES: Registry[type[NetworkFamily]] = Registry("model.family", "ptq4vm.models", "ptq4vm.model_families")
"""Families by name; ``@FAMILIES.register("rvm")`` adds one, as does an entry point of ``ptq4vm.model_families``."""
