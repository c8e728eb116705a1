"""Cells that are started by hand, on any machine: their commands, and a run of a single one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from prunec.comparison.compare import cells_left, require_ready
from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import Cell, Grid
from prunec.comparison.machine_shares import shares
from prunec.comparison.pool import work_off
from prunec.comparison.results import Result, read_results
from prunec.comparison.watch import Watch
from prunec.errors import Interrupted, UsageError


@dataclass(frozen=True)
class Arguments:
    """Arguments of a comparison, as they are passed to another process.

    Attributes:
        recipes: files or packaged names.
        sparsity: shares of zeros, separated by commas; empty for each recipe's own.
        seeds: number of runs per cell.
        changes: overrides, ``key=value`` each.
        folder: folder of the comparison.
    """

    recipes: tuple[str, ...]
    sparsity: str
    seeds: int
    changes: tuple[str, ...]
    folder: Path

    def command(self, cell: str) -> list[str]:
        """Return the arguments of ``prunec`` that run one cell, from any working folder."""
        files = [Path(recipe) for recipe in self.recipes]
        recipes = [str(file.resolve()) if file.is_file() else str(file) for file in files]
        sparsity = ["--sparsity", self.sparsity] if self.sparsity else []
        changes = [word for change in self.changes for word in ("--set", change)]
        folder = str(self.folder.resolve())
        rest = [*sparsity, "--seeds", str(self.seeds), *changes, "-o", folder, "--cell", cell]
        return ["compare", *recipes, *rest]


def commands_left(grid: Grid, folder: ComparisonFolder, asked: Arguments) -> list[list[str]]:
    """Return the arguments of ``prunec`` for each unfinished cell."""
    return [asked.command(cell.name) for cell in cells_left(grid.cells, folder)]


def run_cell(grid: Grid, folder: ComparisonFolder, name: str, console: Console) -> Result:
    """Train, export and verify one cell; wait if another process works on it.

    Args:
        grid: the cells.
        folder: folder of the comparison, which machines may share.
        name: name of the cell.
        console: receives the progress.

    Raises:
        UsageError: there is no such cell.
        Interrupted: a signal ended the run; its progress is saved.
        DataError: the data are missing or wrong.
    """
    cell = _named(grid.cells, name)
    left = cells_left([cell], folder)
    require_ready(left)
    try:
        with Watch(console, [cell], left, folder) as watch:
            work_off(left, folder, shares([cell], 1), watch, lambda _: None)
    except Interrupted as error:
        error.remedy = "The same command continues."
        raise
    return read_results([cell], folder)[0]


def _named(cells: Sequence[Cell], name: str) -> Cell:
    cell = next((each for each in cells if each.name == name), None)
    if cell is None:
        names = ", ".join(cell.name for cell in cells[:12])  # one or two lines of 80 columns
        raise UsageError(f"--cell {name}: there is no such cell", remedy=f"Cells: {names}.")
    return cell
