"""Forms of an export: the file of each is written, timed, proven, published and recorded.

See docs/glossary.md: form, parity.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

from torch import Tensor

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.catalogue import runner_for
from prunec.deploy.checks import Check, ExportReport, Report
from prunec.deploy.checks.budgets import UNTIMED
from prunec.deploy.checks.samples import Flip, pictured
from prunec.deploy.checks.training import check_training
from prunec.deploy.exporter import Exact, Exported, Exporter, Lossy, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.golden import check_golden, write_golden
from prunec.deploy.runner import Runner
from prunec.deploy.signature import MACS, RECIPE_DIGEST
from prunec.deploy.timing import Latency
from prunec.deploy.written import Written, WrittenGraph
from prunec.errors import PrunecError, RunError
from prunec.files import require_writable, write_bytes_atomic, write_text_atomic
from prunec.inspection.layers import layers_of
from prunec.pipeline.budgets import check_device
from prunec.pipeline.elsewhere import check_elsewhere
from prunec.pipeline.feeding import as_metadata, feeding
from prunec.pipeline.manifest import (
    UNRECORDED,
    compare_with_records,
    digest_of,
    follow_dense,
    manifest_entry,
    report_of,
)
from prunec.pipeline.raw_images import Shipping, layout_of, with_raw_images
from prunec.pipeline.splits import splits
from prunec.pipeline.twins import time_beside_twin, write_twin
from prunec.pipeline.unrun import unrun
from prunec.recipe import Recipe, digest, dumps
from prunec.store.environment import prunec_version
from prunec.store.exports import ExportFolder
from prunec.store.records import record_text

Batched = list[tuple[Tensor, ...]]

_CALIBRATION_BATCH = 32  # images per batch: bounds the memory, and does not affect the result


@dataclass(frozen=True)
class Forms:
    """The forms of an export, their places and options.

    Attributes:
        folder: the run's export folder.
        exporters: one per form; the exporter of a form that another reads comes first.
        output: further place of the file, for an export in a single form.
        records: checks of the run's records, and phrases that name unchecked records.
        made_by: the build of prunec that started the run; empty if it was this one.
        with_recipe: whether to write the recipe's text, which names folders, into the files; its
            digest is written in any case.
        runners: runners asked for by name, besides those of the forms.
        layout: ``nhwc`` or ``nchw`` to put the normalisation of uint8 images into the files; empty
            for float inputs.
    """

    folder: ExportFolder
    exporters: tuple[Exporter, ...]
    output: Path | None = None
    records: tuple[Sequence[Check], Sequence[str]] = ((), ())
    made_by: str = ""
    with_recipe: bool = True
    runners: tuple[Runner, ...] = ()
    layout: str = ""

    def __post_init__(self) -> None:
        if self.output is not None and len(self.exporters) > 1:
            names = ", ".join(writer.form() for writer in self.exporters)
            raise RunError(
                f"-o {self.output} names one file, but the export has the forms {names}",
                remedy="Leave -o out: each form is written to its own folder in the run.",
            )

    def require_places(self) -> None:
        """Check that every place can be written, before any computation.

        Raises:
            RunError: a place is a folder, or cannot be written.
        """
        for writer in self.exporters:
            require_writable(self.output or self.shipped(writer))

    def shipped(self, writer: Exporter) -> Path:
        """Return the path of a form's published file."""
        return self.folder.shipped(writer.form(), writer.suffix)

    def candidate(self, writer: Exporter) -> Path:
        """Return the path of a form's file before it is proven."""
        return self.folder.candidate(writer.form(), writer.suffix)

    def dense(self, writer: Exporter, own: Path | None = None) -> Path:
        """Return the path of the dense network's file.

        It has the form itself, if such a file exists (for runtimes that open no other form), else
        the form at the start of the conversions that lead to this one. If the export wrote none,
        because nothing was cut, the form's own file is the dense network's; that of a lossy form
        is not, but the file that it starts from is.

        Args:
            writer: exporter of the form.
            own: the form's own file; by default the published one.
        """
        same_form, root = self.folder.dense(writer.form(), writer.suffix), writer
        if same_form.is_file():
            return same_form
        while root.reads:
            root = next(other for other in self.exporters if other.form() == root.reads)
        dense = self.folder.dense(root.form(), root.suffix)
        if dense.is_file():
            return dense
        return (own or self.shipped(writer)) if isinstance(writer, Exact) else self.shipped(root)

    def dense_digests(self) -> dict[str, str]:
        """Return the digests of the dense files that other forms share; of missing ones empty."""
        roots = [writer for writer in self.exporters if not writer.reads]
        return {writer.form(): digest_of(writer, self.dense(writer)) for writer in roots}

    def verify(
        self,
        files: Mapping[str, Path],
        recipe: Recipe,
        artifact: Artifact,
        dense: Artifact,
        data: Data | None,
    ) -> ExportReport:
        """Check files (form → path) against an artifact; return their reports."""
        recorded, flaw = self.folder.recorded, self.folder.flaw
        writers = [writer for writer in self.exporters if writer.form() in files]
        reports, shipping = {}, Shipping(artifact, dense, data)
        by_layout: dict[str, Shipping] = {}
        for writer in writers:
            entry = recorded.get(writer.form(), {})
            layout = layout_of(entry)
            if layout not in by_layout:
                by_layout[layout] = with_raw_images(layout, recipe, shipping)
            fed = by_layout[layout]
            again = partial(writer.graph_again, Source(fed.artifact))
            path, twin = files[writer.form()], self.dense(writer)
            reports[writer.form()] = _proven(
                self, writer, path, twin, recipe, fed, entry, flaw, again
            )
        for writer in writers:
            if (
                isinstance(writer, Exact)
                and not writer.runs_on
                and files[writer.form()] == self.shipped(writer)
            ):
                reports[writer.form()] = self._with_golden(writer, reports[writer.form()])
        return ExportReport(reports)

    def _with_golden(self, writer: Exporter, report: Report) -> Report:
        entry = self.folder.recorded.get(writer.form(), {})
        golden = check_golden(self.shipped(writer), runner_for(writer.suffix), entry)
        return Report((*report.checks, golden), report.details)


