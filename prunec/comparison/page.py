"""Page of a comparison: one HTML file that opens offline, with links to the pages of its runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from prunec.charts.scales import short, size
from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.plot import inline_panels, legend, plot_css
from prunec.comparison.results import Result, Row, quality_of, quality_title
from prunec.comparison.tables import (
    NONE,
    cells_of,
    columns_of,
    numbers_of,
    share_text,
)
from prunec.page.page import CONTROL
from prunec.page.reproduce import called_as
from prunec.wording import duration


@dataclass(frozen=True)
class CellLine:
    """A row of the table of cells."""

    name: str
    link: str
    numbers: tuple[str, ...]
    state: str
    kind: str
    message: str


def page_text(results: Sequence[Result], rows: Sequence[Row], folder: ComparisonFolder) -> str:
    """Return the page as HTML; it refers only to the pages of the runs in the same folder."""
    record = folder.record
    text = _template().render(
        title=folder.path.resolve().name,
        css=Markup(_page_css() + plot_css() + _resource("comparison.css")),
        lead=_lead(results),
        terms=str(record.get("terms", "")),
        notices=[*map(str, record.get("notes", [])), *notices(results)],
        quality=quality_of(rows),
        Quality=quality_title(rows),
        panels=inline_panels(rows),
        legend=legend(rows),
        left_out=left_out(rows),
        columns=columns_of(rows),
        numbers=numbers_of(rows),
        rows=list(map(cells_of, rows)),
        cells=[_line(result, folder) for result in results],
        cell_columns=(
            "seed",
            quality_of(rows),
            "sparsity",
            "MACs",
            "non-zero MACs",
            "file",
            "latency",
            "training",
        ),
        called=called_as(record.get("command")),
        environment=_pairs(record.get("environment")),
    )
    return text.translate(CONTROL).encode("utf-8", "replace").decode()


def notices(results: Sequence[Result]) -> list[str]:
    """Return warnings that a reader of the figures needs."""
    sentences = []
    computed = sorted({r.precision for r in results if r.precision})
    if len(computed) > 1:
        sentences.append(
            f"Cells were trained in different precisions ({'; '.join(computed)}), each the fastest "
            "measured: --set train.precision=fp32 makes them equal."
        )
    failed = [result for result in results if result.state == "failed"]
    if failed:
        sentences.append(f"{len(failed)} of {len(results)} cells failed: see below.")
    return sentences


def left_out(rows: Sequence[Row]) -> str:
    """Return the sentence on rows of zero non-zero MACs, which a logarithmic axis cannot show."""
    names = [
        row.method if row.sparsity is None else f"{row.method} at {share_text(row.sparsity)}"
        for row in rows
        if row.nonzero_macs == 0
    ]
    return f"Not among the non-zero MACs: {', '.join(names)}, which have none." if names else ""


def _lead(results: Sequence[Result]) -> str:
    methods = len({result.method for result in results})
    seeds = len({result.seed for result in results})
    done = sum(result.state == "done" for result in results)
    recipes = f"{methods} recipe{'' if methods == 1 else 's'}"
    return (
        f"{recipes}, {seeds} seed{'' if seeds == 1 else 's'}: "
        f"{done} of {len(results)} cells trained, exported and proven"
    )


def _line(result: Result, folder: ComparisonFolder) -> CellLine:
    page = folder.runs / result.run / "report.html"
    there = bool(result.run) and page.is_file()
    log = folder.runs / result.run / "log.txt"
    target = page if there else log if result.run and log.is_file() else None
    asked = "" if result.asked is None else f", {share_text(result.asked)} asked"
    return CellLine(
        name=result.run or f"{result.method}{asked}",
        link=quote(os.path.relpath(target, folder.path).replace(os.sep, "/")) if target else "",
        numbers=(
            str(result.seed),
            NONE if result.accuracy is None else f"{result.accuracy:.2f} %",
            NONE if result.sparsity is None else share_text(result.sparsity),
            NONE if result.macs is None else short(result.macs),
            NONE if result.nonzero_macs is None else short(result.nonzero_macs),
            NONE if result.bytes is None else size(result.bytes),
            NONE if result.latency is None else f"{result.latency:.3f}",
            NONE if result.seconds is None else duration(result.seconds),
        ),
        state="proven" if result.state == "done" else result.state,
        kind={"done": "good", "failed": "bad"}.get(result.state, "soft"),
        message=result.message,
    )


def _pairs(environment: object) -> list[tuple[str, str]]:
    """Return (name, value) of the entries that are not empty."""
    known: Mapping[str, Any] = environment if isinstance(environment, dict) else {}
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in known.items()
        if value not in (None, [])
    ]


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html")


def _resource(name: str) -> str:
    return files("prunec.comparison").joinpath(name).read_text("utf-8")


def _page_css() -> str:
    return files("prunec.page").joinpath("report.css").read_text("utf-8")
