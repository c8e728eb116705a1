"""Builds the page from what was found, and writes it."""

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
from prunec.page.training import charts, heat_maps, histograms
from prunec.store.runs import RunFolder

CONTROL = dict.fromkeys(set(range(32)) - {9, 10})  # what no HTML may hold


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all; return its path.

    Whatever the run does not have yet is left out, what cannot be read is named on the page.

    Raises:
        RunError: the file cannot be written.
    """
    path = run.path / "report.html"
    write_text_atomic(path, page_text(run))
    return path


def page_text(run: RunFolder) -> str:
    """Return the page of a run: HTML that refers to nothing outside itself."""
    found = read_run(run)
    text = _template().render(
        found=found,
        css=Markup(_resource("report.css")),
        subtitle=_subtitle(found),
        tiles=tiles(found),
        trainings=[(name, charts(lines)) for name, lines in found.epochs.items()],
        methods=[
            (name, maps, drawn)
            for name, lines in found.epochs.items()
            if (maps := list(heat_maps(lines))) + (drawn := list(histograms(lines)))
        ],
        layers=layer_rows(found),
        all_layers=all_layers(found),
        sparse=any(layer.nonzero_params < layer.params[0] for layer in shipped_layers(found)),
        passes=pass_rows(found.history),
        exports=export_rows(found),
        samples=sample_table(found),
        feed=how_to_feed(found),
        checks=check_tables(found),
        meanings=meanings(row.name for table in check_tables(found) for row in table.rows),
        forms=runner_table(found),
        settings=[(name, setting_rows(each)) for name, each in found.settings.items()],
        again=reproduce(found),
    )
    # A lone surrogate, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return text.translate(CONTROL).encode("utf-8", "replace").decode()


def _subtitle(found: RunRecord) -> str:
    """What was trained on what, for how long, when."""
    if found.recipe is None:
        return ""
    recipe = found.recipe
    parts = [
        recipe.model.name.rpartition(":")[2],
        "" if recipe.data.name == "none" else f"{recipe.data.name} images",
        f"{recipe.train.epochs} epochs" if recipe.train.epochs else "",
        str(found.record.get("created", "")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return " · ".join(part for part in parts if part)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _resource(name: str) -> str:
    return files("prunec.page").joinpath(name).read_text("utf-8")
