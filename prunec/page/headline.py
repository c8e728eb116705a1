"""Headline of the page: the most important figures as tiles."""

from __future__ import annotations

from dataclasses import dataclass

from prunec.charts.scales import exact, short, size
from prunec.deploy.checks.budgets import UNCUT
from prunec.deploy.checks.render import only_random
from prunec.deploy.checks.training import dense_quality
from prunec.page.reading import Details, RunRecord
from prunec.tasks.quality import decisive
from prunec.wording import percent, percent_of


@dataclass(frozen=True)
class Tile:
    """A tile with one figure.

    Attributes:
        label: name of the figure.
        value: its value, in a few characters.
        note: a phrase below it, for comparison.
        kind: ``good``, ``bad``, or empty where it is not a verdict.
        left: ratio to the dense network's value, drawn as a bar; None for no bar.
    """

    label: str
    value: str
    note: str
    kind: str = ""
    left: float | None = None


def tiles(run: RunRecord) -> list[Tile]:
    """Return the tiles of the figures that are known of a run."""
    exports = run.verified or run.exported
    details = exports.decisive.details if exports else Details()
    made = [_verdict(run), _quality(run, details), *_costs(run), _zeros(run)]
    if details.bytes is not None:
        made.append(_bytes(details.bytes, _dense_bytes(run)))
    latency, uncut = details.latency, details.uncut
    if latency is None and run.exported:
        latency = run.exported.decisive.details.latency
    if uncut:
        made.append(Tile("Latency / dense", "1", UNCUT, left=1.0))
    elif latency:
        note = f"{latency.shipped_ms:.3g} ms of {latency.dense_ms:.3g} ms, batch 1, one thread"
        if not latency.apart:
            note += f"; no significant difference, {latency.least:.3g} to {latency.most:.3g}"
        made.append(Tile("Latency / dense", f"{latency.reported:.3f}", note, left=latency.reported))
    return [tile for tile in made if tile]


def _verdict(run: RunRecord) -> Tile:
    parity = run.verified or run.exported
    if parity is None:
        status = str(run.record.get("status", "unknown"))
        return Tile("Status", status, f"not exported yet{_progress(run)}")
    by = "verified" if run.verified else "at export"
    count, failures = len(parity.checks), sum(not c.passed for c in parity.checks)
    if parity.passed and only_random(check.name for check in parity.checks):
        note = f"all {count} checks passed, {by}; no data set was named"
        return Tile("Parity", "on random inputs", note)
    if parity.passed:
        return Tile("Parity", "proven", f"all {count} checks passed, {by}", "good")
    return Tile(
        "Parity", "failed", f"{failures} of {count} checks failed, {by}: do not ship", "bad"
    )


def _progress(run: RunRecord) -> str:
    if not run.epochs:
        return ""
    name, lines = list(run.epochs.items())[-1]
    of = f" of {run.recipe.train.epochs}" if run.recipe else ""
    return f"; {name} after epoch {lines[-1].epoch}{of}"


def _quality(run: RunRecord, details: Details) -> Tile | None:
    if details.figures:
        of = f", {exact(details.samples)} test images" if details.samples else ""
        quality = decisive(details.figures)
        note = f"shipped file{of}{_of_dense(run)}"
        return Tile(quality.title, f"{details.figures[quality.key]:.2f} %", note)
    # The latest pass first: it made the weights that would ship.
    for name, lines in reversed(list(run.epochs.items())):
        numbers = lines[-1].numbers
        quality = decisive(numbers, "test_")
        if (key := f"test_{quality.key}") in numbers:
            about = f"test, {name}, epoch {lines[-1].epoch}"
            return Tile(quality.title, f"{numbers[key]:.2f} %", about)
    return None


def _of_dense(run: RunRecord) -> str:
    """Return the dense network's accuracy at the end of its phase, in words; empty if unknown."""
    known = dense_quality([step for step in run.history if "trained" in step.facts])
    return f"; at the end of the dense phase {known[1]:.2f} %" if known else ""


def _zeros(run: RunRecord) -> Tile | None:
    """Return the tile of zero weights in the exported file; None where there are none."""
    layers = run.exported.layers if run.exported else ()
    weights = sum(layer.params[0] for layer in layers)
    left = sum(layer.nonzero_params for layer in layers)
    # Channel pruning leaves no zeros, and a tile of 0 % would say nothing.
    if not weights or left == weights:
        return None
    macs, useful = (_counted(run, name) for name in ("MACs", "non-zero MACs"))
    note = f"of {short(weights)} kernel weights; dense kernels compute with them nevertheless"
    if macs and useful is not None:
        note += f": {short(macs)} MACs, {short(useful)} by non-zero weights"
    return Tile("Zeros", percent(1 - left / weights), note, left=left / weights)


def _counted(run: RunRecord, name: str) -> int | None:
    """Return the number that a check of the first form counted in its file."""
    checks = run.exported.decisive.checks if run.exported else ()
    values = [check.found for check in checks if check.name == name]
    return values[0] if values and isinstance(values[0], int) else None


def _costs(run: RunRecord) -> list[Tile]:
    if not run.history:
        return []
    first, last = run.history[0], run.history[-1]
    made = []
    for label, before, after in (
        ("MACs", first.macs[0], last.macs[1]),
        ("Parameters", first.params[0], last.params[1]),
    ):
        note = f"{percent_of(after, before)} of the dense {short(before)}" if before else "nothing"
        if before and after == before:
            note = "as in the dense network: nothing was cut"
        made.append(Tile(label, short(after), note, left=after / before if before else None))
    return made


def _dense_bytes(run: RunRecord) -> int | None:
    known = [e.decisive.details for e in (run.verified, run.exported) if e]
    return next((details.dense_bytes for details in known if details.dense_bytes), None)


def _bytes(count: int, dense: int | None) -> Tile:
    if not dense:
        return Tile("File", size(count), "the exported file")
    left = count / dense
    return Tile("File", size(count), f"{percent(left)} of the dense {size(dense)}", left=left)
