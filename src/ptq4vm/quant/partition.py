"""Turn a :class:`Partition`'s patterns into checked module paths of one network."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from ptq4vm.errors import ConfigError
from ptq4vm.quant.spec import Partition

QUANTIZABLE = (nn.Conv2d, nn.Linear)


def inside(path: str, parents: Iterable[str]) -> bool:
    """Whether a module is one of ``parents``, or below one."""
    return any(path == parent or path.startswith(parent + ".") for parent in parents)


def expand(network: nn.Module, patterns: Iterable[str], what: str) -> list[str]:
    """Expand patterns to module paths in definition order; one ``*`` does not cross a dot.

    Raises:
        ConfigError: A pattern matches no module.
    """
    names = [name for name, _ in network.named_modules() if name]
    found: list[str] = []
    for pattern in patterns:
        if pattern == "":  # the whole network as one block
            matches = [""]
        else:
            depth = pattern.count(".")
            matches = [name for name in names if name.count(".") == depth and fnmatchcase(name, pattern)]
        if not matches:
            raise ConfigError(f"{what}: {pattern!r} matches no module of {type(network).__name__}; check the paths")
        found.extend(name for name in matches if name not in found)
    return found


def resolve(network: nn.Module, partition: Partition) -> Partition:
    """Return the partition with every pattern expanded and checked.

    Raises:
        ConfigError: A pattern matches nothing, blocks overlap, or a layer is in no block and not declared float.
    """
    floats = expand(network, partition.float_modules, "float_modules")
    blocks = expand(network, partition.blocks, "blocks")
    for i, block in enumerate(blocks):
        if block and inside(block, blocks[:i] + blocks[i + 1 :]):
            raise ConfigError(f"blocks: {block!r} lies inside another block; a layer belongs to one block")
    if "" not in blocks:
        for name, module in network.named_modules():
            if isinstance(module, QUANTIZABLE) and not inside(name, [*blocks, *floats]):
                raise ConfigError(f"layer {name!r} is in no block: add its block, or declare it in float_modules")
    branches = {}
    for pattern, channels in partition.branches.items():
        for path in expand(network, [pattern], "branches"):
            layer = network.get_submodule(path)
            if not isinstance(layer, nn.Conv2d) or layer.in_channels != sum(channels):
                raise ConfigError(f"branches: {path!r} does not take {sum(channels)} channels {tuple(channels)}")
            branches[path] = tuple(channels)
    edges = tuple(expand(network, partition.edge_layers, "edge_layers"))
    return Partition(tuple(blocks), tuple(floats), edges, branches)


def layers(network: nn.Module, partition: Partition) -> dict[str, nn.Module]:
    """Quantizable layers by path, in definition order, without those inside float modules."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, QUANTIZABLE) and not inside(name, partition.float_modules)
    }


def block_of(path: str, blocks: Iterable[str]) -> str:
    """The block that holds a layer. Raises KeyError when none does."""
    for block in blocks:
        if block == "" or inside(path, [block]):
            return block
    raise KeyError(path)
