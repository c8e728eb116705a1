"""A comparison from grid to page: run the cells that are left, then write everything again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console

from prunec.batches.data import load_data
from prunec.comparison.folder import ComparisonFolder, steps_left
from prunec.comparison.grid import Cell, Grid
from prunec.comparison.machine_shares import described_shares, shares
from prunec.comparison.pool import work_off
from prunec.comparison.results import Result, aggregated, read_results
from prunec.comparison.tables import to_rich
from prunec.comparison.watch import Watch
from prunec.comparison.write import write_all
from prunec.errors import Interrupted
from prunec.pipeline import prepare
from prunec.training.progress import SilentProgress


class Cluster(Protocol):
    """Several machines that share the comparison's folder."""

    def described(self) -> str:
        """Return a description for the screen."""

    def work_off(self, cells: Sequence[Cell], watch: Watch, ended: Callable[[], None]) -> None:
        """Run cells; one that fails does not stop the others.

        Raises:
            Interrupted: SIGINT or SIGTERM came; cells have saved their progress.
        """


OFTEN = 60.0  # least seconds between two updates of the page while cells run: each reads all runs


def compare(
    grid: Grid,
    folder: ComparisonFolder,
    *,
    jobs: int | None,
    command: Sequence[str],
    console: Console,
    cluster: Cluster | None = None,
) -> tuple[Result, ...]:
    """Run the unfinished cells of a grid, write tables, plots and page, and print the table.

    Args:
        grid: the cells.
        folder: folder of the comparison; finished cells in it are kept.
        jobs: cells that run at once; None for as many as cores or GPUs allow.
        command: the command line, for the record.
        console: console for progress and table.
        cluster: where cells run; None for this machine.

    Returns:
        The result of every cell.

    Raises:
        Interrupted: a signal arrived; running cells were saved, results were written.
        DataError: the data are missing or wrong.
        RunError: another process works on the folder, or it cannot be written.
    """
    require_ready(cells_left(grid.cells, folder))  # before the folder is made
    with folder.held():
        folder.write_record(grid, command)
        left = cells_left(grid.cells, folder)
        _announce(grid, folder, left, console)
        try:
            if left:
                _run(grid, folder, left, jobs, console, cluster)
        except Interrupted as error:
            error.remedy = "Repeat the same command to continue."
            raise
        finally:
            # Also after Ctrl-C: what is finished is on the page.
            results = read_results(grid.cells, folder)
            write_all(results, folder)
    rows = aggregated(results)
    console.print(to_rich(rows, "Means over seeds"))
    console.print(f"Report: {folder.path / 'report.html'}", soft_wrap=True, highlight=False)
    return results


def require_ready(cells: Sequence[Cell]) -> None:
    """Check that the training of every recipe can start, before hours of work.

    The data are the same for all cells and are loaded once; the first cell of each recipe is tried.

    Raises:
        PrunecError: as :func:`prunec.pipeline.prepare`.
    """
    if not cells:
        return
    data = load_data(cells[0].recipe.data, seed=0)
    progress = SilentProgress(Console(quiet=True))
    # One cell per recipe, its first: sparsity and seed do not decide whether it can start.
    for cell in {cell.method: cell for cell in reversed(cells)}.values():
        device = cell.recipe.device
        prepare(cell.recipe, cell.reference, device=device, progress=progress, data=data)


def cells_left(cells: Sequence[Cell], folder: ComparisonFolder) -> list[Cell]:
    """Return the cells that are not finished."""
    runs = folder.existing(cells)
    return [cell for cell in cells if cell.name not in runs or steps_left(runs[cell.name])]


def _announce(grid: Grid, folder: ComparisonFolder, left: Sequence[Cell], console: Console) -> None:
    done = len(grid.cells) - len(left)
    cells = f"{len(grid.cells)} cell{'' if len(grid.cells) == 1 else 's'}"
    lines = [
        f"Comparison: {folder.path}, {cells}, {done} done, {len(left)} left",
        *grid.notes,
        *(
            f"{run.name}: its recipe has changed since, so the run is ignored."
            for run in folder.outdated(grid.cells)
        ),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _run(
    grid: Grid,
    folder: ComparisonFolder,
    left: Sequence[Cell],
    jobs: int | None,
    console: Console,
    cluster: Cluster | None,
) -> None:
    written = time.monotonic()

    def ended() -> None:
        nonlocal written
        if time.monotonic() - written > OFTEN:
            write_all(read_results(grid.cells, folder), folder)
            written = time.monotonic()

    with Watch(console, grid.cells, left, folder) as watch:
        if cluster:
            watch.say(f"Running on {cluster.described()}")
            cluster.work_off(left, watch, ended)
            return
        given = shares(grid.cells, jobs)
        watch.say(f"Running {described_shares(given)}")
        work_off(left, folder, given, watch, lambda _: ended())
