"""The small transformer: its shapes and state, quantizers at both factors of every product, and a whole run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import ptq4vm
from commands import SIZE, Workplace, as_found, draw_videomatte
from networks import quantized_transformer, random_transformer, transformer_partition
from ptq4vm import api, settings
from ptq4vm.engines.registry import open_engine
from ptq4vm.errors import ConfigError, ExportError, WeightsError
from ptq4vm.evaluation.cost import count_macs
from ptq4vm.evaluation.products import count_products
from ptq4vm.exporting.deviations import stepwise
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import DEPARTS, moving_portrait
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Preset
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.vmformer.network import VMFormerMini
from ptq4vm.ops.junction import Operand
from ptq4vm.quant.insert import activation_quantizers
from ptq4vm.quant.layers import QuantActivation
from ptq4vm.quant.partition import layers, resolve
from ptq4vm.quant.quantizers.base import ActivationQuantizer
from ptq4vm.quant.spec import QuantSpec

PRODUCTS = 2 * 3 + 1
"""Two in every attention (one layer, the memory, the queries), and the matte."""
TINY = Preset(
    CalibrationSettings(clips=2, clip_length=2, crop=(64, 64), batch_size=1),
    ReconstructionSettings(steps=1, batch_frames=1),
    GACSettings(epochs=2, burn_in=1, state_weight=0.01, teacher_weight=0.1),
)


@pytest.fixture(scope="module")
def network() -> VMFormerMini:
    """Random weights, one layer; not to be changed by a test."""
    return random_transformer()


@pytest.fixture(scope="module")
def place(network: VMFormerMini, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Clips and a file of weights."""
    root = tmp_path_factory.mktemp("vmformer")
    draw_videomatte(root / "videomatte")
    save_file(network.state_dict(), root / "weights.safetensors")
    return Workplace(root)


