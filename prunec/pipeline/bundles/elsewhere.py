"""Check of a bundle on another machine: copy it there, run its check.py, read back the results.

A bundle is sent only if its check.py is that of this prunec: any other is an unknown program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prunec.catalogue import exporter
from prunec.deploy.checks import Check, ExportReport, Report
from prunec.deploy.checks.check import failed
from prunec.deploy.exporter import Exact
from prunec.deploy.golden import TOLERANCE
from prunec.deploy.runner import Identity, Runner
from prunec.errors import RecipeError, RunError
from prunec.pipeline.bundles.layout import CHECK, LOSSY_TOLERANCE
from prunec.pipeline.bundles.reading import opened_bundle
from prunec.pipeline.bundles.verifying import verify_bundle
from prunec.pipeline.elsewhere import named_runners

Forms = dict[str, Report]


@runtime_checkable
class _Checks(Protocol):
    """A runner to which a bundle can be copied."""

    def check_bundle(self, folder: Path) -> Mapping[str, Any]: ...


def verify_bundle_on(path: Path, names: Sequence[str], key: Path | None = None) -> ExportReport:
    """Check a bundle here and, if its contents are sound, on every runner named.

    Args:
        path: the bundle.
        names: names of runners.
        key: public key of the signer.

    Raises:
        RunError: it is not a bundle, cannot be read, or its check.py is not that of this prunec.
        PrunecError: a runner does not exist, cannot be reached, or cannot check a bundle.
    """
    runners = named_runners(names)
    report = verify_bundle(path, key)
    if not runners or not report.forms["bundle"].passed:
        return report
    forms: Forms = dict(report.forms)
    with opened_bundle(path) as bundle:
        _require_ours(bundle.folder / CHECK, path)
        for runner in runners:
            forms = _with(forms, runner, _result_of(runner, bundle.folder))
    return replace(report, forms=forms)


def _require_ours(check: Path, path: Path) -> None:
    # The device runs check.py: an unknown one would be somebody's code with the user's SSH keys.
    ours = Path(__file__).with_name(CHECK).read_bytes()
    if not check.is_file() or check.read_bytes() != ours:
        raise RunError(
            f"{CHECK} of {path} is not that of this prunec, so the bundle was not sent",
            remedy="Read it, copy the bundle there and run it yourself.",
        )


def _result_of(runner: Runner, folder: Path) -> Mapping[str, Any]:
    if not isinstance(runner, _Checks):
        raise RecipeError(
            f"{runner.runner_name()} runs files on this machine only",
            remedy="Name a device to copy the bundle to: --runner ssh://user@board.",
        )
    return runner.check_bundle(folder)


def _with(forms: Forms, runner: Runner, result: Mapping[str, Any]) -> Forms:
    """Return the reports with the checks that check.py made on a runner."""
    identity = runner.identity
    name = identity.name
    flaws = [str(flaw) for flaw in result.get("flaws", [])]
    message = f"{'; '.join(flaws)}." if flaws else ""
    arrived = Check(f"{name}: file digests", 0, len(flaws), None, not flaws, message)
    made = {**forms, "bundle": _more(forms["bundle"], identity, [arrived], [])}
    for entry in result.get("forms", []):
        form = str(entry.get("form"))
        if form in made:
            checks, remarks = checks_of(form, entry, name, runner.timeless)
            made[form] = _more(made[form], identity, checks, remarks)
    return made


def checks_of(
    form: str, entry: Mapping[str, Any], name: str, timeless: str
) -> tuple[list[Check], list[str]]:
    """Convert the result of check.py for a form.

    Args:
        form: name of the form.
        entry: result of check.py.
        name: name of the runner.
        timeless: why times on the runner mean nothing; empty where they do.

    Returns:
        The check; remarks on latency, or on why nothing was checked.
    """
    title = f"{name}: golden values"
    why = str(entry.get("why", ""))
    if entry["verdict"] == "not checked":
        return [], [f"{form} on {name}: {why}"]
    apart = entry.get("difference")
    # `inf` arrives as a text: JSON has no number for it.
    if not isinstance(apart, int | float):
        return [failed(title, 0.0, "no outputs", f"{why or 'no number came back'}.")], []
    exact = issubclass(exporter(f"to-{form}"), Exact)  # whatever the manifest allows
    limit = TOLERANCE if exact else LOSSY_TOLERANCE
    passed = entry["verdict"] == "PASS" and apart <= limit
    wrong = "" if passed else f"outputs differ by {apart:.3g} of their largest value."
    check = Check(title, 0.0, float(apart), limit, passed, wrong)
    return [check], [] if timeless else [_latency(form, entry, name)]


def _latency(form: str, entry: Mapping[str, Any], name: str) -> str:
    """Return latency and memory on the runner, in words."""
    times, held = entry["milliseconds"], entry.get("resident_bytes")
    memory = f", {held / 2**20:.0f} MiB resident" if held else ""
    return (
        f"{form} on {name}: {times['median']:.3f} ms per sample (median of {times['runs']} runs; "
        f"p95 {times['p95']:.3f}, spread {times['spread']:.3f}){memory}; {entry['loaded']}"
    )


def _more(
    report: Report, identity: Identity, checks: Sequence[Check], remarks: Sequence[str]
) -> Report:
    details = report.details
    others = (*details.other_runners, *([identity] if checks else []))
    remarked = [remark for remark in remarks if checks]
    unchecked = [remark for remark in remarks if not checks]
    details = replace(
        details,
        other_runners=others,
        remarks=(*details.remarks, *remarked),
        not_checked=(*details.not_checked, *unchecked),
    )
    return Report((*report.checks, *checks), details)
