from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from commands import Workplace, as_found
from configurations import FILES, chosen, compose, configurations, names
from ptq4vm import api, settings
from ptq4vm.cli import build
from ptq4vm.cli.app import plain
from ptq4vm.cli.main import main
from ptq4vm.cli.record import planned_stages
from ptq4vm.data.base import DATASETS, ClipDataset
from ptq4vm.errors import ConfigError
from ptq4vm.flow.base import FlowEstimator, SourceFlow
from ptq4vm.models.family import FAMILIES
from ptq4vm.ops.junction import Operand
from ptq4vm.quant.partition import layers, resolve
from ptq4vm.report.tracking import log_sweep_table
from ptq4vm.system.trainers import trainers

pytestmark = pytest.mark.usefixtures(configurations.__name__)
OPTIONAL = {"wandb": "wandb", "tensorboard": "tensorboard", "raft": "torchvision"}


@pytest.mark.parametrize("name", names("target"))
@pytest.mark.parametrize("method", ["ptq4vm", "rtn", "ptq4vm_published"])
def test_targets_say_where_activations_are_quantized(name: str, method: str) -> None:
    _, spec = build.method(compose(f"+target={name}", f"method={method}", "bits=w8a8"))
    assert spec.placement == "engine"
    assert (spec.stores, spec.activation.granularity) == {
        "onnx": ("operations", "tensor"),
        "openvino": ("layers", "mixed"),
        "litert": ("operations", "tensor"),
        "tensorrt": ("layers", "tensor"),
    }[name]


def test_every_group_is_tested_here() -> None:
    tested = {"model", "bits", "method", "data", "flow", "preset", "trainer", "logger"}
    tested |= {"stage", "scale", "experiment", "augmentation", "target", "schedule"}
    assert {path.parts[0] for path in FILES} == tested


@pytest.mark.parametrize("switches", [(), ("method.gac=false",), ("method.gac=false", "method.ofa=true")])
@pytest.mark.parametrize("name", names("method"))
def test_a_run_writes_down_the_stages_that_its_method_runs(name: str, switches: tuple[str, ...]) -> None:
    cfg = compose(f"method={name}", *switches)
    assert planned_stages(cfg.method) == list(settings.method(plain(cfg.method)).stages)


@pytest.mark.parametrize(("stage", "learned"), [("gac", (True, False)), ("gac_ofa", (True, True))])
@pytest.mark.parametrize("name", ["rtn", "brecq", "ptq4vm"])
def test_the_global_stage_goes_after_any_method(name: str, stage: str, learned: tuple[bool, bool]) -> None:
    assert {path.name for path in FILES if path.parts[0] == "stage"} == {"gac", "gac_ofa"}
    method = settings.method(plain(compose(f"method={name}", f"+stage={stage}").method))
    assert (method.gac, method.ofa) == learned and method.stages[-1] == "gac"
    assert method.reconstruction == settings.method(plain(chosen("method", name).method)).reconstruction


@pytest.mark.parametrize("name", names("schedule"))
def test_schedules(name: str) -> None:
    cfg = hydra.compose("train", overrides=["data.root=somewhere", f"schedule={name}"])
    assert settings.schedule(plain(cfg.schedule)) == api.load_schedule(name)


@pytest.mark.parametrize("name", names("model"))
def test_models(name: str) -> None:
    cfg = chosen("model", name)
    with torch.device("meta"):
        network = api.build_network(cfg.model.family, plain(cfg.model.arguments), pretrained=False)
    values = plain(cfg.model)
    own = values.get("partition") or FAMILIES[values["family"]]().partition(values["arguments"])
    found = resolve(network, settings.partition(own))
    operands = {path for path, module in network.named_modules() if isinstance(module, Operand)}
    assert set(found.edge_layers) <= set(layers(network, found)) | operands
    assert set(found.branches) <= set(layers(network, found))


