"""``ptq4vm sensitivity``: what each layer's weights and each stored tensor cost when they alone are quantized."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from ptq4vm import api
from ptq4vm.cli import build
from ptq4vm.cli.app import hydra_command
from ptq4vm.errors import ConfigError
from ptq4vm.io import write_text
from ptq4vm.methods.sensitivity import Item, Sensitivity

FILE = "sensitivity.csv"
_SHOWN = 20


def sensitivity(cfg: DictConfig) -> None:
    """Measure, print the items that cost the most, and write all of them to ``sensitivity.csv``."""
    build.quiet()
    options = build.check(cfg)
    _, spec = build.method(cfg)
    if spec.is_float:
        raise ConfigError("bits=fp32 quantizes nothing: give bits=wXaY")
    budget = build.budget(cfg)
    found = api.sensitivity(
        build.model(cfg),
        build.data(cfg),
        bits=spec,
        preset=build.preset(cfg),
        widths=budget.measured,
        seed=options.seed,
        edges=budget.free_edges,
    )
    path = Path(HydraConfig.get().runtime.output_dir) / FILE
    write_text(path, as_csv(found))
    console = Console()
    console.print(_table(found))
    console.print(f"written to {path}", soft_wrap=True)


def as_csv(found: Sensitivity) -> str:
    """One line for every item and bit-width: kind, name, elements, bits, mean absolute error of alpha."""
    lines = ["kind,name,elements,bits,alpha_error"]
    for kind, name, item in _listed(found):
        lines += [f"{kind},{name},{item.elements:.0f},{bits},{error:.6g}" for bits, error in item.errors.items()]
    return "\n".join(lines) + "\n"


def _listed(found: Sensitivity) -> Iterator[tuple[str, str, Item]]:
    """Kind, name and figures of every item, weights first."""
    for kind, items in (("weight", found.weights), ("activation", found.activations)):
        for name, item in items.items():
            yield kind, name, item


def _table(found: Sensitivity) -> Table:
    rows = [
        (max(item.errors.values()), kind, name, item.elements) for kind, name, item in _listed(found) if item.errors
    ]
    table = Table(title="What moves alpha the most, alone at its fewest bits")
    for heading in ("", "layer or stored tensor", "elements", "error of alpha x1e3"):
        table.add_column(heading, justify="left" if heading in ("", "layer or stored tensor") else "right")
    for error, kind, name, elements in sorted(rows, reverse=True)[:_SHOWN]:
        table.add_row(kind, name, f"{elements:.0f}", f"{1e3 * error:.3f}")
    return table


COMMANDS = (hydra_command("sensitivity", sensitivity),)
