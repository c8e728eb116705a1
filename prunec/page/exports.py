"""Sections on the exported files: sizes, proofs, accuracy per class, flips, inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prunec.charts.scales import exact, size
from prunec.deploy.checks.samples import MOST
from prunec.page.reading import Flip, Parity, RunRecord
from prunec.tasks.quality import decisive
from prunec.training.dense_phase import CLASS
from prunec.wording import percent

_MOST_CLASSES = 20  # rows of the table of classes: one screen

Classes = tuple[tuple[int, int, int], ...]
"""For each class: samples, correct predictions of the network, correct predictions of the file."""


@dataclass(frozen=True)
class ExportRow:
    """A row of the table of exported forms, in words."""

    form: str
    file: str
    size: str
    left: str
    worth: str
    proof: str
    passed: bool
    runners: str


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes: name, samples, accuracy of network and of each file.

    ``dense`` is the accuracy at the end of the dense phase, empty if unknown.
    """

    name: str
    samples: str
    dense: str
    network: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class FlipRow:
    """A sample whose prediction changed: its picture, PNG in base64, and words."""

    png: str
    title: str
    said: str


@dataclass(frozen=True)
class SampleTable:
    """Accuracy per class, and samples whose prediction changed.

    Attributes:
        forms: forms whose accuracy differs from the network's in a class.
        alike: the other forms with known accuracy per class.
        classes: one row per class.
        dense: whether the accuracy at the end of the dense phase is known.
        left_out: which classes are shown; empty where all are.
        flips: (form, samples whose prediction changed, whether there are more).
    """

    forms: tuple[str, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    dense: bool = False
    left_out: str = ""
    flips: tuple[tuple[str, tuple[FlipRow, ...], bool], ...] = ()
    alike: tuple[str, ...] = ()


def export_rows(run: RunRecord) -> list[ExportRow]:
    """Return one row per exported form."""
    exports = run.verified or run.exported
    return [_row(run, form, parity) for form, parity in (exports.forms if exports else {}).items()]


def _row(run: RunRecord, form: str, parity: Parity) -> ExportRow:
    known = parity.details
    at_export = run.exported.forms.get(form) if run.exported else None
    dense = known.dense_bytes or (at_export.details.dense_bytes if at_export else None)
    bytes_ = "—" if known.bytes is None else size(known.bytes)
    left = percent(known.bytes / dense) if known.bytes is not None and dense else ""
    worth = "—"
    if known.figures:
        quality = decisive(known.figures)
        worth = f"{quality.title} {known.figures[quality.key]:.2f} %"
    failures = sum(not check.passed for check in parity.checks)
    count = len(parity.checks)
    on = f"on {exact(known.samples)} test samples" if known.samples else "on random inputs"
    proof = f"{failures} of {count} checks failed" if failures else f"{count} checks passed, {on}"
    by = [*filter(None, [known.runner]), *known.others]
    runners = "; ".join(f"{one.name} {one.version}" for one in by) or "—"
    file = str(_entry(run, form).get("file") or "")
    return ExportRow(form, file, bytes_, left, worth, proof, not failures, runners)


def sample_table(run: RunRecord) -> SampleTable:
    """Return accuracy per class and changed samples; empty where samples have no single label."""
    exports = run.verified or run.exported
    details = {f: p.details for f, p in (exports.forms if exports else {}).items()}
    labels = _labels(run)
    counted = {form: known.classes for form, known in details.items() if known.classes}
    dense = _dense_classes(run)
    # Of many forms most answer as the network: columns that repeat it would be cut on a screen.
    apart = [f for f, counts in counted.items() if any(ours != own for _, own, ours in counts)]
    rows = _class_rows(labels, next(iter(counted.values()), ()), [counted[f] for f in apart], dense)
    left_out = f"the {_MOST_CLASSES} worst of {len(rows)}" if len(rows) > _MOST_CLASSES else ""
    flips = tuple(
        (form, tuple(_flip_rows(labels, known.flips)), len(known.flips) >= MOST)
        for form, known in details.items()
        if known.flips
    )
    alike = tuple(form for form in counted if form not in apart)
    shown = tuple(rows[:_MOST_CLASSES])
    return SampleTable(tuple(apart), shown, bool(dense), left_out, flips, alike)


def _dense_classes(run: RunRecord) -> dict[str, float]:
    """Return ``class N`` → accuracy in percent at the end of the last dense phase, if known."""
    tested = [line.dense_phase for lines in run.epochs.values() for line in lines]
    last = next(filter(None, reversed(tested)), {})
    return {key: value for key, value in last.items() if key.startswith(CLASS)}


def _class_rows(
    labels: list[str], first: Classes, counted: list[Classes], dense: Mapping[str, float]
) -> list[ClassRow]:
    """Return one row per class with samples; if there are too many, the worst classes first.

    Args:
        labels: names of the classes.
        first: counts of the first form, for the samples and the network's accuracy.
        counted: counts of the forms with a column.
        dense: accuracy at the end of the dense phase, in percent.
    """
    alike = [counts for counts in counted if len(counts) == len(first)]
    places = [place for place, (samples, _, _) in enumerate(first) if samples > 0]
    if len(places) > _MOST_CLASSES:
        # Worst first, because the rest is left out.
        places.sort(key=lambda place: first[place][2] / first[place][0])
    return [
        ClassRow(
            _name(labels, place),
            exact(first[place][0]),
            f"{dense[key]:.2f} %" if (key := f"{CLASS}{place}") in dense else "",
            _share(first[place][1], first[place][0]),
            tuple(_share(counts[place][2], counts[place][0]) for counts in alike),
        )
        for place in places
    ]


def _share(right: int, samples: int) -> str:
    return f"{100 * right / samples:.2f} %" if samples else "—"


def _flip_rows(labels: list[str], flips: tuple[Flip, ...]) -> Iterator[FlipRow]:
    for flip in flips:
        network, file, truth = (_name(labels, x) for x in (flip.network, flip.file, flip.label))
        yield FlipRow(flip.png, f"test sample {flip.index}: {truth}", f"{network} → {file}")


def _labels(run: RunRecord) -> list[str]:
    return [str(label) for label in _listed(_fed(run).get("labels"))]


def _name(labels: list[str], place: int) -> str:
    return labels[place] if 0 <= place < len(labels) else f"class {place}"


def _fed(run: RunRecord) -> dict[str, object]:
    """Return the description of inputs in the manifest, of the first form that has one."""
    described = (_entry(run, form).get("feeding") for form in run.manifest)
    return next((fed for fed in described if isinstance(fed, dict)), {})


def _entry(run: RunRecord, form: str) -> dict[str, object]:
    entry = run.manifest.get(form)
    return entry if isinstance(entry, dict) else {}


def how_to_feed(run: RunRecord) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the preparation of inputs: a text, and (name, value) pairs of its parameters."""
    fed = _fed(run)
    inputs = [one for one in _listed(fed.get("inputs")) if isinstance(one, dict)]
    pairs = []
    for number, one in enumerate(inputs):
        sizes = ", ".join(map(str, _listed(one.get("shape"))))
        layout = str(one.get("layout") or "")
        pairs.append((f"input {number}", f"{one.get('type')} [batch, {sizes}] {layout}".strip()))
    for key, name in (("mean", "mean"), ("std", "deviation"), ("labels", "labels, in order")):
        if values := _listed(fed.get(key)):
            shown = ", ".join(map(str, values[:_MOST_CLASSES]))
            more = len(values) - _MOST_CLASSES
            pairs.append((name, f"{shown} and {more} more" if more > 0 else shown))
    return str(fed.get("how_to_feed") or ""), tuple(pairs)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
