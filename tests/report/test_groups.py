"""Seeds put together, the float network, and who is best."""

from __future__ import annotations

import json

import pytest

from ptq4vm.report.groups import SeedSpread, best_marks, group_runs, references, single_runs
from ptq4vm.report.views import heat_data
from ptq4vm.runs.reading import load_runs
from sample_runs import FP32, write_run


def test_seeds_are_one_row_with_mean_and_sample_deviation(tmp_path):
    for seed, error in enumerate((5.0, 6.0, 8.5)):
        write_run(tmp_path, seed=seed, mad=error)
    (group,) = group_runs(load_runs([tmp_path]))
    assert group.metric("mad") == SeedSpread(6.5, pytest.approx(1.802776), 3)
    assert group.delta("mad").mean == pytest.approx(2.5) and group.label == "brecq" and group.bits == "W4A4"
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert len(single_runs(load_runs([tmp_path]))) == 3


def test_single_value_has_no_deviation_and_no_value_no_spread():
    assert SeedSpread.of([3.0, None]) == SeedSpread(3.0, 0.0, 1)
    assert SeedSpread.of([None]) is None


@pytest.mark.parametrize(
    "other",
    [
        {"method": "qdrop"},
        {"width": "w4a8"},
        {"choices": {"lam": 1}},
        {"preset": "paper"},
        {"data": "demo"},
        {"flow": "raft"},
        {"model": "rvm_resnet50"},
        {"stages": ["brecq", "gac"]},
        {"command": "ptq4vm quantize seed=1 preset.gac.flow_weight=0.5"},
        {"command": "ptq4vm quantize seed=1 +stage=gac_ofa", "choices": {"stage": "gac_ofa"}},
    ],
)
def test_anything_but_the_seed_parts_runs(tmp_path, other):
    write_run(tmp_path / "one", seed=0, **({"flow": "dis"} if "flow" in other else {}))
    write_run(tmp_path / "two", **{"seed": 1, **other})
    groups = group_runs(load_runs([tmp_path]))
    assert [len(group.runs) for group in groups] == [1, 1]
    names = {(group.bits, group.label) for group in groups}
    assert len(names) == 2, "groups must be told apart by what is shown of them"


def test_copies_of_a_run_are_no_second_sample(tmp_path):
    write_run(tmp_path / "one", seed=0)
    write_run(tmp_path / "two", seed=0)
    write_run(tmp_path / "two", seed=1)
    write_run(tmp_path / "three", method="rtn", seed=None)
    groups = group_runs(load_runs([tmp_path]))
    assert sorted(len(group.runs) for group in groups) == [1, 1, 2]


def test_failed_broken_and_unfinished_runs_have_no_row(tmp_path):
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=1, status="failed", error="x")
    write_run(tmp_path, seed=2, status="running")
    (write_run(tmp_path, seed=3) / "metrics.json").write_text("{")
    (group,) = group_runs(load_runs([tmp_path]))
    assert len(group.runs) == 1


def test_wide_bits_come_first_then_small_errors(tmp_path):
    for bits in ("w4a4", "w8a8", "w4a8"):
        write_run(tmp_path, bits, "rtn", mad=9.0)
        write_run(tmp_path, bits, "qdrop", mad=5.0)
    groups = group_runs(load_runs([tmp_path]))
    expected = [(bits, method) for bits in ("W8A8", "W4A8", "W4A4") for method in ("qdrop", "rtn")]
    assert [(group.bits, group.label) for group in groups] == expected


def test_best_is_marked_for_each_bit_width_among_rivals(tmp_path):
    write_run(tmp_path, "w8a8", "rtn", mad=5.0)
    write_run(tmp_path, "w4a4", "rtn", mad=90.0)
    for seed, error in enumerate((5.0, 9.0)):  # best single run, yet not the best mean
        write_run(tmp_path, "w4a4", "brecq", seed, error)
        write_run(tmp_path, "w4a4", "qdrop", seed, 6.0)
    write_run(tmp_path / "elsewhere", "w4a4", "brecq", mad=1.0, data="demo")
    groups = group_runs(load_runs([tmp_path]))
    marked = {(group.bits, group.label) for i, group in enumerate(groups) if i in best_marks(groups)["mad"]}
    assert marked == {("W4A4", "qdrop, data=videomatte")}


def test_float_network_once_with_its_share_of_the_cost(tmp_path):
    write_run(tmp_path, "w8a8")
    write_run(tmp_path, "w4a4", seed=1)
    (base,) = references(load_runs([tmp_path]))
    assert base.metrics["mad"] == FP32
    assert base.cost == {
        "gmacs": 4.5,
        "paper_gflops": 4.5,
        "paper_mb": pytest.approx(14.4),
    }


def test_run_at_32_bits_is_the_float_network(tmp_path):
    write_run(tmp_path, "w4a4")
    write_run(tmp_path, "w8a8", "float", mad=FP32, bits={"weight": 32, "activation": 32}, cost={"paper_mb": 14.5})
    runs = load_runs([tmp_path])
    assert [group.bits for group in group_runs(runs)] == ["W4A4"]
    assert references(runs)[0].cost == {"paper_mb": 14.5}


def test_what_a_run_repeats_of_itself_parts_no_seeds(tmp_path):
    for seed in (0, 1):
        choices = {"bits": "w4a4", "method": "brecq", "data": "videomatte", "scale": "quick", "stage": None}
        command = f"ptq4vm quantize -m bits=w4a4 seed={seed} scale=quick run_dir=r/{seed}"
        write_run(tmp_path, seed=seed, choices=choices, command=command)
    (group,) = group_runs(load_runs([tmp_path]))
    assert group.label == "brecq" and group.runs[0].choices == {"scale": "quick"}


def test_labels_say_no_more_of_a_key_than_tells_it_apart(tmp_path):
    for value in ("minmax", "mse"):
        write_run(tmp_path / value, choices={"method.quantizer.activation.observer": value, "scale": "quick"})
    assert {group.label for group in group_runs(load_runs([tmp_path]))} == {
        "brecq, observer=minmax",
        "brecq, observer=mse",
    }
    write_run(tmp_path / "weight", choices={"method.quantizer.weight.observer": "mse", "scale": "quick"})
    assert any("weight.observer=mse" in group.label for group in group_runs(load_runs([tmp_path])))


def test_bits_of_layers_are_shown_where_they_were_chosen(tmp_path):
    for seed, options in ((0, ["budget.avg_bits=4.5"]), (1, [])):
        folder = write_run(tmp_path, seed=seed)
        card = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**card, "command": " ".join([card["command"], *options])}))
        layers = json.loads((folder / "layers.json").read_text())["layers"]
        bits = {layer: 4 + 2 * (number % 2) for number, layer in enumerate(layers)}
        (folder / "layers.json").write_text(json.dumps({"layers": layers, "bits": bits}))
    groups = group_runs(load_runs([tmp_path]))
    heat = heat_data(groups)
    assert sorted(heat["mixed"]) == [False, True]
    assert [row[0] for row in heat["bits"]] == [bits[layer] for layer in heat["layers"]]
