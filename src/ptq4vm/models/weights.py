"""Finds, verifies and caches pretrained weights."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from safetensors.torch import load_file

from ptq4vm.models.rvm.network import RVM


def default_cache_dir() -> Path:
    """``$PTQ4VM_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("PTQ4VM_CACHE") or platformdirs.user_cache_path("ptq4vm"))


def load_rvm(variant: str, weights: str | Path | None = None, refiner: str | None = None) -> RVM:
    """Build RVM with pretrained weights, in eval mode (interim version: reads the cache only)."""
    state = load_file(weights or default_cache_dir() / "weights" / f"rvm_{variant}.safetensors")
    deep = any(key.startswith("refiner.") for key in state)
    network = RVM(variant, refiner or ("deep_guided_filter" if deep else "fast_guided_filter"))
    network.load_state_dict(state)
    return network.eval()
