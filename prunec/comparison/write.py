"""Writing of tables, plot and page into the folder of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.page import page_text
from prunec.comparison.plot import plot_file
from prunec.comparison.results import Result, Row, aggregated
from prunec.comparison.tables import to_csv, to_markdown
from prunec.files import write_text_atomic


def write_all(results: Sequence[Result], folder: ComparisonFolder) -> None:
    """Write tables, plot and page, each atomically.

    Raises:
        RunError: a file cannot be written.
    """
    rows = aggregated(results)
    write_text_atomic(folder.path / "results.csv", to_csv(results, Result))
    write_text_atomic(folder.path / "table.csv", to_csv(rows, Row))
    write_text_atomic(folder.path / "table.md", to_markdown(rows))
    write_text_atomic(folder.path / "plot.svg", plot_file(rows))
    write_text_atomic(folder.path / "report.html", page_text(results, rows, folder))