def ship(
    forms: Forms,
    recipe: Recipe,
    artifact: Artifact,
    dense: Artifact,
    data: Data | None,
    note: Callable[[str], None],
) -> ExportReport:
    """Write an artifact in every form, prove the files, and publish those that pass.

    Args:
        forms: the forms and their places.
        recipe: recipe with tolerances and budgets; its text goes into the files.
        artifact: the artifact that ships.
        dense: the network before any cut, for latency and size ratios.
        data: test split, and training images to calibrate lossy forms on; None if there are none.
        note: callback for one line per form.

    Returns:
        The report. It is also in the folder, beside the manifest of the forms that passed.

    Raises:
        PrunecError: an exporter failed; the forms that passed before it are recorded.
    """
    reports: dict[str, Report] = {}
    fed = with_raw_images(forms.layout, recipe, Shipping(artifact, dense, data))
    if forms.folder.manifest.exists() and forms.folder.flaw:
        note(f"{forms.folder.flaw}; it will be rewritten")
    manifest: dict[str, object] = {**forms.folder.recorded}
    details = {"layers": _layers(dense, artifact), "data": splits(data, recipe.data.name)}
    before = forms.dense_digests()
    try:
        _ship_each(forms, recipe, fed, note, reports, manifest)
        follow_dense(manifest, before, forms.dense_digests())
    except PrunecError:
        # Their files are at their places: without a record they would be those of no export.
        if reports:
            _record_all(forms, ExportReport(reports, details), manifest)
        raise
    return _record_all(forms, ExportReport(reports, details), manifest)


def _ship_each(
    forms: Forms,
    recipe: Recipe,
    fed: Shipping,
    note: Callable[[str], None],
    reports: dict[str, Report],
    manifest: dict[str, object],
) -> None:
    """Write, prove and publish form by form; add to the reports and to the manifest."""
    for writer in forms.exporters:
        form = writer.form()
        # A form made from a wrong file is wrong too.
        if writer.reads and not reports[writer.reads].passed:
            reports[form] = _unwritten(writer)
            continue
        entry, reports[form] = _written(forms, writer, recipe, fed)
        if reports[form].passed:
            # Before the next form is written, which may read this file at its place.
            _publish(forms, writer)
            shipped = forms.shipped(writer)
            answered = fed.artifact.example, fed.artifact.answers
            golden = write_golden(shipped, writer, *answered)
            manifest[form] = {**entry, **golden}
        target, candidate = forms.output or forms.shipped(writer), forms.candidate(writer)
        for remark in reports[form].details.remarks:
            note(f"{form}: {remark}")
        note(f"Wrote {target}" if reports[form].passed else f"Not shipped: {candidate} failed")


