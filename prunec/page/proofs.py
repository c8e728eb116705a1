"""Sections on passes, checks, layers and measured settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prunec.artifact import Step
from prunec.charts.figures import bars
from prunec.charts.scales import size
from prunec.contract import BADLY_SCALED, EXACT, ROUNDING
from prunec.deploy.checks.by_runner import form_row, has_several, runners_of
from prunec.deploy.checks.render import expected_text, value_text
from prunec.inspection.layers import Layer
from prunec.page.reading import Parity, RunRecord, Setting, Settings
from prunec.wording import percent_of, shortened


@dataclass(frozen=True)
class PassRow:
    """A row of the table of passes; ``kind`` is ``good``, ``bad``, or empty for training."""

    name: str
    options: str
    proof: str
    kind: str
    macs: str
    params: str
    seconds: str
    digest: str
    notes: tuple[str, ...]
    details: str


@dataclass(frozen=True)
class CheckRow:
    """A row of a table of checks, in words."""

    name: str
    expected: str
    actual: str
    passed: bool
    message: str


@dataclass(frozen=True)
class CheckTable:
    """The table of a file's checks: title with time and runners, unchecked properties, remarks."""

    title: str
    file: str
    rows: tuple[CheckRow, ...]
    unchecked: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class LayerRow:
    """A row of the table of layers: before and after the cut."""

    name: str
    bars: Markup
    channels: str
    before: str
    after: str
    left: str


@dataclass(frozen=True)
class SettingRow:
    """A row of the table of measured settings."""

    cells: tuple[str, ...]
    chosen: bool


def pass_rows(history: Sequence[Step]) -> list[PassRow]:
    """Return one row per pass that ran."""
    return [
        PassRow(
            name=step.name,
            options=", ".join(
                f"{key} = {shortened(str(value), 200)}"
                for key, value in step.options.items()
                if value is not None
            ),
            proof=_proof(step.error),
            kind="" if step.error is None else "good" if step.error <= BADLY_SCALED else "bad",
            macs=_change(step.macs),
            params=_change(step.params),
            seconds=f"{step.seconds:,.1f} s",
            digest=step.digest,
            notes=step.notes,
            details=json.dumps(step.details, indent=2, ensure_ascii=False) if step.details else "",
        )
        for step in history
    ]


def _proof(error: float | None) -> str:
    if error is None:
        return "training: it changes weights, so there is no equality to prove"
    if error == 0:
        return "outputs before and after are identical"
    difference = f"outputs before and after differ by {error:.1e} of their largest value"
    if error <= ROUNDING:
        return f"{difference}, {ROUNDING:.0e} is allowed"
    if error <= BADLY_SCALED:
        return f"{difference}, which is rounding: in float64 they agree to {EXACT:.0e}"
    return f"{difference}: not exact, do not ship"


def _change(pair: tuple[int, int]) -> str:
    before, after = pair
    if before == after:
        return f"{after:,}"
    left = f" ({percent_of(after, before)})" if before else ""
    return f"{before:,} → {after:,}{left}"


def check_tables(run: RunRecord) -> list[CheckTable]:
    """Return one table per form: of a later ``prunec verify``, and of the export."""
    named = (("Checked again by prunec verify", run.verified), ("At export", run.exported))
    return [
        _check_table(title, form, parity, exports.checked)
        for title, exports in named
        if exports
        for form, parity in exports.forms.items()
    ]


Outcomes = tuple[str, str, list[bool | None]]
"""(form, its size, whether each runner proved it; None where the runner did not run it)."""


def runner_table(run: RunRecord) -> tuple[tuple[str, ...], list[Outcomes]]:
    """Return all runners and one row per form; empty where there is only one runner or form."""
    exports = run.verified or run.exported
    rows = [
        form_row(
            form,
            parity.details.bytes,
            parity.details.runner.name if parity.details.runner else "",
            [other.name for other in parity.details.others],
            parity.checks,
        )
        for form, parity in (exports.forms.items() if exports else ())
    ]
    runners = runners_of(rows)
    outcomes = [
        (
            row.form,
            "" if row.bytes is None else size(row.bytes),
            [row.outcomes.get(name) for name in runners],
        )
        for row in rows
    ]
    return (runners, outcomes) if has_several(rows) else ((), [])


def _check_table(title: str, form: str, parity: Parity, checked: str) -> CheckTable:
    rows = tuple(
        CheckRow(c.name, expected_text(c), value_text(c.found), c.passed, c.message)
        for c in parity.checks
    )
    by = [*filter(None, [parity.details.runner]), *parity.details.others]
    runners = " and on ".join(f"{one.name} {one.version}, {one.device}" for one in by)
    parts = (f"{title}: {form}", f"on {runners}" if by else "")
    when = ", ".join(part for part in (*parts, checked) if part)
    return CheckTable(
        when, parity.details.file, rows, parity.details.unchecked, parity.details.remarks
    )


def shipped_layers(run: RunRecord) -> tuple[Layer, ...]:
    """Return every layer with a cost, in order of computation; none before an export."""
    return run.exported.layers if run.exported else ()


def layer_rows(run: RunRecord) -> list[LayerRow]:
    """Return one row per layer, with its bars."""
    layers = shipped_layers(run)
    most = max((layer.macs[1] for layer in layers), default=0)
    return [_layer_row(layer, most) for layer in layers]


def all_layers(run: RunRecord) -> tuple[str, str, str]:
    """Return the MACs of all layers: dense, exported, and their ratio in percent."""
    layers = shipped_layers(run)
    after, before = (sum(layer.macs[i] for layer in layers) for i in (0, 1))
    return f"{before:,}", f"{after:,}", percent_of(after, before)


def _layer_row(layer: Layer, most: int) -> LayerRow:
    after, before = layer.macs
    # 1: a product of two activations has no weights, so none of its MACs is wasted.
    nonzero = layer.nonzero_params / layer.params[0] if layer.params[0] else 1.0
    return LayerRow(
        name=layer.name,
        bars=bars(f"{layer.name}: {before:,} MACs, then {after:,}", before, after, most, nonzero),
        channels=_channels(layer),
        before=f"{before:,}",
        after=f"{after:,}",
        left=percent_of(after, before),
    )


def _channels(layer: Layer) -> str:
    if layer.inputs is None or layer.outputs is None:
        return ""
    reads, makes = (
        f"{a:,}" if a == b else f"{a:,}/{b:,}" for a, b in (layer.inputs, layer.outputs)
    )
    return f"{reads} → {makes} channels"


def setting_rows(settings: Settings) -> list[SettingRow]:
    """Return one row per measured setting, the fastest first."""
    measured = settings.measured or (settings.chosen,)
    # Settings that failed have no time and come last.
    by_time = sorted(measured, key=lambda s: (s.seconds is None, s.seconds or 0.0))
    return [SettingRow(_cells(s), s.key == settings.chosen.key) for s in by_time]


def _cells(setting: Setting) -> tuple[str, ...]:
    words = {True: "yes", False: "no", None: "—"}
    return (
        setting.precision or "—",
        words[setting.channels_last],
        "—" if setting.threads is None else str(setting.threads),
        "—" if setting.seconds is None else f"{1e3 * setting.seconds:,.1f}",
        "—" if setting.loss is None else f"{setting.loss:.4g}",
        words[setting.agrees],
    )
