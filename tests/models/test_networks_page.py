"""The page on networks: its example is a whole family, and runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from commands import SIZE, as_found, draw_clip, draw_folder_clip
from networks import randomize
from ptq4vm import settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


def test_every_network_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = [path.stem for path in (settings.config_folder() / "model").glob("*.yaml")]
    assert len(names) > 4 and [name for name in names if f"`{name}`" not in text] == []


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    family, use = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType("mine")
    exec(compile(family, "mine.py", "exec", dont_inherit=True), vars(module))  # noqa: S102
    clips, large = tmp_path / "clips", (256, 256)  # as the preset cuts them
    draw_clip({kind: clips / "train" / kind / "a" for kind in ("fgr", "pha")}, 0, size=large)
    for name in "abc":
        draw_clip({"background": clips / "backgrounds" / name}, ord(name), size=large)
    draw_folder_clip(clips / "eval" / "set" / "a", 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = module.Mine()
    save_file(randomize(network, 0).state_dict(), tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    values = {"frame": np.full((*SIZE, 3), 100, np.uint8)}
    with as_found(tmp_path / "cache"):
        exec(compile(use, "use.py", "exec", dont_inherit=True), values)  # noqa: S102
    assert values["alpha"].shape == SIZE and (tmp_path / "runs" / "mine" / "quantizer.yaml").is_file()
