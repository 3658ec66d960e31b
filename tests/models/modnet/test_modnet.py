"""MODNet has the shapes and names of the authors' checkpoints, and goes through what RVM goes through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ptq4vm
from commands import Workplace, as_found, draw_videomatte
from networks import randomize
from ptq4vm import api, settings
from ptq4vm.engines.registry import open_engine
from ptq4vm.errors import ConfigError, WeightsError, WeightsUnavailableError
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Preset
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.modnet.network import MODNet
from ptq4vm.quant.partition import layers, resolve

SMALL = {"size": 64}
TINY = Preset(
    CalibrationSettings(clips=1, clip_length=2, crop=(64, 64), batch_size=1),
    ReconstructionSettings(steps=1, batch_frames=1),
    GACSettings(epochs=2, burn_in=1, state_weight=0.01, teacher_weight=0.1),
)


@pytest.fixture(scope="module")
def network() -> MODNet:
    """Random weights, at a small size; not to be changed by a test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = MODNet(**SMALL)
    randomize(found, 0)
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def place(network: MODNet, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Clips, and weights by the names of the authors' checkpoints with what these have besides."""
    root = tmp_path_factory.mktemp("modnet")
    draw_videomatte(root / "videomatte")
    state = {f"module.{key}": value.clone() for key, value in network.state_dict().items()}
    for key in [key for key in state if "se_block.fc" in key]:
        state[key] = state[key][:, :, 0, 0].clone()
    encoder = {key: value for key, value in state.items() if key.startswith("module.backbone.")}
    state |= {key.replace("module.", "module.lr_branch.", 1): value for key, value in encoder.items()}
    state["module.lr_branch.conv_lr.layers.0.bias"] = torch.zeros(1)
    state["module.hr_branch.conv_hr.0.layers.0.bias"] = torch.zeros(32)
    torch.save(state, root / "weights.pth")
    return Workplace(root)


def test_family_and_configuration_say_the_same() -> None:
    family = FAMILIES["modnet"]()
    values = settings.read_choice("model", "modnet")
    assert values["family"] == family.model_name({}) == "modnet" and values["arguments"] == {}
    assert settings.partition(family.partition({})) == settings.partition(values["partition"])
    assert not family.downloads() and family.wanted({}).sources == ()
    with pytest.raises(ConfigError, match="size=100 of modnet: use a multiple of 32 pixels"):
        family.build({"size": 100})


def test_frames_and_clips_of_any_size(network: MODNet) -> None:
    assert network.own_size(288, 512) == (64, 128) and MODNet().own_size(1920, 1080) == (896, 512)
    clip = torch.rand(1, 2, 3, 50, 70)
    output = network.matte(clip)
    assert output.foreground is clip and output.states == () and output.alpha.shape == (1, 2, 1, 50, 70)
    torch.testing.assert_close(network.matte(clip[0], (), 0.25).alpha, output.alpha[0])
    with pytest.raises(ValueError, match="src must be"):
        network(torch.rand(3, 8, 8))


def test_names_are_those_of_the_checkpoints(network: MODNet) -> None:
    state = network.state_dict()
    assert sum(value.numel() for key, value in state.items() if key.endswith(("weight", "bias"))) == 6476609
    for key, shape in {
        "backbone.model.features.0.0.weight": (32, 3, 3, 3),
        "backbone.model.features.17.conv.6.weight": (320, 960, 1, 1),
        "backbone.model.features.18.1.running_var": (1280,),
        "lr_branch.conv_lr16x.layers.0.weight": (96, 1280, 5, 5),
        "lr_branch.conv_lr8x.layers.1.bnorm.weight": (16,),
        "hr_branch.conv_hr4x.0.layers.0.weight": (64, 99, 3, 3),
        "f_branch.conv_f.1.layers.0.bias": (1,),
    }.items():
        assert tuple(state[key].shape) == shape


def test_every_layer_is_in_a_block(network: MODNet) -> None:
    partition = resolve(network, settings.partition(FAMILIES["modnet"]().partition({})))
    assert len(partition.float_modules) == 16 and len(layers(network, partition)) == 71


def test_weights_are_the_user_s(place: Workplace, network: MODNet, tmp_path: Path) -> None:
    family = FAMILIES["modnet"]()
    loaded = family.load(SMALL, place.root / "weights.pth")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.state_dict().items())
    torch.save({"module.image": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not hold MODNet"):
        family.load(SMALL, tmp_path / "other.pth")
    with as_found(tmp_path), pytest.raises(WeightsUnavailableError, match=r"no weights for MODNet: \(1\) your own"):
        family.load(SMALL)


@pytest.mark.parametrize(
    "target", ["openvino", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "litert"))]
)
def test_quantized_saved_loaded_and_exported(target: str, place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "litert": "ai_edge_litert"}.get(target, target))
    model = api.build_model("modnet", SMALL, weights=place.root / "weights.pth")
    data = ptq4vm.load_data("videomatte", root=place.data, pairs_per_clip=1)
    method, spec = ptq4vm.load_method("rtn", "w8a8")
    granularity, stores = ("mixed", "layers") if target == "openvino" else ("tensor", "operations")
    activation = replace(spec.activation, granularity=granularity)
    spec = replace(spec, placement="engine", stores=stores, activation=activation)
    with as_found(place.cache):
        ptq4vm.quantize(model, data, method=method, bits=spec, preset=TINY, run_dir=tmp_path / "run")
    loaded = ptq4vm.load_checkpoint(tmp_path / "run")
    assert isinstance(loaded, MODNet) and loaded.size == 64
    file = tmp_path / f"a{TARGETS[target].suffix}"
    ptq4vm.export(tmp_path / "run", file, target=target, size=(64, 96))
    clip = moving_portrait((64, 96), 1)
    expected = loaded.matte(clip.frames.float() / 255).alpha[0, 0].numpy()
    found = open_engine(file, threads=1).matte(clip.frames[0].permute(1, 2, 0).contiguous().numpy()).alpha
    assert np.abs(found - expected).mean() < 0.02
