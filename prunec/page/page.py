"""Rendering of the page from a run's records, and writing of report.html."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from prunec.files import write_text_atomic
from prunec.page.exports import export_rows, how_to_feed, sample_table
from prunec.page.headline import tiles
from prunec.page.meanings import meanings
from prunec.page.proofs import (
    all_layers,
    check_tables,
    layer_rows,
    pass_rows,
    runner_table,
    setting_rows,
    shipped_layers,
)
from prunec.page.reading import RunRecord, read_run
from prunec.page.reproduce import reproduce
from prunec.page.speeds import speed_section
from prunec.page.training import charts, heat_maps, histograms
from prunec.store.runs import RunFolder

CONTROL = dict.fromkeys(set(range(32)) - {9, 10})  # control characters, not allowed in HTML


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` into a run folder, atomically; return its path.

    Sections without data are left out; files that cannot be read are named on the page.

    Raises:
        RunError: the file cannot be written.
    """
    path = run.path / "report.html"
    write_text_atomic(path, page_text(run))
    return path


def page_text(run: RunFolder) -> str:
    """Return the page of a run, as self-contained HTML."""
    record = read_run(run)
    text = _template().render(
        record=record,
        css=Markup(_resource("report.css")),
        subtitle=_subtitle(record),
        tiles=tiles(record),
        trainings=[(name, charts(lines)) for name, lines in record.epochs.items()],
        methods=[
            (name, maps, drawn)
            for name, lines in record.epochs.items()
            if (maps := list(heat_maps(lines))) + (drawn := list(histograms(lines)))
        ],
        layers=layer_rows(record),
        all_layers=all_layers(record),
        sparse=any(layer.nonzero_params < layer.params[0] for layer in shipped_layers(record)),
        passes=pass_rows(record.history),
        exports=export_rows(record),
        samples=sample_table(record),
        feed=how_to_feed(record),
        checks=check_tables(record),
        meanings=meanings(row.name for table in check_tables(record) for row in table.rows),
        forms=runner_table(record),
        speeds=speed_section(record.speeds),
        settings=[(name, setting_rows(each)) for name, each in record.settings.items()],
        again=reproduce(record),
    )
    # A lone surrogate, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return text.translate(CONTROL).encode("utf-8", "replace").decode()


def _subtitle(record: RunRecord) -> str:
    """Return network, data set, epochs and time of creation in one line."""
    if record.recipe is None:
        return ""
    recipe = record.recipe
    parts = [
        recipe.model.name.rpartition(":")[2],
        "" if recipe.data.name == "none" else f"{recipe.data.name} images",
        _epochs(recipe.train.epochs),
        str(record.record.get("created", "")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return " · ".join(part for part in parts if part)


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' if number > 1 else ''}" if number else ""


def _glued(text: str) -> str:
    """Return a text whose percentages no line break divides."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,  # names and messages of a foreign run are text, never HTML
        undefined=StrictUndefined,  # a misspelt name in the template is an error, not an empty text
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["glued"] = _glued
    return environment.get_template("report.html")


def _resource(name: str) -> str:
    return files("prunec.page").joinpath(name).read_text("utf-8")
