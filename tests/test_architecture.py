"""Rules of the house: no import runs up, the core names no plug-in, files stay rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "prunec").rglob("*.py"))

# What a layer may not import: everything that stands on it.
LAYERS = [
    "errors", "models", "inputs", "graph", "cost", "ranks", "tasks", "datasets", "training",
    "sparsity", "parity", "compile_report", "inspection", "layer_tree", "page", "pipeline", "api",
    "comparison", "cli",
]  # fmt: skip


def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it; those for type checkers alone left out."""
    tree = ast.parse(path.read_text("utf-8"))
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_names_no_plug_in(path: Path) -> None:
    plug_ins = {"prunec.passes", "prunec.exporters"}
    assert not {name for name in imports(path) for p in plug_ins if name.startswith(p)}


@pytest.mark.parametrize("layer", LAYERS[:-1])
def test_no_import_runs_up(layer: str) -> None:
    above = {f"prunec.{name}" for name in LAYERS[LAYERS.index(layer) + 1 :]}
    # cost stands on graph, and verify on training's data; the others are strictly layered
    files = [
        p for p in CORE if p.relative_to(ROOT / "prunec").parts[0].removesuffix(".py") == layer
    ]
    assert files
    for path in files:
        up = {n for n in imports(path) for a in above if n == a or n.startswith(f"{a}.")}
        assert not up, f"{path} imports {up}"


def test_plug_ins_keep_their_names_free() -> None:
    for name in ("passes", "exporters", "recipes"):
        assert not (ROOT / "prunec" / name).exists()
        assert not (ROOT / "prunec" / f"{name}.py").exists()


def test_every_package_is_listed() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for folder in {p.parent for p in CORE}:
        assert f'"{".".join(folder.relative_to(ROOT).parts)}"' in text


def test_every_module_says_what_it_is() -> None:
    for path in [*CORE, *(ROOT / "passes").glob("*.py"), *(ROOT / "exporters").glob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
