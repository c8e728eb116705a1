"""What the shell offers to complete: names that are known without importing torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer


def recipe_references(incomplete: str) -> Iterator[str]:
    """Yield the packaged recipes, recipe files and folders that begin so."""
    from prunec.recipe import packaged_recipes

    yield from _beginning(packaged_recipes(), incomplete)
    for path in sorted(Path(incomplete + "x").parent.iterdir()):
        if path.suffix == ".toml" or path.is_dir():
            yield from _beginning([f"{path}/" if path.is_dir() else str(path)], incomplete)


def packaged_names(incomplete: str) -> Iterator[str]:
    """Yield the packaged recipes that begin so."""
    from prunec.recipe import packaged_recipes

    return _beginning(packaged_recipes(), incomplete)


def run_names(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the runs that begin so, of the folder that the command line names."""
    from prunec.store.runs import run_folders, runs_root

    named = context.params.get("runs") or context.params.get("root")
    root = runs_root(Path(named) if named else None)
    return _beginning([run.name for run in run_folders(root)], incomplete)


def data_names(incomplete: str) -> Iterator[str]:
    """Yield the data sets that begin so."""
    from prunec.cli.starter import DATA

    return _beginning(DATA, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> Iterator[str]:
    return (name for name in names if name.startswith(incomplete))
