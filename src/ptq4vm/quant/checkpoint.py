"""A quantized network on disk: integer codes, scales and biases in safetensors, every choice in YAML, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.io import write_tensors, write_text
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.insert import quantized_layers, swap
from ptq4vm.quant.names import CHOICES, TENSORS
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.quantizers.base import ActivationQuantizer, WeightQuantizer
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.spec import Partition, QuantSpec, spec_from_values, spec_values

FORMAT = 1
MEANT_BEFORE = {"stores": "layers", "overflow": "vnni"}
"""Choices that the first files did not know, and what those files mean."""
_QUANTIZERS = (ActivationQuantizer, WeightQuantizer)


@dataclass(frozen=True)
class CheckpointInfo:
    """What ``quantizer.yaml`` says.

    Attributes:
        model: Architecture of the network: name of the family, and its constructor's arguments.
        spec: Choices that it was quantized with: bits, placement, observers.
        partition: How the network is cut up, with every pattern expanded to module paths.
        extra: Notes for people and other tools (method, seed, hashes, version).
    """

    model: Mapping[str, Any]
    spec: QuantSpec
    partition: Partition
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What pictures and tables call the network: ``W4A4``, or what it was saved as where its bits are its own."""
        return str(self.extra.get("label") or self.spec.label)


def quantized_state(network: nn.Module) -> dict[str, Tensor]:
    """State of a quantized network without the float weights that integer codes replace."""
    state = dict(network.state_dict())
    for path, layer in quantized_layers(network).items():
        if layer.weight_quantizer is not None and layer.weight_quantizer.decided:
            del state[f"{path}.weight"]
    return state


