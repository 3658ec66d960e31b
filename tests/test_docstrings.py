"""What a docstring must be, as far as a program can tell: sentences with a subject, and a word on every argument."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "ptq4vm"
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

FEWEST_WORDS = 3
DANGLING = {"And", "As", "Of", "Or", "It", "Its"}
"""What a sentence does not begin with when its subject was left out (``Of a clip.``, ``It.``)."""
SECTIONS = ("Args:", "Attributes:")

Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def faults(docstring: str) -> list[str]:
    """What is wrong with a docstring, dedented; nothing for a good one."""
    summary = " ".join(docstring.split("\n\n")[0].split())
    found = [] if summary.endswith((".", ":", "?", "!")) else [f"no full stop: {summary}"]
    return found + [
        f"{fault}: {text}"
        for text in (summary, *_entries(docstring))
        if (fault := _fault(text.partition(": ")[2] if text != summary else text))
    ]


def _fault(text: str) -> str:
    if re.match(r"(See|From|As) :\w+:`", text):  # whatever it refers to says more
        return ""
    words = text.split()
    if len(words) < FEWEST_WORDS:
        return "too short"
    return "no subject" if words[0].rstrip(",:") in DANGLING else ""


def _entries(docstring: str) -> Iterator[str]:
    """``name: text`` of every argument and attribute, on one line."""
    inside = False
    entry = ""
    for line in [*docstring.splitlines(), "end"]:
        if entry and not line.startswith(" " * 8):
            yield entry
            entry = ""
        if line and not line.startswith(" "):
            inside = line in SECTIONS
        elif inside and re.match(r" {4}\S", line):
            entry = line.strip()
        elif entry:
            entry += " " + line.strip()


def _documented(node: Node, name: str) -> Iterator[tuple[str, str]]:
    """Every public name below a module or class, with its docstring."""
    docstring = ast.get_docstring(node)
    if docstring:
        yield name, docstring
    for child in node.body if isinstance(node, (ast.Module, ast.ClassDef)) else ():
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and child.name[0] != "_":
            yield from _documented(child, f"{name}:{child.name}")


@pytest.mark.parametrize(
    ("docstring", "words"),
    [
        ("Mean of the values that are known.\n\nArgs:\n    values: Numbers, any shape.", ""),
        ("Take frames, in order.\n\nArgs:\n    frames: Composites of one\n        clip.\n\nReturns:\n    A list.", ""),
        ("See :meth:`Reader.read`.\n\nArgs:\n    plan: From :func:`make_plan`.", ""),
        ("Of one layer.", "no subject"),
        ("It.", "too short"),
        ("The value without an end", "no full stop"),
        ("Write a file.\n\nArgs:\n    path: File.\n    text: Text of the file.", "too short: path"),
        ("A run of the sweep.\n\nAttributes:\n    name: Name of the run.\n    seed: Of everything random.", "seed"),
    ],
)
def test_the_rule_tells_bad_from_good(docstring, words):
    found = faults(docstring)
    assert words in found[0] if words else not found


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_sentences(module):
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    found = [f"{name}: {fault}" for name, text in _documented(tree, module) for fault in faults(text)]
    assert not found, "\n" + "\n".join(found)
