"""What follows training: rewrites, the files, the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunec.artifact import Artifact, Step
from prunec.catalogue import exporter_names
from prunec.deploy.checks import ExportReport
from prunec.deploy.runner import Runner
from prunec.errors import ParityError, ReadOnlyRun, RunError
from prunec.page import write_report
from prunec.pipeline.artifacts import run_pass
from prunec.pipeline.elsewhere import named_runners
from prunec.pipeline.forms import Forms, record, ship
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.opened_recipe import Untrained
from prunec.pipeline.run_records import check_records, steps_of
from prunec.store.environment import build
from prunec.store.kept_records import keep_records
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished


def export(
    run: RunFolder,
    output: Path | None,
    forms: Sequence[str] = (),
    tell: Callable[[str], None] = print,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    untrained: Untrained | None = None,
    with_recipe: bool = True,
    runners: Sequence[str] = (),
    layout: str = "",
) -> ExportReport:
    """Run the rewrites that follow training, write every form, and prove each file equal.

    A file takes its place only if every check of it passed; otherwise it is left in the folder
    ``rejected`` of its form. The run is marked as exported if all of them did.

    Args:
        run: a trained run, or a new one of a recipe without a training pass.
        output: where the file goes besides the run, of an export in one form.
        forms: forms to write besides those that the recipe names.
        tell: takes a line a step.
        options: form → options of its exporter that take the place of the recipe's.
        untrained: the network as a recipe without a training pass builds it, where it is at hand.
        with_recipe: whether the files hold the recipe's text.
        runners: names of runners that the files are proven on besides those here.
        layout: of images as bytes, whose normalisation goes into the files; empty: it does not.

    Raises:
        RunError: the run was not trained to its end, another process works on it, or something
            cannot be written.
        NotExact: a rewrite changed the network's function, or a file is not what was written.
    """
    _require_trained(run)
    others = named_runners(runners, run.recipe)
    with run.held():
        opened = OpenedRun(run, untrained.images if untrained else None)
        made = Forms(run.export, opened.exporters(forms, options), output)
        made.require_places()
        artifact = _rewritten(opened, tell, untrained)
        dense = Artifact(opened.dense, artifact.example)
        shipped = run.export.report, run.export.manifest
        found = check_records(run, steps_of(opened), anew=shipped)
        made = replace(made, records=found, made_by=_other_build(run), with_recipe=with_recipe)
        made = replace(made, runners=others, layout=layout)
        report = ship(made, opened.recipe, artifact, dense, opened.images, tell)
        keep_records(run, *shipped)
        tell(f"Wrote {write_report(run)}")
        if report.passed:
            run.mark("exported")
    return report


def verify(run: RunFolder, onnx_file: Path | None, runners: Sequence[str] = ()) -> ExportReport:
    """Check a file against a run: every form of its export by default.

    The run remembers what was found of its own files and its page shows it, unless the run can only
    be read; what is found of another file says nothing of the run.

    Raises:
        RunError: the run has no export yet, or another process works on it.
        ParityError: the file is not there.
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
    """Hold the run; one that can only be read changes under nobody's hands."""
    with ExitStack() as stack:
        with suppress(ReadOnlyRun):
            stack.enter_context(run.held())
        yield


def _rewritten(
    opened: OpenedRun, tell: Callable[[str], None], untrained: Untrained | None
) -> Artifact:
    """The artifact after the last pass."""
    trained = opened.artifact(opened.trained - 1) if opened.trained else None
    artifact = trained or (untrained.artifact if untrained else opened.fresh())
    for index in range(opened.trained, len(opened.passes)):
        artifact = run_pass(artifact, opened.passes[index], index, opened.run, None, lambda _: None)
        tell(_line(artifact.history[-1]))
    return artifact


def _require_trained(run: RunFolder) -> None:
    """Refuse a run that is not trained to its end; before it is held, which looks like work."""
    opened = OpenedRun(run)
    if opened.trained and not opened.is_done(opened.trained - 1):
        raise unfinished(opened.run)


def _line(step: Step) -> str:
    """One line about a rewrite that ran."""
    error = "" if step.error is None else f", outputs within {step.error:.0e}"
    return (
        f"{step.name}: {step.macs[1]:,} MACs, {step.params[1]:,} parameters{error}; {step.notes[0]}"
    )


def _other_build(run: RunFolder) -> str:
    """Which build of prunec began the run; empty where it was this one."""
    return "" if run.record.get("build") == build() else run.made_by


def _checked(run: RunFolder, files: dict[str, Path], runners: tuple[Runner, ...]) -> ExportReport:
    """What is found of files, by their form; of those that shipped where none is given."""
    opened = OpenedRun(run)
    known = {name.removeprefix("to-") for name in exporter_names()}
    forms = [form for form in run.export.forms if form in known or form in run.export.recorded]
    found = check_records(run, steps_of(opened))
    writers = opened.exporters((*forms, *files))
    made = Forms(run.export, writers, records=found, made_by=_other_build(run), runners=runners)
    paths = files or {writer.form(): made.shipped(writer) for writer in made.exporters}
    for path in paths.values():
        if not path.is_file():
            raise ParityError(
                f"{path} is not there", remedy=f"Export first: prunec export {run.path}"
            )
    artifact = opened.artifact(len(opened.passes) - 1)
    dense = Artifact(opened.dense, artifact.example)
    return made.verify(paths, opened.recipe, artifact, dense, opened.images)