def _record_all(forms: Forms, report: ExportReport, manifest: dict[str, object]) -> ExportReport:
    """Write the report and the manifest; remove reports on the previous files."""
    report = record(report, forms.folder.report)
    for earlier in (forms.folder.verified, forms.folder.layers):
        earlier.unlink(missing_ok=True)
    if manifest:
        write_text_atomic(forms.folder.manifest, record_text(manifest))
    return report


def record(report: ExportReport, path: Path) -> ExportReport:
    """Write a report as JSON, with the time of its checks; return it with that time."""
    checked = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report = replace(report, details={**report.details, "checked": checked})
    write_text_atomic(path, record_text(json.loads(report.to_json())))
    return report


def _written(
    forms: Forms, writer: Exporter, recipe: Recipe, shipping: Shipping
) -> tuple[dict[str, object], Report]:
    """Write and check a candidate file of a form; return its manifest entry and its report."""
    artifact, data = shipping.artifact, shipping.data
    files = {other.form(): forms.shipped(other) for other in forms.exporters}
    instructions = feeding(recipe, artifact, data, forms.layout)
    metadata = _metadata(recipe, artifact, forms.with_recipe) | as_metadata(instructions)
    source = Source(artifact, metadata, files)
    labelled = _labelled(data, writer) if isinstance(writer, Lossy) and data else None
    batches: Batched | None = [(images,) for images, _ in labelled] if labelled else None
    source = replace(source, labels=tuple(labels for _, labels in labelled or ()))
    # Files that a killed export left must not be published with the new one.
    shutil.rmtree(forms.candidate(writer).parent, ignore_errors=True)
    exported = writer(source, forms.candidate(writer), batches)
    untwinned = write_twin(writer, shipping, source, forms.folder, recipe, batches)
    twin = forms.dense(writer, exported.path)
    entry = manifest_entry(writer, exported, twin, recipe, artifact) | report_of(exported)
    entry["feeding"] = instructions
    report = _proven(
        forms, writer, exported.path, twin, recipe, shipping, entry, "", written=exported.written
    )
    target = forms.output or forms.shipped(writer)
    details = replace(
        report.details,
        file=str(target),
        dense_bytes=writer.size(twin),
        remarks=remarks(exported),
        told=exported.told,
        not_checked=_with_reason(report.details.not_checked, untwinned),
    )
    return entry, replace(report, details=details)


def _with_reason(not_checked: Sequence[str], untwinned: str) -> tuple[str, ...]:
    """Return the phrases, with the reason why there is no dense file to time beside."""
    reason = f"latency against dense: the dense network has no such file: {untwinned}"
    return tuple(reason if untwinned and one == UNTIMED else one for one in not_checked)


def _labelled(data: Data, writer: Lossy) -> list[tuple[Tensor, Tensor]]:
    """Return batches of training images and labels, as many as the exporter calibrates on."""
    count = -(-writer.calibration // _CALIBRATION_BATCH)  # rounded up
    return list(islice(data.train_batches(0, _CALIBRATION_BATCH), count))


def _publish(forms: Forms, writer: Exporter) -> None:
    """Move a form's files, which passed, to their place; copy the form's own file to ``output``."""
    candidate, place = forms.candidate(writer), forms.shipped(writer)
    if forms.output is not None:
        write_bytes_atomic(forms.output, candidate.read_bytes())
    # The form's own file is moved last, so that the files that it refers to are there before it.
    files = sorted(candidate.parent.iterdir(), key=lambda path: path == candidate)
    for path in files:
        target = place.parent / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    candidate.parent.rmdir()


def _metadata(recipe: Recipe, artifact: Artifact, with_recipe: bool) -> dict[str, str]:
    """Return the metadata of a file; the history is without seconds, which vary between runs."""
    history = [asdict(replace(step, seconds=0.0)) for step in artifact.history]
    return {
        "prunec.version": prunec_version(),
        **({"prunec.recipe": dumps(recipe)} if with_recipe else {}),
        RECIPE_DIGEST: digest(recipe),
        "prunec.history": json.dumps(history),
        MACS: str(artifact.history[-1].macs[1]),
    }


def _proven(
    forms: Forms,
    writer: Exporter,
    path: Path,
    twin: Path,
    recipe: Recipe,
    shipping: Shipping,
    entry: Mapping[str, object],
    flaw: str,
    again: Callable[[Written], WrittenGraph | None] = lambda _: None,
    written: Written | None = None,
) -> Report:
    """Check one file of a form; return its report.

    Args:
        forms: the forms and their places.
        writer: exporter of the form.
        path: path of the file.
        twin: path of the dense network's file.
        recipe: recipe with tolerances and budgets.
        shipping: artifacts and data that fit the file's inputs.
        entry: entry of the form in the manifest.
        flaw: reason why the manifest cannot be trusted; empty if it can.
        again: function that returns the graph of a fresh export, for comparison.
        written: content of the file, if it was read back since it was written.
    """
    artifact, dense, data = shipping.artifact, shipping.dense, shipping.data
    if writer.runs_on:
        recorded = compare_with_records(
            writer, path, twin, recipe, artifact, dense, entry, flaw, forms.made_by
        )
        return unrun(writer, path, entry, recorded, forms.records)
    # The manifest's word, too: a dense file that is missing is not the shipped one.
    uncut = twin == path and entry.get("dense_sha256") == digest_of(writer, twin)
    runner = runner_for(writer.suffix)
    latency: Latency | None = None
    # A file that cannot be timed fails other checks, which say why.
    with suppress(PrunecError):
        if twin != path:
            latency = time_beside_twin(runner, path, twin, recipe.verify.budget.latency_ratio)
    report = verify_file(
        path,
        artifact.module,
        artifact.example,
        exporter=writer,
        runner=runner,
        spec=recipe.verify,
        torch_cost=artifact.cost,
        dense_macs=dense.cost.macs,
        data=data,
        manifest={**UNRECORDED, **entry},
        latency=latency,
        uncut=uncut,
        again=again,
        reference=shipping.reference,
        written=written,
    )
    recorded = compare_with_records(
        writer, path, twin, recipe, artifact, dense, entry, flaw, forms.made_by
    )
    trained, unmeasured = check_training(
        recipe.verify.budget, artifact.history, report.details.figures
    )
    device, unknown = check_device(recipe.verify.budget, writer, path, latency)
    elsewhere, unopened, runners = check_elsewhere(
        writer, path, recipe, artifact, data, forms.runners, shipping.reference
    )
    checks, unchecked = forms.records
    reasons = (*report.not_checked, *unknown, *unopened, *unmeasured, *unchecked)
    checks = (*report.checks, *device, *elsewhere, *trained, *recorded, *checks)
    details = replace(
        report.details,
        not_checked=reasons,
        latency=latency,
        uncut=uncut,
        other_runners=tuple(runners),
        flips=_pictured(report, entry),
    )
    return Report(checks, details)


def _pictured(report: Report, entry: Mapping[str, object]) -> tuple[Flip, ...]:
    """Return the samples whose prediction changed; images as pictures."""
    fed = entry.get("feeding")
    known = fed if isinstance(fed, Mapping) and fed.get("kind") == "image" else {}
    return pictured(report.details.flips, known.get("mean", ()), known.get("std", ()))


def remarks(exported: Exported) -> tuple[str, ...]:
    """Return the exporter's remarks on its file, in sentences."""
    sentences = exported.told.get("remarks", [])
    return tuple(map(str, sentences)) if isinstance(sentences, list) else ()


def _unwritten(writer: Exporter) -> Report:
    """Return the report of a form whose source form did not ship."""
    message = f"it is made from the {writer.reads} file, which did not ship."
    return Report((Check("written", writer.form(), "nothing", None, False, message),))


def _layers(dense: Artifact, artifact: Artifact) -> Sequence[dict[str, object]]:
    """Return every layer with channels, MACs and weights, before and after the cut."""
    layers = layers_of(dense.module, dense.cost, artifact.module, artifact.cost)
    return [asdict(layer) for layer in layers]
