"""Export and verification: the steps after training, from rewrites to proven files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunec.artifact import Artifact, Step
from prunec.catalogue import exporter, exporter_names
from prunec.deploy.checks import ExportReport
from prunec.deploy.exporter import Exact, Exporter
from prunec.deploy.runner import Runner
from prunec.errors import ParityError, PrunecError, ReadOnlyRun, RunError
from prunec.page import write_report
from prunec.pipeline.artifacts import run_pass
from prunec.pipeline.elsewhere import named_runners, require_opening
from prunec.pipeline.forms import Forms, record, ship
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.opened_recipe import Untrained
from prunec.pipeline.raw_images import require_raw_images
from prunec.pipeline.run_records import check_records, steps_of
from prunec.store.environment import build
from prunec.store.kept_records import keep_records
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished


def export(
    run: RunFolder,
    output: Path | None,
    forms: Sequence[str] = (),
    note: Callable[[str], None] = print,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    untrained: Untrained | None = None,
    with_recipe: bool = True,
    runners: Sequence[str] = (),
    layout: str = "",
) -> ExportReport:
    """Run the rewrites that follow training, write every form, and prove each file equal.

    A file is published only if all its checks pass; otherwise it stays in the folder ``rejected``
    of its form. The run is marked as exported if all files passed.

    Args:
        run: a trained run, or a new run of a recipe without a training pass.
        output: further place of the file, for an export in a single form.
        forms: forms to write in addition to the recipe's.
        note: callback for one line per step.
        options: form → options of its exporter that override the recipe's.
        untrained: network of a recipe without a training pass, if already built.
        with_recipe: whether to write the recipe's text into the files.
        runners: names of further runners to prove the files on.
        layout: ``nhwc`` or ``nchw`` to put the normalisation of uint8 images into the files; empty
            for float inputs.

    Raises:
        RunError: the run is not fully trained, another process works on it, or a place cannot be
            written.
        NotExact: a rewrite changed the network's function, or a file is not what was written.
    """
    _require_trained(run)
    others = named_runners(runners, run.recipe)
    with run.held():
        opened = OpenedRun(run, untrained.images if untrained else None)
        made = Forms(run.export, opened.exporters(forms, options), output)
        # Before the rewrites, which take minutes.
        made.require_places()
        opened.require_servable(made.exporters, (opened.dense, ()), layout)
        require_raw_images(layout, opened.recipe, opened.images)
        require_opening(others[: len(runners)], made.exporters)
        artifact = _rewritten(opened, note, untrained)
        dense = Artifact(opened.dense, artifact.example)
        shipped = run.export.report, run.export.manifest
        # After the rewrites, whose artifacts are among the records.
        records = check_records(run, steps_of(opened), anew=shipped)
        made = replace(made, records=records, made_by=_other_build(run), with_recipe=with_recipe)
        made = replace(made, runners=others, layout=layout)
        report = ship(made, opened.recipe, artifact, dense, opened.images, note)
        # Before the page, which reads them.
        keep_records(run, *shipped)
        note(f"Wrote {write_report(run)}")
        if report.passed:
            run.mark("exported")
    return report


def verify(run: RunFolder, onnx_file: Path | None, runners: Sequence[str] = ()) -> ExportReport:
    """Check a file against a run; by default every form of its export.

    The report on the run's own files is recorded and shown on its page, unless the run is
    read-only; a report on another file is not recorded.

    Raises:
        RunError: the run has no export yet, or another process works on it.
        ParityError: the file does not exist.
    """
    _require_trained(run)
    others = named_runners(runners, run.recipe)
    if onnx_file is not None:
        return _checked(run, {"onnx": onnx_file}, others)
    with _held_if_writable(run):
        report = _checked(run, {}, others)
        with suppress(RunError):
            report = record(report, run.export.verified)
            keep_records(run, run.export.verified)
            write_report(run)
    return report


@contextmanager
def _held_if_writable(run: RunFolder) -> Iterator[None]:
    """Hold the run; a read-only run needs no lock, because no process can change it."""
    with ExitStack() as stack:
        with suppress(ReadOnlyRun):
            stack.enter_context(run.held())
        yield


def _rewritten(
    opened: OpenedRun, note: Callable[[str], None], untrained: Untrained | None
) -> Artifact:
    """Run the rewrites; return the artifact after the last pass."""
    trained = opened.artifact(opened.trained - 1) if opened.trained else None
    artifact = trained or (untrained.artifact if untrained else opened.fresh())
    before = None
    for index in range(opened.trained, len(opened.passes)):
        step = opened.passes[index]
        artifact = run_pass(artifact, step, index, opened.run, None, lambda _: None, before)
        before = opened.run.step(index, step.pass_name())
        note(_line(artifact.history[-1]))
    return artifact


def _require_trained(run: RunFolder) -> None:
    """Refuse a run that is not fully trained, before holding it, which marks it as in use."""
    opened = OpenedRun(run)
    if opened.trained and not opened.is_done(opened.trained - 1):
        raise unfinished(opened.run)


def _line(step: Step) -> str:
    """Return one line on a rewrite that ran."""
    error = "" if step.error is None else f", outputs within {step.error:.0e}"
    return (
        f"{step.name}: {step.macs[1]:,} MACs, {step.params[1]:,} parameters{error}; {step.notes[0]}"
    )


def _other_build(run: RunFolder) -> str:
    """Return the build of prunec that started the run; empty where it was this one."""
    return "" if run.record.get("build") == build() else run.made_by


def _as_exported(opened: OpenedRun, forms: Sequence[str]) -> tuple[Exporter, ...]:
    """Return the exporters, those of exact forms with the options that their files were written
    with: an export may have had others than the recipe.

    Options of lossy forms are bounds, and those of the recipe hold.
    """
    options = {
        form: {key: value for key, value in entry["exporter"].items() if key != "name"}
        for form, entry in opened.run.export.recorded.items()
        if form in forms and isinstance(entry.get("exporter"), dict) and _is_exact(form)
    }
    with suppress(PrunecError):  # options that no exporter has: the check of the manifest says so
        return opened.exporters(forms, options)
    return opened.exporters(forms)


def _is_exact(form: str) -> bool:
    with suppress(PrunecError):  # a package that is missing is reported by the form itself
        return issubclass(exporter(f"to-{form}"), Exact)
    return False


def _checked(run: RunFolder, files: dict[str, Path], runners: tuple[Runner, ...]) -> ExportReport:
    """Check files, form → path; by default the published file of every form."""
    opened = OpenedRun(run)
    known = {name.removeprefix("to-") for name in exporter_names()}
    forms = [form for form in run.export.forms if form in known or form in run.export.recorded]
    records = check_records(run, steps_of(opened))
    writers = _as_exported(opened, (*forms, *files))
    made = Forms(run.export, writers, records=records, made_by=_other_build(run), runners=runners)
    paths = files or {writer.form(): made.shipped(writer) for writer in made.exporters}
    for path in paths.values():
        if not path.is_file():
            raise ParityError(
                f"{path} does not exist", remedy=f"Export first: prunec export {run.path}"
            )
    artifact = opened.artifact(len(opened.passes) - 1)
    dense = Artifact(opened.dense, artifact.example)
    return made.verify(paths, opened.recipe, artifact, dense, opened.images)
