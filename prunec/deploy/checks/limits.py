"""Checks what a file may take of its device: memory, time on a named runner, operators."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from prunec.cost.lifetimes import Peak
from prunec.deploy.checks.budgets import KEPT
from prunec.deploy.checks.check import Check
from prunec.deploy.memory import Memory
from prunec.deploy.operator_sets import OperatorSet
from prunec.deploy.runner import Identity
from prunec.deploy.timing import CONFIDENCE, median_interval, quartiles

_SHOWN = 3


def check_activations(limit: int, found: Peak) -> Check:
    """Return the check that no operation holds more than a limit of bytes."""
    held = ", ".join(f"{name} ({size:,})" for name, size in found.held[:_SHOWN])
    more = f" and {len(found.held) - _SHOWN} more" if len(found.held) > _SHOWN else ""
    wrong = (
        f"{found.operator} at {found.operation} holds {found.bytes:,} bytes: {held}{more}; the "
        f"recipe allows {limit:,}. Cut channels there, or feed smaller inputs. "
        f"{KEPT.format('activation_bytes=N')}"
    )
    return _bytes("budget: activation memory", limit, found.bytes, wrong)


def check_resident(limit: int, found: Memory) -> Check:
    """Return the check that a process takes at most a limit of bytes for a file."""
    wrong = (
        f"a process with the runtime alone takes {found.peak:,} bytes more for the file, "
        f"{found.loaded:,} of them when it is loaded; the recipe allows {limit:,}. Cut more, or "
        f"ship a form of fewer bytes (--int8, --fp16). {KEPT.format('resident_bytes=N')}"
    )
    return _bytes("budget: resident memory", limit, found.peak, wrong)


def check_milliseconds(limit: float, identity: Identity, times: Sequence[float]) -> Check:
    """Return the check that a sample takes at most so long on a runner, noise aside.

    It fails where the whole interval of the median, at ``CONFIDENCE``, lies above the limit.

    Args:
        limit: milliseconds.
        identity: of the runner.
        times: milliseconds of a sample, one a round.
    """
    median, (least, most) = statistics.median(times), median_interval(list(times))
    low, high = quartiles(times)
    told = f"{median:.3g} ms ({least:.3g}–{most:.3g} at {CONFIDENCE:.0%})"
    passed = (least or median) <= limit
    wrong = (
        f"a sample takes {told} on {identity.name} {identity.version}, {identity.device}; half of "
        f"{len(times)} rounds lie within {high - low:.2g} ms; the recipe allows {limit:g} ms. Cut "
        f"more, or ship a form that is faster there. "
        f"{KEPT.format(f'latency_ms={{{identity.name}=MS}}')}"
    )
    name = f"budget: latency on {identity.name}"
    return Check(name, f"≤ {limit:g} ms", told, None, passed, "" if passed else wrong)


def check_operators(target: OperatorSet, used: Sequence[tuple[str, str]]) -> Check:
    """Return the check that a file uses no operator that a target lacks.

    Args:
        target: what it may use.
        used: name and operator of every node.
    """
    missing = target.missing(used)
    places = "; ".join(
        f"{operator} at {', '.join(names[:_SHOWN])}"
        f"{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for operator, names in sorted(missing.items())
    )
    wrong = (
        f"{target.name} ({target.what}) has no {places}. Write the network in operators that it "
        f"has, or build that runtime with them. {KEPT.format('operators=false')}"
    )
    found = ", ".join(sorted(missing)) or "all of them"
    expected = f"all in {target.name}"
    return Check("budget: operators", expected, found, None, not missing, wrong if missing else "")


def _bytes(name: str, limit: int, found: int, wrong: str) -> Check:
    passed = found <= limit
    return Check(name, f"≤ {limit:,}", found, None, passed, "" if passed else wrong)
