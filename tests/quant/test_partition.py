from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from networks import RVM_PARTITION, TINY_PARTITION, random_rvm, tiny_folded
from ptq4vm.errors import ConfigError
from ptq4vm.quant.partition import block_of, expand, layers, resolve
from ptq4vm.quant.spec import Partition


def test_patterns_expand_in_definition_order_within_one_level() -> None:
    network = random_rvm("mobilenetv3")
    found = expand(network, ["backbone.features.*"], "blocks")
    assert found == [f"backbone.features.{i}" for i in range(len(network.backbone.features))]
    assert expand(network, ["aspp", "backbone.features.1?", "asp*"], "blocks")[:2] == ["aspp", "backbone.features.10"]


def test_the_whole_network_can_be_one_block() -> None:
    network = tiny_folded()
    partition = resolve(network, Partition(blocks=("",)))
    assert partition.blocks == ("",)
    assert block_of("recur.mix.0", partition.blocks) == ""


@pytest.mark.parametrize("variant", ["mobilenetv3", "resnet50"])
def test_rvm_partition_covers_every_layer(variant: str) -> None:
    network = random_rvm(variant)
    partition = RVM_PARTITION
    if variant == "resnet50":
        blocks = ("backbone.conv1", *(f"backbone.layer{i}.*" for i in range(1, 5)), *partition.blocks[1:])
        partition = replace(partition, blocks=blocks, edge_layers=("project_mat.conv",), branches={})
    resolved = resolve(network, partition)
    found = layers(network, resolved)
    assert found and all(block_of(path, resolved.blocks) for path in found)
    assert not any(path.startswith(("refiner", "project_seg")) for path in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": ("stem", "bodi", "recur", "project")}, "'bodi' matches no module"),
        ({"blocks": ("stem", "body", "recur", "project", "x.*")}, r"'x\.\*' matches no module"),
        ({"float_modules": ("refiner",)}, "float_modules: 'refiner' matches no module"),
        ({"edge_layers": ("head.*",)}, "edge_layers"),
        ({"blocks": ("stem", "body", "project")}, "layer 'recur.mix.0' is in no block"),
        ({"blocks": ("stem", "body", "recur", "recur.mix", "project")}, "'recur.mix' lies inside another block"),
        ({"branches": {"recur.mix.0": (8, 7)}}, "does not take 15 channels"),
        ({"branches": {"recur.mix.1": (8, 8)}}, "does not take 16 channels"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(tiny_folded(), replace(TINY_PARTITION, **change))


def test_layers_leave_float_modules_out() -> None:
    network = tiny_folded()
    partition = resolve(network, Partition(blocks=("stem", "body", "recur"), float_modules=("project",)))
    assert list(layers(network, partition)) == ["stem.conv", "body.0", "recur.mix.0"]


def test_block_of_matches_whole_names_only() -> None:
    assert block_of("block10.conv", ["block1", "block10"]) == "block10"
    with pytest.raises(KeyError):
        block_of("block10.conv", ["block1"])


def test_linear_layers_count_as_quantizable() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(ConfigError, match="layer '0' is in no block"):
        resolve(network, Partition(blocks=("1",)))
