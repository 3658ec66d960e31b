"""Values that no training and no quantization gives are refused by the name of their tensor."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from networks import TINY_PARTITION, disc_clips, quantize, tiny_folded
from ptq4vm.errors import CheckpointError, ConfigError, WeightsError
from ptq4vm.models.weights.files import read_state
from ptq4vm.quant.checkpoint import CheckpointInfo, load_quantized_state, quantized_state, read_info, save_quantized
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

SPEC = QuantSpec(WeightSpec(4), ActivationSpec(8, observer="minmax"))


def set_first(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


WEIGHTS = {
    "nan": (set_first(float("nan")), "a value that is not finite"),
    "inf": (set_first(float("inf")), "a value that is not finite"),
    "integers": (lambda tensor: tensor.to(torch.int32), r"of type torch\.int32"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_float_weights(tmp_path: Path, name: str, suffix: str) -> None:
    change, line = WEIGHTS[name]
    state = {"conv.weight": torch.ones(3, 3), "bn.num_batches_tracked": torch.tensor(4)}
    path = tmp_path / f"w{suffix}"
    for values, fails in ((state, False), ({**state, "conv.weight": change(state["conv.weight"])}, True)):
        save_file(values, path) if suffix == ".safetensors" else torch.save(values, path)
        if not fails:
            assert read_state(path).keys() == state.keys()
            continue
        with pytest.raises(WeightsError, match=rf"w{re.escape(suffix)}: 'conv\.weight' (has|is) {line}"):
            read_state(path)


CHECKPOINTS = {
    "step 0": ("body.0.weight_quantizer.scale", set_first(0.0), "a step that is not positive"),
    "step below 0": ("body.0.weight_quantizer.scale", set_first(-1.0), "a step that is not positive"),
    "step nan": ("body.0.weight_quantizer.scale", set_first(float("nan")), "a value that is not finite"),
    "bias inf": ("body.0.bias", set_first(float("inf")), "a value that is not finite"),
    "code": ("body.0.weight_quantizer.fixed", set_first(8), r"a code beyond \[-8, 7\]"),
    "float codes": ("body.0.weight_quantizer.fixed", lambda tensor: tensor.float(), r"codes of type torch\.float32"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(name: str) -> None:
    key, change, line = CHECKPOINTS[name]
    network = quantize(tiny_folded(), TINY_PARTITION, SPEC, disc_clips(2).frames)
    state = {key: value.clone() for key, value in quantized_state(network).items()}
    load_quantized_state(network, state, "a")
    with pytest.raises(CheckpointError, match=rf"a: '{re.escape(key)}' has {line}"):
        load_quantized_state(network, {**state, key: change(state[key])}, "a")


def bomb(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for n in range(1, depth):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(12), "a: " + "[" * 5000 + "]" * 5000], ids=("aliases", "depth"))
def test_files_that_mean_more_than_they_say(tmp_path: Path, text: str) -> None:
    (tmp_path / "quantizer.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"quantizer\.yaml cannot be read") as caught:
        read_info(tmp_path)
    assert "\n" not in str(caught.value)


def test_bits_are_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weight bits=4\.5"):
        WeightSpec(4.5)  # type: ignore[arg-type]
    teacher = tiny_folded()
    network = quantize(teacher, TINY_PARTITION, SPEC, disc_clips(2).frames)
    model = {"family": "tiny", "arguments": {}}
    save_quantized(tmp_path, network, CheckpointInfo(model, SPEC, resolve(teacher, TINY_PARTITION), {}))
    choices = yaml.safe_load((tmp_path / "quantizer.yaml").read_text(encoding="utf-8"))
    choices["spec"]["weight"]["bits"] = 4.5
    (tmp_path / "quantizer.yaml").write_text(yaml.safe_dump(choices), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"weight bits=4\.5"):
        read_info(tmp_path)
