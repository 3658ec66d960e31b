"""A quantizer, an observer, a rounding and a placement from outside the package, through a whole quantization."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import ptq4vm.quant.checkpoint as checkpoint
from networks import TINY_PARTITION, disc_clips, quantize, tiny_folded, tiny_matting
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.form import ExportActivation
from ptq4vm.methods.gac import GACSettings, GlobalAffineCalibration
from ptq4vm.methods.method import Method, ReconstructionForm, method_values
from ptq4vm.methods.reconstruction import BlockReconstruction
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import CheckpointInfo, load_quantized, read_info, save_quantized
from ptq4vm.quant.fold import absorb
from ptq4vm.quant.insert import activation_quantizers, quantized_layers
from ptq4vm.quant.layers import QuantLayer
from ptq4vm.quant.observers.base import Observer
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.input import at_inputs
from ptq4vm.quant.placement.plan import Bits, Plan
from ptq4vm.quant.quantizers.base import ActivationQuantizer, SiteRanges, WeightQuantizer
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.registries import OBSERVERS, PLACEMENTS, QUANTIZERS, ROUNDINGS
from ptq4vm.quant.spec import ActivationSpec, Partition, QuantSpec, WeightSpec


@QUANTIZERS.register("toy_log")
class LogQuantizer(ActivationQuantizer):
    """Signs and powers of two below a learned maximum, with one code for 0."""

    def __init__(self, bits: int, reach: float, learns: bool = True) -> None:
        super().__init__(bits, (), learns)
        self.log_reach = nn.Parameter(torch.tensor([reach]).log(), requires_grad=learns)

    @classmethod
    def from_ranges(cls, spec: ActivationSpec, seen: SiteRanges) -> LogQuantizer:
        reach = max(max(-low, high) for low, high in seen.ranges)
        return cls(spec.bits, max(reach, 1e-6), seen.learns)

    def fake_quantize(self, x: Tensor) -> Tensor:
        reach = self.log_reach.exp()
        lowest = 2.0 ** (2 - 2 ** (self.bits - 1))
        share = (x.abs() / reach).clamp(lowest / 2, 1)
        exponent = share.log2()
        value = 2.0 ** (exponent + (exponent.round() - exponent).detach())
        return torch.where(share < lowest, 0.0, value) * x.sign() * reach


@OBSERVERS.register("toy_deviations")
class DeviationsObserver(Observer):
    """Three standard deviations to both sides."""

    def __init__(self) -> None:
        self.squares, self.count = 0.0, 0

    def observe(self, values: Tensor) -> None:
        self.squares, self.count = self.squares + float(values.square().sum()), self.count + values.numel()

    def range(self) -> tuple[float, float]:
        reach = 3 * (self.squares / self.count) ** 0.5
        return -reach, reach


@ROUNDINGS.register("toy_shift")
class ShiftRounding(WeightQuantizer):
    """All weights of a layer round up or down together, by one learned shift."""

    def __init__(self, weight: Tensor, like: WeightQuantizer) -> None:
        super().__init__(like.bits, like.scale, like.factor, like.reduce_range)
        self.shift = nn.Parameter(torch.zeros(1))

    @classmethod
    def start(cls, weight: Tensor, like: WeightQuantizer) -> ShiftRounding:
        return cls(weight, like)

    def learned(self) -> list[nn.Parameter]:
        return [self.shift]

    def codes(self, weight: Tensor) -> Tensor:
        return self._soft(weight).detach().to(torch.int8)

    def _soft(self, weight: Tensor) -> Tensor:
        moved = weight / self.step(weight) + self.shift
        return (moved + (moved.round() - moved).detach()).clamp(self.quant_min, self.quant_max)

    def forward(self, weight: Tensor) -> Tensor:
        return self._soft(weight) * self.step(weight)


@PLACEMENTS.register("toy_body")
def only_the_body(network: nn.Module, partition: Partition, spec: QuantSpec, bits: Bits) -> Plan:
    """Inputs of the layers of one block alone."""
    plan = at_inputs(network, partition, spec, bits)
    return replace(plan, sites={path: site for path, site in plan.sites.items() if path.startswith("body")})


TOY = ActivationSpec(4, observer="toy_deviations", quantizer="toy_log")
SPEC = QuantSpec(WeightSpec(4), TOY, placement="input")
FAST = ReconstructionSettings(steps=1, batch_frames=12, rounding_lr=3e-2, scale_lr=3e-2, drop=0.25, input_drop=0.25)


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return disc_clips(4).frames


@pytest.fixture
def quantized(frames: Tensor) -> MattingNetwork:
    return quantize(tiny_folded(), TINY_PARTITION, SPEC, frames)


def _trainer(epochs: int) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(accelerator="cpu", max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **quiet)


def _reconstruct(network: MattingNetwork, frames: Tensor, form: ReconstructionForm) -> None:
    (what,) = form.passes(FAST)
    module = BlockReconstruction(tiny_folded(), network, TINY_PARTITION.blocks, frames, what)
    try:
        _trainer(module.epochs).fit(module)
    finally:
        module.teardown("fit")


def test_every_site_gets_the_quantizer_and_observer_that_the_choices_name(quantized: MattingNetwork) -> None:
    found = activation_quantizers(quantized)
    assert len(found) == 4 and all(isinstance(quantizer, LogQuantizer) for quantizer in found.values())
    assert {quantizer.bits for quantizer in found.values()} == {4, 8}
    assert {name.rpartition(".")[2] for name, p in quantized.named_parameters() if p.requires_grad} == {"log_reach"}


@torch.no_grad()
def test_it_is_saved_and_loaded(quantized: MattingNetwork, frames: Tensor, tmp_path: Path) -> None:
    for quantizer in activation_quantizers(quantized).values():
        quantizer.log_reach += 0.125  # what is loaded is not what was observed
    info = CheckpointInfo({"family": "rvm", "arguments": {}}, SPEC, resolve(tiny_folded(), TINY_PARTITION))
    save_quantized(tmp_path, quantized, info)
    read = read_info(tmp_path)
    assert read.spec == SPEC
    loaded = load_quantized(tmp_path, tiny_matting(seed=5), read)
    assert isinstance(loaded, MattingNetwork)
    assert all(isinstance(quantizer, LogQuantizer) for quantizer in activation_quantizers(loaded).values())
    assert torch.equal(loaded.matte(frames).alpha, quantized.matte(frames).alpha)


def test_a_reconstruction_learns_its_scale(quantized: MattingNetwork, frames: Tensor) -> None:
    before = {
        path: quantizer.log_reach.detach().clone() for path, quantizer in activation_quantizers(quantized).items()
    }
    _reconstruct(quantized, frames, ReconstructionForm())
    after = activation_quantizers(quantized)
    assert any(not torch.equal(value, after[path].log_reach.detach()) for path, value in before.items())
    assert all(quantizer.drop == 0 and quantizer.enabled for quantizer in after.values())


def test_the_global_stage_learns_its_scale(quantized: MattingNetwork) -> None:
    module = GlobalAffineCalibration(quantized, GACSettings(epochs=1, flow_weight=0.0))
    clips = disc_clips(2)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, barebones=True)
    before = [quantizer.log_reach.detach().clone() for quantizer in activation_quantizers(quantized).values()]
    trainer.fit(module, torch.utils.data.DataLoader([clips], batch_size=None))
    after = [quantizer.log_reach.detach() for quantizer in activation_quantizers(quantized).values()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    absorb(quantized)


def test_a_rounding_from_outside_learns_and_ends_as_codes(frames: Tensor) -> None:
    network = quantize(tiny_folded(), TINY_PARTITION, replace(SPEC, activation=ActivationSpec(8)), frames)
    before = {path: layer.weight_quantizer.codes(layer.weight) for path, layer in quantized_layers(network).items()}
    form = ReconstructionForm(rounding="toy_shift")
    (what,) = form.passes(replace(FAST, rounding_lr=0.6))
    module = BlockReconstruction(tiny_folded(), network, TINY_PARTITION.blocks, frames, what)
    kinds = {type(layer.weight_quantizer) for layer in quantized_layers(network).values()}
    assert kinds == {ShiftRounding}
    try:
        _trainer(module.epochs).fit(module)
    finally:
        module.teardown("fit")
    layers: dict[str, QuantLayer] = quantized_layers(network)
    assert all(isinstance(layer.weight_quantizer, FixedCodes) for layer in layers.values())
    assert any(not torch.equal(before[path], layer.weight_quantizer.fixed) for path, layer in layers.items())


def test_rounding_may_stay_as_it_is(frames: Tensor) -> None:
    network = quantize(tiny_folded(), TINY_PARTITION, replace(SPEC, activation=ActivationSpec(4)), frames)
    before = {path: layer.weight_quantizer.fixed.clone() for path, layer in quantized_layers(network).items()}
    _reconstruct(network, frames, ReconstructionForm(rounding="nearest"))
    for path, layer in quantized_layers(network).items():
        assert torch.equal(before[path], layer.weight_quantizer.fixed)


def test_a_placement_from_outside_says_where(frames: Tensor) -> None:
    network = quantize(tiny_folded(), TINY_PARTITION, replace(SPEC, placement="toy_body"), frames)
    assert list(activation_quantizers(network)) == ["body.0.input_quantizer"]


def test_what_lies_on_no_even_grid_says_so_in_one_line(quantized: MattingNetwork) -> None:
    quantizer = next(iter(activation_quantizers(quantized).values()))
    seen = [SiteRanges([(-1.0, 1.0)])] * 2
    for needs_a_grid in (
        quantizer.qparams,
        quantizer.channel_scale,
        quantizer.regrid,
        lambda: ExportActivation(quantizer),
        lambda: LogQuantizer.joined(TOY, seen, one_scale=True),
    ):
        with pytest.raises(ConfigError, match=r"LogQuantizer has no grid with even steps.*quantizer=uniform") as caught:
            needs_a_grid()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActivationSpec(quantizer="nope"), "activation quantizer='nope' is unknown: use one of .*uniform"),
        (lambda: ActivationSpec(observer="nope"), "activation observer='nope' is unknown: use one of .*minmax, mse"),
        (lambda: QuantSpec(placement="nope"), "placement='nope' is unknown: use one of engine, input, output"),
        (lambda: ReconstructionForm(rounding="nope"), "rounding='nope' is unknown: use adaround, free, nearest"),
    ],
)
def test_unknown_names_give_one_line(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_files_know_the_new_names_only_where_they_are_used() -> None:
    partition = Partition(())
    plain = checkpoint._structure(CheckpointInfo({}, QuantSpec(), partition))["spec"]["activation"]
    assert "quantizer" not in plain
    assert checkpoint._structure(CheckpointInfo({}, SPEC, partition))["spec"]["activation"]["quantizer"] == "toy_log"
    assert "rounding" not in method_values(Method())["reconstruction"]
    chosen = Method(reconstruction=ReconstructionForm(rounding="toy_shift"))
    assert method_values(chosen)["reconstruction"]["rounding"] == "toy_shift"
