"""Rules about the source itself: which way imports point, and what no file may contain."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 350

SERIALIZERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def _called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def _prints(node: ast.AST) -> bool:
    return _called(node) == "print"


def _loads_pickles(node: ast.AST) -> bool:
    """``torch.load`` (under any name that ends so) unless ``weights_only=True`` is written out."""
    if not isinstance(node, ast.Call) or not (_called(node) == "torch.load" or _called(node).endswith(".torch.load")):
        return False
    return not any(keyword.arg == "weights_only" and _is_true(keyword.value) for keyword in node.keywords)


def _imports_serializer(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in SERIALIZERS for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        hidden_load = node.module == "torch" and any(alias.name in ("load", "save") for alias in node.names)
        return hidden_load or (node.module or "").split(".")[0] in SERIALIZERS
    return False


def _saves_pickles(node: ast.AST) -> bool:
    return _called(node) == "torch.save"


def _touches_sys_path(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "sys":
        return any(alias.name == "path" for alias in node.names)
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"


def _replaces_forward(node: ast.AST) -> bool:
    """``x.forward = ...``, ``setattr(x, "forward", ...)`` and ``types.MethodType``."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    if any(isinstance(t, ast.Attribute) and t.attr in ("forward", "__call__") for t in targets):
        return True
    if isinstance(node, ast.Call) and _called(node) == "setattr" and len(node.args) > 1:
        name = node.args[1]
        return isinstance(name, ast.Constant) and name.value in ("forward", "__call__")
    return _called(node).endswith("MethodType")


def _broad_except(node: ast.AST) -> bool:
    """``except:``, ``except Exception`` or ``except BaseException`` that does not raise again."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = "" if node.type is None else ast.unparse(node.type)
    return caught in ("", "Exception", "BaseException") and not any(isinstance(n, ast.Raise) for n in ast.walk(node))


Rule = Callable[[ast.AST], bool]

RULES: dict[str, tuple[Rule, str, str]] = {  # rule, code that breaks it, code that is allowed
    "print": (_prints, "print('a')", "logger.info('a')"),
    "torch.load": (_loads_pickles, "torch.load(p, weights_only=False)", "torch.load(p, weights_only=True)"),
    "pickle": (_imports_serializer, "from pickle import load", "from json import load"),
    "torch.save": (_saves_pickles, "torch.save(x, p)", "write_tensors(p, x)"),
    "sys.path": (_touches_sys_path, "sys.path.insert(0, p)", "sys.argv.insert(0, p)"),
    "forward": (_replaces_forward, "layer.forward = closure", "layer.weight = closure"),
    "setattr forward": (_replaces_forward, "setattr(m, 'forward', f)", "setattr(m, name, f)"),
    "broad except": (
        _broad_except,
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept OSError:\n    pass",
    ),
}

# Where a rule does not hold, and why.
EXCEPTIONS = {
    ("pickle", "models/weights/files.py"),  # names the error that torch.load(weights_only=True) raises
    ("broad except", "quant/capture.py"),  # an error in a suspended thread is handed to the thread that waits for it
}


def _offences(rule: Rule, source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if rule(node):
            yield getattr(node, "lineno", 0)


@pytest.mark.parametrize("name", RULES)
def test_rules_tell_bad_from_good(name: str) -> None:
    rule, bad, good = RULES[name]
    assert list(_offences(rule, bad))
    assert not list(_offences(rule, good))


@pytest.mark.parametrize("name", RULES)
def test_sources_keep_the_rules(name: str) -> None:
    rule = RULES[name][0]
    found = []
    for path in SOURCES:
        relative = path.relative_to(ROOT / "src" / "ptq4vm").as_posix()
        if (name, relative) not in EXCEPTIONS:
            found += [f"{relative}:{line}" for line in _offences(rule, path.read_text(encoding="utf-8"))]
    assert not found, f"{name} in {', '.join(found)}"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{path.name} has {lines} lines: split it"


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in TESTS if path.name not in ("conftest.py", "__init__.py")]
    assert len(names) == len(set(names)), "pytest imports test files by name: two of them share one"


def test_imports_point_one_way() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout
