"""``ptq4vm data check``: what a data set holds, what is wrong or odd about it, and a page of pictures."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command
from ptq4vm.data.checks import ClipFacts, Findings
from ptq4vm.data.checks import check as look_through
from ptq4vm.errors import DataError
from ptq4vm.io import write_json
from ptq4vm.report.contact import write_contact_sheet

FINDINGS, CONTACT = "check.json", "contact.png"
_SHOWN = 20  # lines of each kind in the terminal


def check(cfg: DictConfig) -> None:
    """Check ``data``; writes ``check.json`` and ``contact.png`` to the run folder.

    Raises:
        DataError: Something cannot be used; every line of it has been printed.
    """
    build.check(cfg)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    found = look_through(build.data(cfg))
    pictures = write_contact_sheet(run_dir / CONTACT, found)
    write_json(run_dir / FINDINGS, found.as_json())
    console = Console()
    console.print(_table(found))
    for title, lines in (("odd", found.oddities), ("fault", found.faults)):
        for line in lines[:_SHOWN]:
            console.print(f"{title}: {line}", soft_wrap=True, markup=False, highlight=False)
        if len(lines) > _SHOWN:
            console.print(f"{title}: {len(lines) - _SHOWN} more in {run_dir / FINDINGS}", soft_wrap=True)
    console.print(f"{f'pictures: {run_dir / CONTACT}; ' if pictures else ''}all: {run_dir / FINDINGS}", soft_wrap=True)
    if found.faults:
        raise DataError(f"{found.faults[0]} (1 of {len(found.faults)} faults)")


def _table(found: Findings) -> Table:
    table = Table(title="data", title_justify="left")
    for name in ("part", "clips", "frames", "frames of a clip", "sizes", "range"):
        table.add_column(name, justify="left" if name in ("part", "sizes", "range") else "right")
    for part, clips in found.parts.items():
        table.add_row(part, *_row(clips))
    return table


def _row(clips: list[ClipFacts]) -> list[str]:
    if not clips:
        return ["0", "0", "", "", ""]
    counts = [clip.frames for clip in clips]
    sizes = sorted({clip.size for clip in clips})
    shown = ", ".join(f"{w}x{h}" for h, w in sizes[:4]) + (f", {len(sizes) - 4} more" if len(sizes) > 4 else "")
    spread = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    named = [clip for clip in clips if clip.first]
    span = f"{min(c.first for c in named)} to {max(c.last for c in named)}" if named else ""
    return [str(len(clips)), str(sum(counts)), spread, shown, span]


COMMANDS = (hydra_command("data check", check),)
