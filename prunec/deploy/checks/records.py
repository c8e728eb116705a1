"""Checks that what was written down at training and at export agrees with what is read now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from prunec.artifact import Step
from prunec.cost import Cost
from prunec.deploy.checks.check import Check, failed

_SHOWN = 80  # characters of a value
_MOST = 3  # sentences
_MENDS = "Put back the run's own files, export again where it is one of export/, or train again."


def compare_manifest(said: Mapping[str, object], now: Mapping[str, object], flaw: str) -> Check:
    """Return the check that the manifest says of a file what is read of it now.

    Args:
        said: what the manifest says of the file; empty where it says nothing.
        now: the same keys, from the run, the network and the file themselves.
        flaw: why the manifest cannot be believed; empty where it can.
    """
    if not said or flaw:
        reason = flaw or "the manifest says nothing of this file"
        return failed("manifest", "as recorded", "no record", f"{reason}. Export again.")
    wrong = [key for key, value in now.items() if said.get(key) != value]
    texts = [f"{key} was {_short(said.get(key))}, now it is {_short(now[key])}" for key in wrong]
    message = f"the manifest and what is there differ: {'; '.join(texts)}." if wrong else ""
    found = ", ".join(wrong) or "as recorded"
    return Check("manifest", "as recorded", found, None, not wrong, message)


def compare_run_records(count: int, flaws: Sequence[str]) -> Check:
    """Return the check that the records of a run are what it wrote.

    Args:
        count: how many there must be.
        flaws: what is wrong with any of them, a sentence each.
    """
    more = f"; and {len(flaws) - _MOST} more" if len(flaws) > _MOST else ""
    message = f"{'; '.join(flaws[:_MOST])}{more}. {_MENDS}" if flaws else ""
    expected = count or "as written"
    return Check("records", expected, max(count - len(flaws), 0), None, not flaws, message)


def compare_history(history: Sequence[Step], cost: Cost, dense: Cost, made_by: str = "") -> Check:
    """Return the check that the passes left what they say: costs are counted again.

    Args:
        history: a step per pass.
        cost: of the network that ships.
        dense: of the network before anything was cut.
        made_by: which other build began the run; empty where this one did.
    """
    wrong = _first_flaw(history, cost, dense)
    name, expected = "history", f"{dense.macs:,} → {cost.macs:,} MACs"
    if not history:
        return failed(name, expected, "no record", "the run has no history of its passes.")
    found = f"{history[0].macs[0]:,} → {history[-1].macs[1]:,} MACs"
    if wrong and made_by:
        wrong = f"{wrong} {made_by} began the run: export it with that build, or train again."
    return Check(name, expected, found, None, not wrong, wrong)


def _first_flaw(history: Sequence[Step], cost: Cost, dense: Cost) -> str:
    counted = [("the dense network", dense), ("the network that ships", cost)]
    said = [(step.macs[end], step.params[end]) for step, end in _ends(history)]
    for (what, found), (macs, params) in zip(counted, said, strict=False):
        if (found.macs, found.params) != (macs, params):
            return (
                f"{what} has {found.macs:,} MACs and {found.params:,} parameters; the run's "
                f"history says {macs} and {params}: it was changed, or the code of the network."
            )
    for before, after in pairwise(history):
        if (before.macs[1], before.params[1]) != (after.macs[0], after.params[0]):
            return f"{after.name} does not begin with what {before.name} left."
    return ""


def _ends(history: Sequence[Step]) -> list[tuple[Step, int]]:
    """The first step, before it; the last one, after it."""
    return [(history[0], 0), (history[-1], 1)] if history else []


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
