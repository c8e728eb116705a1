"""The command, and what its folder holds."""

from __future__ import annotations

from pathlib import Path

from test_end_to_end import prunec

from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import Grid
from prunec.comparison.results import Result, read_results


def compare(*arguments: object, code: int = 0) -> str:
    answer = prunec("compare", *map(str, arguments), code=code)
    return answer.text + answer.errors


def results_of(folder: Path, grid: Grid) -> tuple[Result, ...]:
    return read_results(grid.cells, ComparisonFolder(folder))
