"""Language of the code: how docstrings begin, and names that say nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("prunec", "passes", "exporters", "tests")

# Folders and files whose rewording is not finished: whoever finishes one takes its line out.
NOT_YET = """
""".split()

# An opening relative clause says what a thing is like before it says what the thing is.
OPENING = re.compile(r"\W*(what|which|whose|those|who|whom|where|as many)\b", re.IGNORECASE)
# Says only that a search succeeded, not which thing it holds.
EMPTY_NAMES = frozenset({"found"})


def documented(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable that is assigned, and of every parameter; no fields."""
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    fields = {x.target for kind in classes for x in kind.body if isinstance(x, ast.AnnAssign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def faults(source: str) -> list[str]:
    """`line: what` for every docstring and every name that breaks a rule."""
    tree = ast.parse(source)
    texts = [
        f"{line}: a docstring begins with {text.split()[0]!r}"
        for line, text in documented(tree)
        if OPENING.match(text)
    ]
    names = [
        f"{line}: a variable is named {name!r}" for line, name in named(tree) if name in EMPTY_NAMES
    ]
    return texts + names


def is_open(path: Path) -> bool:
    """Return whether a file, or a folder above it, is in the list of unfinished ones."""
    return any(path == ROOT / place or ROOT / place in path.parents for place in NOT_YET)


def test_docstrings_and_names() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{fault}"
        for folder in CODE
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not is_open(path)
        for fault in faults(path.read_text("utf-8"))
    ]
    assert not broken, "\n".join(broken)


def test_what_is_not_finished_exists() -> None:
    for place in NOT_YET:
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""What counts are worth."""', "1: a docstring begins with 'What'"),
        ('def f():\n    """Whose: x."""', "2: a docstring begins with 'Whose:'"),
        ('class C:\n    """`which` node."""', "2: a docstring begins with '`which`'"),
        ("if (found := f()):\n    pass", "1: a variable is named 'found'"),
        ("for a, (b, found) in c:\n    pass", "1: a variable is named 'found'"),
        ("def f(found):\n    pass", "1: a variable is named 'found'"),
    ],
)
def test_a_broken_rule_is_seen(source: str, fault: str) -> None:
    assert faults(source) == [fault]


def test_good_language_passes() -> None:
    assert not faults('"""Whatever is left."""\ndef f(founded):\n    """Theses, whole."""\n')
    assert not faults("class Check:\n    found: int\n")