@pytest.mark.parametrize("name", names("bits"))
def test_bits(name: str) -> None:
    _, spec = build.method(chosen("bits", name))
    assert spec.is_float == (name == "fp32")
    assert spec.is_float or name == f"w{spec.weight.bits}a{spec.activation.bits}"


def test_any_bits_from_2_to_8() -> None:
    choices = settings.bit_choices()
    assert len(choices) == 49 and all(
        name == f"w{bits['weight']}a{bits['activation']}" for name, bits in choices.items()
    )
    for name in ("w2a8", "w3a5", "w7a2"):
        _, spec = build.method(chosen("bits", name))
        assert f"w{spec.weight.bits}a{spec.activation.bits}" == name


@pytest.mark.parametrize("name", names("method"))
def test_methods(name: str) -> None:
    method, spec = build.method(chosen("method", name))
    assert method.name == name
    assert (method, spec) == api.load_method(name, "w4a4")


@pytest.mark.parametrize("name", names("method"))
def test_a_method_may_choose_its_preset(name: str) -> None:
    chosen = settings.read_choice("preset", settings.preset_of(name))
    assert (
        plain(compose(f"method={name}").preset)
        == chosen
        == (settings.read_choice("preset", "whole" if name.startswith("closed_form") else "quick"))
    )
    assert plain(compose(f"method={name}", "preset=paper").preset) == settings.read_choice("preset", "paper")
    assert settings.preset_of("made by hand") == "quick"


@pytest.mark.parametrize("name", names("data"))
def test_data(name: str, tmp_path: Path) -> None:
    cfg = compose(f"data={name}", f"data.root={tmp_path}")
    dataset = build.data(cfg)
    assert isinstance(dataset, ClipDataset)
    assert hydra.utils.get_class(cfg.data._target_) is DATASETS.find(cfg.data._target_)
    assert vars(api.load_data(name, root=tmp_path)) == vars(dataset)


@pytest.mark.parametrize("name", names("flow"))
def test_flows(name: str) -> None:
    cfg = chosen("flow", name)
    if name == "raft" and importlib.util.find_spec("torchvision") is None:
        with pytest.raises(hydra.errors.InstantiationException) as caught:
            instantiate(cfg.flow)
        assert isinstance(caught.value.__cause__, ConfigError) and "torchvision" in str(caught.value.__cause__)
        with pytest.raises(ConfigError, match="torchvision"):
            api.load_flow(name)
        return
    provider = instantiate(cfg.flow)
    assert isinstance(provider, (FlowEstimator, SourceFlow))
    assert provider.name == api.load_flow(name).name


@pytest.mark.parametrize("name", names("preset"))
def test_presets(name: str) -> None:
    assert build.preset(chosen("preset", name)) == api.load_preset(name)


@pytest.mark.parametrize("name", names("augmentation"))
def test_augmentations(name: str) -> None:
    assert build.augmentation(chosen("augmentation", name)) == api.load_augmentation(name)
    assert build.augmentation(chosen("augmentation", name)).active == (name != "none")
    assert build.augmentation(compose()) == api.load_augmentation("none"), "none unless it is asked for"


def test_memory_budget_reaches_the_preset() -> None:
    assert build.preset(compose("memory_mib=77")).reconstruction.memory_mib == 77


@pytest.mark.parametrize("name", names("trainer"))
def test_trainers(name: str, tmp_path: Path) -> None:
    make = trainers(tmp_path, instantiate(chosen("trainer", name).trainer))
    with as_found(tmp_path):
        if name.endswith("gpu") and not torch.cuda.is_available():
            with pytest.raises(ConfigError, match="gpu"):
                make(logger=False)
            return
        assert isinstance(make(logger=False, max_epochs=3), pl.Trainer)


