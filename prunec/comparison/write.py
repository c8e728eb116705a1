"""Everything that is made of results, written into the folder of the comparison."""

from __future__ import annotations

from collections.abc import Sequence

from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.page import page_text
from prunec.comparison.plot import plot_files
from prunec.comparison.results import Result, Row, aggregated
from prunec.comparison.tables import to_csv, to_markdown
from prunec.files import write_bytes_atomic, write_text_atomic


def write_all(results: Sequence[Result], folder: ComparisonFolder) -> None:
    """Write tables, plots and page, each whole or not at all.

    Raises:
        RunError: a file cannot be written.
    """
    rows = aggregated(results)
    write_text_atomic(folder.path / "results.csv", to_csv(results, Result))
    write_text_atomic(folder.path / "table.csv", to_csv(rows, Row))
    write_text_atomic(folder.path / "table.md", to_markdown(rows))
    png, svg = plot_files(rows)
    write_bytes_atomic(folder.path / "plot.png", png)
    write_bytes_atomic(folder.path / "plot.svg", svg)
    write_text_atomic(folder.path / "report.html", page_text(results, rows, folder))
