"""Checks that records of training and export agree with what is read now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from prunec.artifact import Step
from prunec.cost import Cost
from prunec.deploy.checks.check import Check, failed

_SHOWN = 80  # characters of a value in a message
_MOST = 3  # sentences in a message
_MENDS = "Restore the run's own files, export again for files of export/, or train again."


def compare_manifest(entry: Mapping[str, object], now: Mapping[str, object], flaw: str) -> Check:
    """Return the check that the manifest's entry of a file agrees with what is read now.

    Args:
        entry: entry of the file in the manifest; empty if there is none.
        now: the same keys, read from the run, the network and the file.
        flaw: reason why the manifest cannot be trusted, or empty.
    """
    if not entry or flaw:
        reason = flaw or "the manifest has no entry for this file"
        return failed("manifest", "as recorded", "no record", f"{reason}. Export again.")
    wrong = [key for key, value in now.items() if entry.get(key) != value]
    texts = [f"{key} was {_short(entry.get(key))}, now it is {_short(now[key])}" for key in wrong]
    message = f"the manifest and the files differ: {'; '.join(texts)}." if wrong else ""
    differing = ", ".join(wrong) or "as recorded"
    return Check("manifest", "as recorded", differing, None, not wrong, message)


def compare_run_records(count: int, flaws: Sequence[str]) -> Check:
    """Return the check that the records of a run are as it wrote them.

    Args:
        count: required number of records.
        flaws: faults of records, one sentence each.
    """
    more = f"; and {len(flaws) - _MOST} more" if len(flaws) > _MOST else ""
    message = f"{'; '.join(flaws[:_MOST])}{more}. {_MENDS}" if flaws else ""
    expected = count or "as written"
    return Check("records", expected, max(count - len(flaws), 0), None, not flaws, message)


def compare_history(history: Sequence[Step], cost: Cost, dense: Cost, made_by: str = "") -> Check:
    """Return the check that the passes left the costs they recorded, by counting again.

    Args:
        history: one step per pass.
        cost: cost of the shipped network.
        dense: cost of the dense network.
        made_by: build of prunec that started the run, if it is another one; else empty.
    """
    wrong = _first_flaw(history, cost, dense)
    name, expected = "history", f"{dense.macs:,} → {cost.macs:,} MACs"
    if not history:
        return failed(name, expected, "no record", "the run has no history of its passes.")
    recorded = f"{history[0].macs[0]:,} → {history[-1].macs[1]:,} MACs"
    if wrong and made_by:
        wrong = f"{wrong} {made_by} started the run: export it with that build, or train again."
    return Check(name, expected, recorded, None, not wrong, wrong)


def _first_flaw(history: Sequence[Step], cost: Cost, dense: Cost) -> str:
    counted = [("the dense network", dense), ("the network that ships", cost)]
    recorded = [(step.macs[end], step.params[end]) for step, end in _ends(history)]
    for (what, now), (macs, params) in zip(counted, recorded, strict=False):
        if (now.macs, now.params) != (macs, params):
            return (
                f"{what} has {now.macs:,} MACs and {now.params:,} parameters; the run's history "
                f"says {macs} and {params}: the run or the code of the network was changed."
            )
    for before, after in pairwise(history):
        if (before.macs[1], before.params[1]) != (after.macs[0], after.params[0]):
            return f"{after.name} does not start from the result of {before.name}."
    return ""


def _ends(history: Sequence[Step]) -> list[tuple[Step, int]]:
    """Return the first step with index 0 (before it), the last with 1 (after it)."""
    return [(history[0], 0), (history[-1], 1)] if history else []


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