@pytest.mark.parametrize("name", names("logger"))
def test_loggers(name: str, tmp_path: Path) -> None:
    if name in OPTIONAL and importlib.util.find_spec(OPTIONAL[name]) is None:
        pytest.skip(f"{OPTIONAL[name]} is not installed")
    with build.loggers(chosen("logger", name), tmp_path) as tracking:
        found = tracking("biq")
    assert len(found) == {"none": 0, "csv": 1}.get(name, 2), "trackers have CSV files beside them"
    assert all(isinstance(logger, pl.loggers.Logger) for logger in found)
    assert name == "none" or isinstance(found[0], pl.loggers.CSVLogger)


def test_any_logger_of_lightning(tmp_path: Path) -> None:
    cfg = compose("logger=csv", "logger._target_=pytorch_lightning.loggers.TensorBoardLogger")
    (logger,) = build.loggers(cfg, tmp_path)("biq")
    assert isinstance(logger, pl.loggers.TensorBoardLogger) and Path(logger.log_dir) == tmp_path / "logs" / "biq"


@pytest.mark.parametrize("name", [name for name in names("logger") if name != "none"])
def test_table_of_a_sweep_goes_to_every_logger(name: str, tmp_path: Path) -> None:
    if name in OPTIONAL and importlib.util.find_spec(OPTIONAL[name]) is None:
        pytest.skip(f"{OPTIONAL[name]} is not installed")
    log_sweep_table([{"name": "a", "mad": 1.0}], build.sweep_tracking(chosen("logger", name), tmp_path))
    assert any(tmp_path.iterdir()) == (name != "csv")


def test_resumed_stage_has_a_log_folder_of_its_own(tmp_path: Path) -> None:
    make = build.loggers(chosen("logger", "csv"), tmp_path)
    (tmp_path / "logs" / "biq").mkdir(parents=True)
    assert Path(make("biq")[0].log_dir) == tmp_path / "logs" / "biq-2"
    assert Path(make("gac")[0].log_dir) == tmp_path / "logs" / "gac"


