"""``ptq4vm compose``: write an evaluation set of foregrounds over backgrounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command, plain
from ptq4vm.data.clips.backgrounds import BackgroundClip, BackgroundFolder, BackgroundSource
from ptq4vm.data.clips.foregrounds import ForegroundSource
from ptq4vm.data.compose import ComposeSettings, plan, write_set
from ptq4vm.errors import ConfigError
from ptq4vm.media.video_file import VideoFile
from ptq4vm.version import __version__


@dataclass(frozen=True)
class ComposeOptions:
    """Values at the top of ``compose.yaml``, which explains them."""

    out: str
    name: str | None
    split: str
    static: str | None
    motion: str | None
    size: tuple[int, int]
    frames: int
    clips: int
    format: str
    seed: int
    num_workers: int


def compose(cfg: DictConfig) -> None:
    """Compose the evaluation set of a configuration."""
    options = build.check_options(ComposeOptions, cfg)
    chosen = ComposeSettings(options.size, options.frames, options.clips, options.format, options.seed)
    if options.split not in ("train", "valid", "test"):
        raise ConfigError(f"split={options.split} is unknown: use train, valid or test")
    if options.num_workers < 0:
        raise ConfigError(f"num_workers must be at least 0, not {options.num_workers}")
    data = build.data(cfg)
    group = str(HydraConfig.get().runtime.choices["data"])
    if not isinstance(data, ForegroundSource):
        raise ConfigError(f"data={group} has no foregrounds to compose: use videomatte240k, videomatte, d646 or aim")
    foregrounds = data.foregrounds(options.split)
    plans = plan(foregrounds, _subsets(options, getattr(data, "source", None), options.name or group), chosen)
    notes = {"version": __version__, "data": plain(cfg.data), "split": options.split}
    written = write_set(options.out, plans, chosen, options.num_workers, notes=notes)
    frames = sum(clip.frames for clip in plans)
    console = Console()
    console.print(f"{len(plans)} clips, {frames} frames, {written} written now: {Path(options.out)}", soft_wrap=True)


def _subsets(options: ComposeOptions, own: BackgroundSource | None, name: str) -> dict[str, tuple[BackgroundClip, ...]]:
    """Backgrounds of each subset; the data set's own are static where they have one frame each."""
    given = {"static": options.static, "motion": options.motion}
    kinds = {"static": "image", "motion": "video"}
    found = {
        f"{name}_{kind}": BackgroundFolder(Path(folder).expanduser(), kinds[kind]).backgrounds("test")
        for kind, folder in given.items()
        if folder is not None
    }
    if found:
        return found
    if own is None:
        raise ConfigError("there are no backgrounds: give static= and motion= folders")
    backgrounds = own.backgrounds("test")
    still = not isinstance(backgrounds[0].frames, VideoFile) and len(backgrounds[0].frames) == 1
    return {f"{name}_{'static' if still else 'motion'}": backgrounds}


COMMANDS = (hydra_command("compose", compose, "compose"),)
