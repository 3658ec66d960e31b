"""What is said twice outside ``src/`` agrees: versions, dependencies, types, recipes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ptq4vm.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {
    "pytorch-lightning": "pytorch_lightning",
    "hydra-core": "hydra",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}


def name(requirement: str) -> str:
    return re.split(r"[\[<>=~; ]", requirement)[0].lower()


def imported() -> set[str]:
    """Top-level modules that ``src/`` imports anywhere."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def test_every_dependency_is_imported() -> None:
    needed = {IMPORTED_AS.get(name(each), name(each)) for each in PROJECT["dependencies"]}
    assert needed <= imported()


def test_every_dependency_has_the_version_that_figures_were_made_with() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {name(line) for line in lines if "==" in line}
    asked = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    free = {"ptq4vm", "types-pyyaml", "torchvision"}
    assert {name(each) for each in asked} - pinned <= free


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__ and cited["license"] == PROJECT["license"]
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_types_are_shipped() -> None:
    assert (ROOT / "src" / "ptq4vm" / "py.typed").is_file()


def test_make_help_lists_what_can_be_made() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("venv", "demo", "lint", "docs", "test", "hooks", "clean"):
        assert re.search(rf"^  make {target} ", done.stdout, re.MULTILINE), target


def test_hooks_run_what_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "a hook fetches nothing"
    programs = {Path(hook["entry"].split()[0]).name for repo in hooks for hook in repo["hooks"]}
    assert programs == {"ruff", "mypy", "lint-imports"}


def links() -> list[tuple[str, str]]:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    return [
        (page.relative_to(ROOT).as_posix(), target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    ]


@pytest.mark.parametrize(("page", "target"), links())
def test_links_between_documents_lead_somewhere(page: str, target: str) -> None:
    assert (ROOT / page).parent.joinpath(target).exists()


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_documents_name_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:src/ptq4vm/)?([a-z_]+(?:/[a-z_0-9]+)+\.py)[`:]", text))
    assert len(named) > 3
    missing = [each for each in named if not any((ROOT / place / each).is_file() for place in ("", "src/ptq4vm"))]
    assert not missing
