from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ptq4vm
from commands import Workplace, difference
from networks import TINY_PARTITION, disc_clips, quantize, tiny_folded
from ptq4vm.errors import ConfigError
from ptq4vm.methods.fisher import FisherWeights
from ptq4vm.methods.method import Method, ReconstructionForm
from ptq4vm.methods.reconstruction import BlockReconstruction
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.methods.units import make_units, reconstruction_loss
from ptq4vm.pipeline.training import Training
from ptq4vm.quant.capture import BlockCall, TensorStore, layer_calls
from ptq4vm.quant.insert import activation_quantizers, quantized_layers
from ptq4vm.quant.layers import QuantLayer
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec
from ptq4vm.system.trainers import default_trainer

METHODS = ("adaround", "brecq", "qdrop", "naive_full")
W4A4 = QuantSpec(WeightSpec(4, observer="minmax"), ActivationSpec(4, observer="minmax"))
TRAINER: dict[str, Any] = {
    "reload_dataloaders_every_n_epochs": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
SCHEDULE = ReconstructionSettings(steps=40, batch_frames=12, rounding_lr=3e-2, scale_lr=3e-3, chunk_frames=6)


def _run(form: ReconstructionForm, seed: int = 0) -> tuple[torch.nn.Module, torch.nn.Module, list[list[str]]]:
    """The network before and after, and the units that every pass visited."""
    teacher, batch = tiny_folded(), disc_clips(6)
    network = quantize(teacher, TINY_PARTITION, W4A4, batch.frames)
    before = quantize(teacher, TINY_PARTITION, W4A4, batch.frames)
    fisher = FisherWeights(batch.frames, batch.alpha, form.damping) if form.fisher else None
    visited = []
    for what in form.passes(SCHEDULE):
        module = BlockReconstruction(
            teacher, network, TINY_PARTITION.blocks, batch.frames, what, seed, label=form.label, fisher=fisher
        )
        default_trainer(**TRAINER, max_epochs=module.epochs).fit(module)
        visited.append([report.block for report in module.reports])
    return before, network, visited


def _codes(network: torch.nn.Module) -> torch.Tensor:
    layers = quantized_layers(network).values()
    return torch.cat([layer.weight_quantizer.fixed.flatten() for layer in layers])


def _scales(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([q.log_scale.detach().flatten() for q in activation_quantizers(network).values()])


@pytest.mark.parametrize("name", METHODS)
def test_what_each_method_learns_and_where(name: str) -> None:
    form = ptq4vm.load_method(name)[0].reconstruction
    before, after, visited = _run(form)
    layers = list(quantized_layers(after))
    blocks = list(TINY_PARTITION.blocks)
    assert (
        visited
        == {
            "adaround": [layers],
            "brecq": [blocks, blocks],
            "qdrop": [blocks],
            "naive_full": [[""]],
        }[name]
    )
    assert not torch.equal(_codes(after), _codes(before))
    assert torch.equal(_scales(after), _scales(before)) == (name == "adaround")
    assert all(q.enabled and q.drop == 0 for q in activation_quantizers(after).values())
    assert all(isinstance(layer.weight_quantizer, FixedCodes) for layer in quantized_layers(after).values())
    frames = disc_clips(6).frames
    errors = [float(reconstruction_loss(network.eval()(frames), tiny_folded()(frames))) for network in (before, after)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("learn", ["joint", "weights", "weights_then_scales"])
@pytest.mark.parametrize("steps", [1, 2, 10, 20000])
def test_passes_share_the_steps(learn: str, steps: int) -> None:
    passes = ReconstructionForm(learn=learn, drop=False).passes(replace(SCHEDULE, steps=steps))
    assert sum(what.settings.steps for what in passes) == max(steps, len(passes))
    assert all(what.settings.drop == what.settings.input_drop == 0 for what in passes)
    if learn == "weights_then_scales":
        assert [what.activations for what in passes] == [False, True]
        assert passes[0].settings.scale_lr == 0 < passes[0].settings.rounding_lr
        assert passes[1].settings.rounding_lr == 0 < passes[1].settings.scale_lr
    if steps == 20000 and len(passes) == 2:
        assert [what.settings.steps for what in passes] == [16000, 4000]


def test_error_without_activations_is_relative_to_rounding_to_nearest() -> None:
    """Softly rounded weights begin at the float ones: relative to that error, the regularizer would weigh nothing."""
    teacher, batch = tiny_folded(), disc_clips(4)
    schedule = replace(SCHEDULE, steps=1, relative=True)
    (what,) = ReconstructionForm(learn="weights", drop=False).passes(schedule)
    network = quantize(teacher, TINY_PARTITION, W4A4, batch.frames)
    module = BlockReconstruction(teacher, network, TINY_PARTITION.blocks, batch.frames, what)
    references: list[float] = []
    module.finished = lambda report: references.append(float(module._reference))
    default_trainer(**TRAINER, max_epochs=module.epochs).fit(module)
    first = [report.first_loss for report in module.reports]
    assert first[0] < 1e-9 < references[0], "the first block has float inputs and, softly rounded, float weights"
    assert all(reference > 1e-6 for reference in references)


def test_layers_are_units_in_definition_order_block_by_block() -> None:
    teacher = tiny_folded()
    network = quantize(teacher, TINY_PARTITION, W4A4, disc_clips(2).frames)
    units = make_units(network, TINY_PARTITION.blocks, "layer")
    assert [unit.path for unit in units] == list(quantized_layers(network))
    assert [unit.path for unit in make_units(network, TINY_PARTITION.blocks, "network")] == [""]


def test_calls_of_a_recurrent_layer_are_joined() -> None:
    teacher, x = tiny_folded(), torch.rand(2, 3, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    (call,) = layer_calls(teacher.recur, "mix.0", [BlockCall((x,), {}, None)])
    assert call.args[0].shape == (6, 16, 6, 6) and call.output.shape == (6, 8, 6, 6)
    assert torch.equal(call.args[0][:2, :8], x[:, 0]) and torch.equal(call.args[0][4:, :8], x[:, 2])
    assert torch.allclose(call.output, teacher.recur.mix[0](call.args[0]), atol=1e-6)
    assert not teacher.recur.mix[0]._forward_hooks


def test_fisher_weights_are_squared_gradients_with_mean_one() -> None:
    teacher, batch = tiny_folded(), disc_clips(4)
    weights = FisherWeights(batch.frames, batch.alpha, damping=0.0)(teacher, ["stem", "project"], 2, TensorStore(100))
    assert [len(trees) for trees in weights.values()] == [2, 2]
    found = torch.cat(weights["project"]).float()
    assert found.mean() == pytest.approx(1, rel=1e-2)
    # by hand: the same gradient from a copy of the block's output
    outputs = []
    handle = teacher.project.register_forward_hook(lambda m, args, out: outputs.append(out.detach().requires_grad_()))
    squares = []
    for frames, alpha in zip(batch.frames.split(1), batch.alpha.split(1), strict=True):
        outputs.clear()
        with torch.no_grad():
            teacher.matte(frames)
        h = teacher.project.register_forward_hook(lambda m, args, out: outputs[0])
        loss = (teacher.matte(frames).alpha - alpha).square().mean()
        squares.append(torch.autograd.grad(loss, outputs[0])[0].square())
        h.remove()
    handle.remove()
    expected = torch.cat(squares)
    assert torch.allclose(found, expected / expected.mean(), rtol=2e-3, atol=1e-3)


def test_damping_mixes_in_the_plain_error() -> None:
    teacher, batch = tiny_folded(), disc_clips(2)
    plain, half = (
        torch.cat(FisherWeights(batch.frames, batch.alpha, d)(teacher, ["body"], 1, TensorStore(100))["body"]).float()
        for d in (0.0, 0.5)
    )
    assert torch.allclose(half, 0.5 + 0.5 * plain, rtol=2e-3, atol=1e-3)
    right = torch.cat([teacher.matte(clip).alpha.detach() for clip in batch.frames.split(1)])
    (found,) = FisherWeights(batch.frames, right, 0.0)(teacher, ["body"], 2, TensorStore(100))["body"]
    assert torch.equal(found, torch.ones_like(found)), "nothing to weight where the float network is right"


def test_weights_multiply_the_error() -> None:
    output, target = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    assert reconstruction_loss(output, target, torch.full_like(output, 2.0).half()) == pytest.approx(
        2 * float(reconstruction_loss(output, target)), rel=1e-5
    )


@pytest.mark.parametrize("values", [{"fisher": True, "unit": "layer"}, {"fisher": True, "unit": "network"}])
def test_fisher_needs_blocks(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"fisher=true needs unit=block"):
        ReconstructionForm(**values)


@pytest.mark.parametrize(
    ("switches", "stages"),
    [((1, 1, 1), ("biq", "gac")), ((1, 0, 1), ("biq", "ofa")), ((0, 1, 0), ("gac",)), ((1, 0, 0), ("biq",))],
)
def test_each_stage_has_its_switch(switches: tuple[int, int, int], stages: tuple[str, ...]) -> None:
    biq, gac, ofa = map(bool, switches)
    method = Method("x", biq, gac, ofa)
    assert method.stages == stages
    schedule = method.global_settings(ptq4vm.load_preset("quick").gac)
    assert (schedule.affine_lr > 0, schedule.flow_weight > 0) == (gac, ofa)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def whole(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Callable[[str], Path]:
    """The folder of a whole run by its method's name; each is run once, for all tests that compare with it."""
    root = tmp_path_factory.mktemp("whole")

    def run(name: str) -> Path:
        if not (root / name).exists():
            done = workplace.quantize(root / name, *_options(name, shared_folder))
            assert done.status == 0, done.out + done.err
        return root / name

    return run


def _options(name: str, shared: Path | None = None) -> tuple[str, ...]:
    return (f"method={name}", "baseline=false", *([f"stage_cache={shared}"] if shared is not None else []))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name != "brecq" else []) for name in METHODS],
)
def test_whole_runs(
    workplace: Workplace, tmp_path: Path, shared_folder: Path, whole: Callable[[str], Path], name: str
) -> None:
    first, options = whole(name), _options(name, shared_folder)
    run = json.loads((first / "run.json").read_text())
    assert run["status"] == "finished" and run["method"] == name and run["stages"] == [name]
    assert run["bits"] == {"weight": 4, "activation": 4} and f"method={name}" in run["command"]
    metrics = json.loads((first / "metrics.json").read_text())
    assert list(metrics["stages"]) == ["fp32", name] and metrics["mean"] == metrics["stages"][name]["mean"]
    units = {"adaround": 78, "brecq": 24, "qdrop": 24, "naive_full": 1}[name]
    assert run["steps"] == {name: 2 * units}, "every unit takes the schedule's steps"
    layers = json.loads((first / "layers.json").read_text())["layers"]
    assert len(layers) > 70 and all(0 <= error < 100 for error in layers.values())
    assert layers["project_mat.conv"] > 0

    again = workplace.quantize(tmp_path / "b", *options, "method.gac=true", "method.ofa=true")
    assert again.status == 0 and f"{name.upper()}: taken from a run that began alike" in again.out
    both = [json.loads((run / "metrics.json").read_text())["stages"][name] for run in (first, tmp_path / "b")]
    assert both[0] == both[1]
    times = [json.loads((run / "timing.json").read_text())["stages"][name] for run in (first, tmp_path / "b")]
    assert times[0] == times[1], "its seconds count in every run"


@pytest.mark.parametrize(
    ("name", "fit", "epoch"),
    [
        pytest.param("adaround", 0, 5, marks=pytest.mark.slow),
        ("brecq", 1, 3),
        pytest.param("brecq", 0, 20, marks=pytest.mark.slow),
    ],
)
def test_resumed_in_any_pass(
    workplace: Workplace, tmp_path: Path, whole: Callable[[str], Path], name: str, fit: int, epoch: int
) -> None:
    options = _options(name)
    original, calls = Training._fit, []

    class Killed(BaseException):
        pass

    def stopping(self: Training, stage: str, module: Any, *args: Any, **kwargs: Any) -> None:
        if len(calls) == fit:
            begin = module.on_train_epoch_start

            def start() -> None:
                if module.current_epoch == epoch:
                    raise Killed
                begin()

            module.on_train_epoch_start = start
        calls.append(stage)
        original(self, stage, module, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_fit", stopping)
        with pytest.raises(Killed):
            workplace.quantize(tmp_path / "cut", *options)
    done = workplace.quantize(tmp_path / "cut", *options)
    assert done.status == 0, done.out + done.err
    assert "were done before" in done.out
    assert difference(tmp_path / "cut", whole(name)) == []


def test_costs_by_both_conventions() -> None:
    from networks import RVM_PARTITION, random_rvm
    from ptq4vm.evaluation.cost import measure_cost
    from ptq4vm.quant.fold import fold_batch_norm
    from ptq4vm.quant.partition import resolve

    network = random_rvm("mobilenetv3", "deep_guided_filter").eval()
    partition = resolve(network, RVM_PARTITION)
    teacher = fold_batch_norm(network, partition.float_modules)
    costs = {}
    for bits in ((32, 32), (8, 8), (4, 8), (4, 4)):
        spec = QuantSpec(WeightSpec(bits[0], observer="minmax"), ActivationSpec(bits[1], observer="minmax"))
        quantized = quantize(teacher, partition, spec, torch.rand(1, 1, 3, 64, 64)) if bits[0] < 32 else teacher
        costs[bits] = measure_cost(quantized, teacher, partition, spec, (288, 512))
    # the published table: 4.57 G and 14.5 MB, then 1.14, 0.76, 0.57 G and 3.63, 2.42, 1.81 MB
    assert [round(cost.paper_gflops, 2) for cost in costs.values()] == pytest.approx([4.57, 1.14, 0.76, 0.57], rel=0.03)
    assert [cost.paper_mb for cost in costs.values()] == pytest.approx([14.5, 3.63, 2.42, 1.81], rel=0.05)
    full = costs[32, 32]
    assert full.bops == pytest.approx(full.gmacs * 1e9 * 1024)
    assert costs[4, 4].bops > full.gmacs * 1e9 * 16, "edges have 8 bits"
    assert costs[4, 8].stored_bytes == pytest.approx(costs[4, 4].stored_bytes, rel=0.01)
    assert costs[4, 4].stored_bytes > full.stored_bytes / 8, "scales, biases and edge layers come on top"
    assert isinstance(next(iter(quantized_layers(quantized).values())), QuantLayer)
