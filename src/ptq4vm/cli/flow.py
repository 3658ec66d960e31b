"""``ptq4vm flow``: compute the optical flow that ``quantize`` with the same values will ask for."""

from __future__ import annotations

import time
from dataclasses import asdict

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command
from ptq4vm.data.base import NeedsTruth
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.errors import ConfigError
from ptq4vm.flow.base import SourceFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.flow.entries import cache_size
from ptq4vm.io import default_cache_dir
from ptq4vm.pipeline.teacher import make_truth


def flow(cfg: DictConfig) -> None:
    """Fill the flow cache; prints how much of it was there, and its size."""
    build.quiet()
    options = build.check(cfg)
    provider = instantiate(cfg.flow)
    if isinstance(provider, SourceFlow):
        raise ConfigError(f"flow={provider.name} is known by the clips themselves; there is nothing to compute")
    cache = FlowCache(default_cache_dir() / "flow", provider, limit_mib=options.flow_cache_mib)
    data = build.data(cfg)
    if isinstance(data, NeedsTruth):
        model = build.model(cfg)
        make_truth(data, model.network, model.partition, options.downsample_ratio)
    calibration = asdict(build.preset(cfg).calibration)
    module = MattingDataModule(
        data,
        cache,
        **calibration,
        memory_mib=options.memory_mib,
        seed=options.seed,
        augmentation=build.augmentation(cfg),
    )
    began = time.perf_counter()
    module.fill_flow(options.whole_clips)
    seconds, asked = time.perf_counter() - began, cache.hits + cache.misses
    entries, size = cache_size(cache.root)
    rate = f"{100 * cache.hits / asked:.0f}%" if asked else "–"
    Console().print(
        f"{provider.name}: {asked} segments, {cache.hits} were there ({rate}), "
        f"{cache.misses} computed in {seconds:.1f} s\n"
        f"{cache.root}: {entries} entries, {size / 2**20:.1f} MiB",
        soft_wrap=True,
        highlight=False,
    )


COMMANDS = (hydra_command("flow", flow),)