def test_family_and_configuration_say_the_same() -> None:
    family = FAMILIES["vmformer"]()
    values = settings.read_choice("model", "vmformer_mini")
    assert values["family"] == "vmformer" and family.model_name({}) == "vmformer_mini"
    assert settings.partition(family.partition({})) == settings.partition(values["partition"])
    assert not family.downloads() and family.wanted({}).sources == ()
    with pytest.raises(ConfigError, match="layers=-1 of vmformer"):
        family.build({"layers": -1})
    assert sum(parameter.numel() for parameter in family.build({}).parameters()) == 1530340


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 129)])
def test_frames_and_clips_of_any_size_carry_their_state(network: VMFormerMini, size: tuple[int, int]) -> None:
    clip = torch.rand(2, 3, 3, *size)
    whole = network.matte(clip)
    assert whole.alpha.shape == (2, 3, 1, *size) and whole.foreground.shape == clip.shape
    assert bool((whole.alpha.clamp(0, 1) == whole.alpha).all())
    rows, columns = (-(-side // network.state_strides[0]) for side in size)
    assert [tuple(state.shape) for state in whole.states if state is not None] == [(2, 128, rows, columns)]
    states: Any = (torch.zeros(2, 128, rows, columns),)
    for number, frame in enumerate(clip.unbind(1)):
        output = network.matte(frame, states)
        states = output.states
        torch.testing.assert_close(output.alpha, whole.alpha[:, number], atol=1e-5, rtol=0)
    forgotten = network.matte(clip[:, 2])
    assert not torch.allclose(forgotten.alpha, whole.alpha[:, 2], atol=1e-5), "the frames before are seen"


def test_a_smaller_picture_is_enlarged(network: VMFormerMini) -> None:
    output = network.matte(torch.rand(1, 2, 3, 64, 96), downsample_ratio=0.5)
    assert output.alpha.shape == (1, 2, 1, 64, 96) and output.states[0].shape == (1, 128, 2, 3)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="must be positive"):
        network(torch.rand(1, 3, 8, 8), downsample_ratio=-1)
    with pytest.raises(ValueError, match="src must be"):
        network(torch.rand(3, 8, 8))


def test_every_layer_is_in_a_block(network: VMFormerMini) -> None:
    partition = resolve(network, transformer_partition())
    found = layers(network, partition)
    assert len(found) == 70 and not partition.float_modules
    assert sum(isinstance(layer, nn.Linear) for layer in found.values()) == 3 * 5 + 1
    operands = [path for path, module in network.named_modules() if isinstance(module, Operand)]
    assert len(operands) == 2 * PRODUCTS and set(partition.edge_layers) - set(operands) == {"backbone.features.0.0"}


class _Products(TorchFunctionMode):
    """Notes how many different values the factors of matrix products have."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[int, int]] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.baddbmm):
            self.values.append((len(args[0].unique()), len(args[1].unique())))
        return func(*args, **(kwargs or {}))


def products(network: nn.Module) -> list[tuple[int, int]]:
    """How many values the factors of every product have in one frame, in order."""
    with torch.no_grad(), _Products() as seen:
        network(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    return seen.values


def rounded(values: list[tuple[int, int]]) -> bool:
    """Whether all factors are of 4 bits, and those of the matte, the last product, of 8."""
    *others, last = values
    return all(max(pair) <= 16 for pair in others) and max(last) <= 256


def chosen(placement: str, stores: str = "layers", bits: str = "w4a4") -> QuantSpec:
    _, spec = ptq4vm.load_method("rtn", bits)
    return replace(spec, placement=placement, stores=stores)


@pytest.mark.parametrize("placement", ["input", "output", "engine", "operations"])
def test_both_factors_of_every_product_are_rounded(network: VMFormerMini, placement: str) -> None:
    engine = placement == "operations"
    spec = chosen("engine" if engine else placement, "operations" if engine else "layers")
    quantized = quantized_transformer(network, spec)
    found = products(quantized)
    assert len(found) == PRODUCTS and rounded(found) and not rounded(products(network))
    places = {path for path, module in network.named_modules() if isinstance(module, Operand)}
    for path in places:
        place = quantized.get_submodule(path)
        assert isinstance(place, QuantActivation) and isinstance(place.output_quantizer, ActivationQuantizer)
        assert place.output_quantizer.bits == (8 if path.startswith("decoder") else 4)
        # with other placements what comes before a factor may have its codes already, but never the softmax; and the
        # results of the queries are only 64 values
        if path.endswith("attention.weight") or (placement == "input" and path != "decoder.decode0.queries"):
            place.output_quantizer.enabled = False
            assert not rounded(products(quantized)), path
            place.output_quantizer.enabled = True


def test_float_activations_stay_float(network: VMFormerMini) -> None:
    spec = chosen("input")
    spec = replace(spec, activation=replace(spec.activation, bits=32))
    assert not activation_quantizers(quantized_transformer(network, spec))


def test_single_factors_get_other_bits(network: VMFormerMini) -> None:
    spec = replace(chosen("input"), activation_bits={"memory.attention.weight": 8})
    quantized = quantized_transformer(network, spec)
    bits = {path: quantizer.bits for path, quantizer in activation_quantizers(quantized).items()}
    assert bits["memory.attention.weight.output_quantizer"] == 8
    assert bits["memory.attention.value.output_quantizer"] == 4


def test_weights_are_trained(place: Workplace, network: VMFormerMini, tmp_path: Path) -> None:
    family = FAMILIES["vmformer"]()
    loaded = family.load({"layers": 1}, place.root / "weights.safetensors")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.state_dict().items())
    with pytest.raises(WeightsError, match="entries differ"):
        family.load({}, place.root / "weights.safetensors")
    with pytest.raises(WeightsError, match="no published weights: train it"):
        family.load({})


def test_quantized_saved_loaded_exported_and_verified(place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = api.build_model("vmformer", {"layers": 1}, weights=place.root / "weights.safetensors")
    data = ptq4vm.load_data("videomatte", root=place.data, pairs_per_clip=1)
    with as_found(place.cache):
        ptq4vm.quantize(model, data, method="ptq4vm", bits="w8a8", preset=TINY, flow="dis", run_dir=tmp_path / "run")
    loaded = ptq4vm.load_checkpoint(tmp_path / "run")
    assert isinstance(loaded, VMFormerMini) and len(products(loaded)) == PRODUCTS
    ptq4vm.export(tmp_path / "run", tmp_path / "a.onnx", target="onnx", size=(64, 96))
    parity = ptq4vm.verify(tmp_path / "run", tmp_path / "a.onnx", frames=4, clips=1)
    assert parity.passed, str(parity)


@pytest.mark.parametrize(
    ("target", "stores", "dynamic"),
    [
        ("openvino", "layers", False),
        ("openvino", "layers", True),
        ("onnx", "operations", False),
        pytest.param("onnx", "layers", False, marks=pytest.mark.slow),
        pytest.param("onnx", "operations", True, marks=pytest.mark.slow),
    ],
)
def test_engines_multiply_what_pytorch_multiplies(
    network: VMFormerMini, target: str, stores: str, dynamic: bool, tmp_path: Path
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    spec = chosen("engine", stores, bits="w8a8")
    granularity = "mixed" if target == "openvino" else "tensor"
    spec = replace(spec, activation=replace(spec.activation, granularity=granularity))
    quantized = quantized_transformer(network, spec)
    file = tmp_path / f"a{TARGETS[target].suffix}"
    TARGETS[target]().write(quantized, file, FrameShape(64, 96, dynamic, 1.0), {"state_strides": "16"})
    engine, frames = open_engine(file, threads=1), moving_portrait((64, 128 if dynamic else 96), 2).frames
    states: Any = ()
    pictures, alphas = [frame.permute(1, 2, 0).contiguous().numpy() for frame in frames], []
    for frame, picture in zip(frames, pictures, strict=True):
        with torch.no_grad():
            output = quantized.matte(frame[None].float() / 255, states)
        states = output.states
        alphas.append(engine.matte(picture).alpha)
        # random weights double differences of codes from layer to layer, and from frame to frame
        assert np.abs(alphas[-1] - output.alpha[0, 0].numpy()).mean() < 8 / 255
    for steps in stepwise(quantized, engine, frames):
        assert len(steps) > 66 and max(step.error for step in steps) < DEPARTS, steps
    for _ in range(2):  # what an engine keeps of a frame but the states would show
        engine.reset()
        for picture, alpha in zip(pictures, alphas, strict=True):
            assert np.array_equal(engine.matte(picture).alpha, alpha)


def test_litert_refuses_norms_by_name(network: VMFormerMini, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    quantized = quantized_transformer(network, chosen("engine", bits="w8a8"))
    with pytest.raises(ExportError, match=r"LayerNormalization \(.*norm.*\) is none of LiteRT's"):
        TARGETS["litert"]().write(quantized, tmp_path / "a.tflite", FrameShape(64, 96, False, 1.0), {})


def test_a_trained_network_is_a_float_checkpoint_and_quantized(
    place: Workplace, rvm_weights: Path, tmp_path: Path
) -> None:
    teacher = ptq4vm.load_model("rvm_mobilenetv3", rvm_weights)
    data = ptq4vm.load_data("videomatte", root=place.data, pairs_per_clip=1)
    schedule = api.load_schedule("transformer")
    stage = replace(schedule.stages["distill"], epochs=1, clips=2, crop=(64, 64), batch_size=2)
    model = api.untrained("vmformer_mini", seed=0)
    with as_found(place.cache):
        result = api.train(
            model,
            data,
            schedule=replace(schedule, stages={"distill": stage}),
            teacher=teacher,
            run_dir=tmp_path / "run",
        )
        assert list(result.stages) == ["fp32", "trained"] and result.steps == {"distill": 1}
        loaded = ptq4vm.load_checkpoint(tmp_path / "run")
        assert isinstance(loaded, VMFormerMini) and not activation_quantizers(loaded)
        macs = [*count_macs(loaded, SIZE).values(), *count_products(loaded, SIZE).values()]
        assert result.cost is not None and result.cost.gmacs == pytest.approx(sum(macs) / 1e9)
        weights = tmp_path / "run" / "state" / "distill.safetensors"
        trained = FAMILIES["vmformer"]().load({}, weights)
        clip = torch.rand(1, 2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(trained.matte(clip).alpha, loaded.matte(clip).alpha, atol=1e-4, rtol=0)
        quick = replace(schedule, stages={"distill": replace(stage, mimic_weight=1e-4)})
        with pytest.raises(ConfigError, match=r"mimic_weight=0\.0001 is for binary.*schedule=transformer"):
            api.train(model, data, schedule=quick, teacher=teacher, run_dir=tmp_path / "other")
    notes = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(notes["stages"]) == {"fp32", "trained"}
