"""Results as text: CSV, Markdown, and a table for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields

from rich.table import Table

from prunec.charts.scales import short, size
from prunec.comparison.results import Result, Row, quality_of
from prunec.tables import listing
from prunec.wording import duration, percent

NONE = "—"
_TOO_WIDE = "training"
"""Column that does not fit into a terminal of 80 columns."""


def columns_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the names of the columns, with that of the measure of quality."""
    return (
        "recipe", "sparsity", quality_of(rows), "MACs", "non-zero MACs", "file", "latency",
        "training", "proven",
    )  # fmt: skip


def numbers_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns of numbers."""
    return columns_of(rows)[1:8]


def to_csv(items: Sequence[Result] | Sequence[Row], kind: type[Result] | type[Row]) -> str:
    """Return CSV with one line per item under the names of its fields; unknown values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    quality = quality_of(items).lower()
    names = [field.name for field in fields(kind)]
    # The column is called by what it holds: miou for segmentation.
    writer.writerow([quality if name == "accuracy" else name for name in names])
    writer.writerows(astuple(item) for item in items)
    return text.getvalue()


def cells_of(row: Row) -> tuple[str, ...]:
    """Return a row as formatted texts, one per column of `columns_of`."""
    return (
        row.method,
        sparsity_text(row),
        accuracy_text(row),
        _short(row.macs),
        _short(row.nonzero_macs),
        NONE if row.bytes is None else size(round(row.bytes)),
        NONE if row.latency is None else f"{row.latency:.3f}",
        NONE if row.seconds is None else duration(row.seconds),
        proven_text(row),
    )


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    columns, numbers = columns_of(rows), numbers_of(rows)
    lines = [columns, tuple("---:" if name in numbers else "---" for name in columns)]
    lines += [cells_of(row) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_rich(rows: Sequence[Row], title: str) -> Table:
    """Return the table for a terminal of 80 columns, with a line between recipes."""
    columns = [name for name in columns_of(rows) if name != _TOO_WIDE]
    made = listing(*columns, numbers=numbers_of(rows))
    made.title = title
    for column in made.columns:
        column.header = str(column.header).replace(" ", "\n")
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1].method != row.method
        cells = dict(zip(columns_of(rows), cells_of(row), strict=True))
        made.add_row(*(cells[name] for name in columns), end_section=last)
    return made


def accuracy_text(row: Row) -> str:
    """Return mean ± deviation in percent, with the number of seeds if some have no value."""
    if row.accuracy is None:
        return NONE
    deviation = "" if row.deviation is None else f" ± {row.deviation:.2f}"
    seeds = f" ({row.n} of {row.cells})" if row.n < row.cells else ""
    return f"{row.accuracy:.2f}{deviation} %{seeds}"


def sparsity_text(row: Row) -> str:
    """Return the measured sparsity, or else the target in parentheses."""
    if row.sparsity is not None:
        return share_text(row.sparsity)
    return NONE if row.asked is None else f"({share_text(row.asked)})"


def share_text(share: float) -> str:
    """Return a share in percent, with more digits close to 100 %: 99.9 % and 99.99 % differ."""
    digits = 1 if share < 0.99 else 2 if share < 0.9999 else 3
    return percent(share, digits)


def proven_text(row: Row) -> str:
    """Return ``yes`` if every cell was proven, else the numbers of proven and failed ones."""
    if row.proven == row.cells:
        return "yes"
    failed = f", {row.failed} failed" if row.failed else ""
    return f"{row.proven} of {row.cells}{failed}"


def _short(value: float | None) -> str:
    return NONE if value is None else short(value)