def load_quantized_state(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load :func:`quantized_state` into a network with the same quantizers, strictly; float weights stay as they are.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape (named, with ``name``).
    """
    own = quantized_state(network)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has the unknown tensor {unknown[0]!r}"
        raise CheckpointError(f"{name} {what}: it belongs to another network or bit-width")
    _check_values(network, state, name)
    for key, value in own.items():
        if value.shape != state[key].shape:
            # a per-channel weight scale may meet a per-tensor one: the affine was absorbed per channel
            if key.endswith("weight_quantizer.scale") and value.numel() == 1:
                network.get_submodule(key.rpartition(".")[0]).scale = state[key].clone()
                continue
            raise CheckpointError(f"{name}: {key!r} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}")
        value.copy_(state[key])


def _check_values(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Refuse what no quantization gives: no numbers, steps that are not positive, codes beyond their bits.

    Factors of binary convolutions are no steps: the norm that was folded into them may have turned their sign.
    """
    for key, value in state.items():
        path, _, last = key.rpartition(".")
        is_step = last in ("scale", "factor") and isinstance(network.get_submodule(path), _QUANTIZERS)
        wrong = ""
        if value.is_floating_point() and not bool(value.isfinite().all()):
            wrong = "a value that is not finite"
        elif is_step and not bool((value > 0).all()):
            wrong = "a step that is not positive"
        elif last == "fixed":
            owner = network.get_submodule(path)
            assert isinstance(owner, FixedCodes)
            if value.dtype != torch.int8:
                wrong = f"codes of type {value.dtype}"
            elif int(value.min()) < owner.quant_min or int(value.max()) > owner.quant_max:
                wrong = f"a code beyond [{owner.quant_min}, {owner.quant_max}]"
        if wrong:
            raise CheckpointError(f"{name}: {key!r} has {wrong}: quantize again")


def save_quantized(folder: Path | str, network: nn.Module, info: CheckpointInfo) -> None:
    """Write ``model.safetensors`` and ``quantizer.yaml``, each whole or not at all.

    Raises:
        SaveError: A file cannot be written.
        ConfigError: The network still has an affine or an undecided rounding: call ``absorb`` first.
    """
    for path, layer in quantized_layers(network).items():
        undecided = layer.weight_quantizer is not None and not layer.weight_quantizer.decided
        if layer.affine is not None or undecided:
            raise ConfigError(f"layer {path!r} is not absorbed: call ptq4vm.quant.fold.absorb before saving")
    choices = {"format": FORMAT, **_structure(info), **_plain(info.extra)}
    metadata = {"format": "ptq4vm", "version": str(FORMAT), "choices": _digest(info)}
    write_tensors(Path(folder) / TENSORS, quantized_state(network), metadata)
    write_text(Path(folder) / CHOICES, yaml.safe_dump(choices, sort_keys=False))


def has_quantized(folder: Path | str) -> bool:
    """Whether both files of a quantized network are there."""
    return all((Path(folder) / name).is_file() for name in (TENSORS, CHOICES))


def _structure(info: CheckpointInfo) -> dict[str, Any]:
    """What the tensors mean, as plain values; a choice that the first files did not know is left out where it is
    what they meant."""
    spec = _plain(spec_values(info.spec))
    for key, value in MEANT_BEFORE.items():
        if spec[key] == value:
            del spec[key]
    if not spec["weight"]["reduce_range"]:
        del spec["weight"]["reduce_range"]
    return {
        "model": _plain(info.model),
        "spec": spec,
        "partition": _plain(asdict(info.partition)),
    }


def _digest(info: CheckpointInfo) -> str:
    """SHA-256 of :func:`_structure`: kept beside the tensors, it tells when the YAML file was edited or exchanged."""
    return hashlib.sha256(json.dumps(_structure(info), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def read_info(folder: Path | str) -> CheckpointInfo:
    """Read ``quantizer.yaml`` of a run folder.

    Raises:
        CheckpointError: The file is missing, damaged, or of a later format.
    """
    path = Path(folder) / CHOICES
    try:
        choices = yaml.safe_load(path.read_text(encoding="utf-8"))
        _check_extent(choices)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: give a folder that `ptq4vm quantize` wrote, or fp32") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}): quantize again") from error
    try:
        if choices["format"] > FORMAT:
            raise CheckpointError(f"{path} has format {choices['format']}, newer than this version: update ptq4vm")
        spec = spec_from_values({**MEANT_BEFORE, **choices["spec"]})
        parts = dict(choices["partition"])
        branches = {k: tuple(v) for k, v in parts.pop("branches").items()}
        partition = Partition(**{k: tuple(v) for k, v in parts.items()}, branches=branches)
        extra = {k: v for k, v in choices.items() if k not in ("format", "model", "spec", "partition")}
        model = {"family": str(choices["model"]["family"]), "arguments": dict(choices["model"]["arguments"])}
        return CheckpointInfo(model, spec, partition, extra)
    except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path} is not complete or was changed ({error}): quantize again") from error


def _check_extent(value: Any, most: int = 200_000) -> None:
    """Refuse a file that says little and means much (aliases of aliases). Raises :class:`yaml.YAMLError`."""
    left, waiting = most, [value]
    while waiting:
        node = waiting.pop()
        children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        left -= len(children)
        if left < 0:
            raise yaml.YAMLError("too many values")
        waiting += children


def quantized_skeleton(folded: nn.Module, partition: Partition, spec: QuantSpec) -> nn.Module:
    """A quantized copy of a folded float network with arbitrary ranges, for :func:`load_quantized_state`."""
    spec = replace(spec, weight=replace(spec.weight, observer="minmax"))  # the quickest
    plan = make_plan(folded, partition, spec)
    return swap(folded, plan, {path: [(-1.0, 1.0)] * max(1, len(site.sizes)) for path, site in plan.sites.items()})


def load_quantized(folder: Path | str, network: nn.Module, info: CheckpointInfo) -> nn.Module:
    """Rebuild the quantized network.

    Args:
        folder: Run folder with ``model.safetensors``.
        network: The float architecture, unfolded, any weights, in eval mode; it is folded in place.
        info: From :func:`read_info`.

    Returns:
        The quantized network in eval mode.

    Raises:
        CheckpointError: The tensors are missing, damaged, do not fit, or were saved with other choices than ``info``.
    """
    path = Path(folder) / TENSORS
    state = read_tensors(path)
    if read_metadata(path).get("choices") != _digest(info):
        raise CheckpointError(
            f"{Path(folder) / CHOICES} does not belong to {path.name} (bits or other choices differ): quantize again"
        )
    fold_batch_norm(network, info.partition.float_modules)
    quantized = quantized_skeleton(network, info.partition, info.spec)
    load_quantized_state(quantized, state, str(path))
    for layer in quantized_layers(quantized).values():
        if layer.weight_quantizer is not None and layer.weight_quantizer.decided:
            layer.weight.data.copy_(layer.weight_quantizer(layer.weight))
    return quantized.requires_grad_(False).eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises :class:`CheckpointError` when it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give a folder that `ptq4vm quantize` wrote, or fp32")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): quantize again") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file. Raises :class:`CheckpointError` when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): quantize again") from error


def stored_bytes(network: nn.Module) -> float:
    """Bytes that a packed file needs: codes at their bit-width, scales and biases at 32 bits."""
    total = 0.0
    for key, tensor in quantized_state(network).items():
        owner = network.get_submodule(key.rpartition(".")[0])
        bits = owner.bits if isinstance(owner, FixedCodes) and key.endswith(".fixed") else tensor.element_size() * 8
        total += tensor.numel() * bits / 8
    return total