WRONG: dict[str, tuple[str, ...]] = {
    "bits=w9a9": ("bits=w9a9", "fp32", "wXaY", "2 to 8"),
    "method=nope": ("method=nope", "ptq4vm", "rtn"),
    "model=nope": ("model=nope", "rvm_mobilenetv3", "rvm_resnet50"),
    "data=nope": ("data=nope", "demo", "folder", "videomatte"),
    "augmentation=nope": ("augmentation=nope", "mild", "none", "rvm"),
    "augmentation.noise=2": ("augmentation", "noise=2", "probability"),
    "augmentation.nope=1": ("augmentation.nope", "pause", "speed"),
    "augmentation.speed=[9]": ("speed=9", "augmentation.speed"),
    "flow=nope": ("flow=nope", "dis", "raft"),
    "logger=null": ("logger=null", "csv", "none"),
    "logger.nope=1": ("logger.nope", "version"),
    "+logger.nope=1": ("logger.nope", "version"),
    "nope=1": ("nope", "preset", "run_dir", "seed"),
    "+nope=1": ("nope", "run_dir", "seed"),
    "preset.nope.epochs=1": ("preset.nope", "calibration", "gac", "reconstruction"),
    "preset.gac.nope=1": ("preset.gac.nope", "epochs", "flow_weight"),
    "+preset.gac.nope=1": ("preset.gac.nope", "epochs", "flow_weight"),
    "data.nope=1": ("data.nope", "root", "backgrounds"),
    "preset.gac.granularity=foo": ("preset.gac", "granularity='foo'", "tensor", "channel"),
    "preset.gac.epochs=many": ("preset.gac.epochs='many'", "whole number"),
    "preset.gac.epochs=1.5": ("preset.gac.epochs=1.5", "whole number"),
    "preset.gac.epochs=true": ("preset.gac.epochs=True", "whole number"),
    "preset.gac.affine_lr=-1": ("gac.affine_lr=-1", "positive"),
    "preset.gac.burn_in=3": ("burn_in=3", "clip_length=3"),
    "preset.reconstruction.drop=2": ("drop=2", "[0, 1]"),
    "preset.calibration.crop=[64]": ("preset.calibration.crop=[64]", "whole number"),
    "preset.calibration.crop=[640,640]": ("calibration.crop", "640x640", "96x64"),
    "preset.calibration.clips=0": ("calibration.clips", "at least 1"),
    "preset.calibration.clip_length=99": ("calibration.clip_length", "6 frames"),
    "method.reconstruction.unit=page": ("method.reconstruction.unit='page'", "layer, block, network"),
    "method.reconstruction.learn=all": ("method.reconstruction.learn='all'", "weights_then_scales"),
    "method.reconstruction.label=gac": ("method.reconstruction.label='gac'", "other than"),
    "method.reconstruction.damping=2": ("method.reconstruction.damping=2", "[0, 1]"),
    "method.quantizer.placement=middle": ("method.quantizer", "placement='middle'", "input", "output"),
    "method.quantizer.weight.observer=x": ("method.quantizer.weight", "observer='x'", "minmax"),
    "bits.weight=9": ("weight bits=9", "2 to 8"),
    "model.partition.blocks=[nowhere]": ("blocks", "nowhere"),
    "model.arguments.variant=vgg": ("vgg", "mobilenetv3"),
    "seed=x": ("seed='x'", "whole number"),
    "downsample_ratio=2": ("downsample_ratio", "2"),
    "num_workers=-1": ("num_workers", "-1"),
    "data.pairs_per_clip=9": ("pairs_per_clip", "9"),
    "data.pairs_per_clip=x": ("data.pairs_per_clip='x'", "whole number"),
    "data.root=???": ("data.root", "no value"),
    "trainer.precision=7": ("trainer", "7"),
    "preset.gac.epochs=[": ("preset.gac.epochs=[", "key=value"),
    "bits=w4a4,w8a8": ("bits",),
}


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_value_is_one_line(argument: str, workplace: Workplace, tmp_path: Path) -> None:
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    overrides = [a for a in workplace.tiny(tmp_path / "run") if a.split("=")[0] != argument.split("=")[0]]
    line = workplace.run("quantize", *overrides, argument).line()
    for part in WRONG[argument]:
        assert part in line, line
    left = {path.name for path in (tmp_path / "run").glob("[!.]*.*s*")}
    assert left <= {"run.json"}, "nothing is left but a log and the record of the failure"
    if left:
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["status"] == "failed" and record["error"] in line


def test_a_key_of_before_is_taken_on_the_command_line(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    settings._tell_once.cache_clear()
    monkeypatch.setitem(settings.RENAMED, "preset.gac.rounds", "preset.gac.epochs")
    done = workplace.run("quantize", *workplace.tiny(tmp_path / "run"), "preset.gac.rounds=many")
    assert done.status == 1 and "preset.gac.epochs='many' has the wrong type" in done.err
    assert "preset.gac.rounds is called preset.gac.epochs now" in caplog.text


def test_missing_root_is_one_line(workplace: Workplace, tmp_path: Path) -> None:
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    for command in ("quantize", "evaluate"):
        line = workplace.run(command, "data=folder", f"run_dir={tmp_path}").line()
        assert "data.root has no value" in line and "data.root=" in line


def test_usage_and_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(word in usage for word in ("quantize", "evaluate", "weights"))
    assert main([]) == 0
    assert main(["quantise"]) == 2
    assert "quantise" in capsys.readouterr().err


def test_console_command_starts_without_loading_torch() -> None:
    program = "import sys; from ptq4vm.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0
    command = Path(sys.executable).parent / "ptq4vm"
    done = subprocess.run([command, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("ptq4vm: unknown command 'nothing'")


def test_hydra_help_lists_groups(workplace: Workplace) -> None:
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    done = workplace.run("quantize", "--help")
    assert done.status == 0
    assert "rvm_mobilenetv3" in done.out and "preset" in done.out
