"""Checks of the resources that a file needs on its device: memory, time, operators."""

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
from prunec.wording import percent

_SHOWN = 3  # items named in a message


def check_activations(limit: int, peak: Peak) -> Check:
    """Return the check that no operation holds more activation memory than the limit."""
    held = ", ".join(f"{name} ({size:,})" for name, size in peak.held[:_SHOWN])
    more = f" and {len(peak.held) - _SHOWN} more" if len(peak.held) > _SHOWN else ""
    wrong = (
        f"{peak.operator} at {peak.operation} holds {peak.bytes:,} bytes: {held}{more}; the "
        f"recipe allows {limit:,}. Cut channels there, or feed smaller inputs. "
        f"{KEPT.format('activation_bytes=N')}"
    )
    return _bytes("budget: activation memory", limit, peak.bytes, wrong)


def check_resident(limit: int, memory: Memory) -> Check:
    """Return the check that a process needs at most ``limit`` bytes of memory for a file."""
    wrong = (
        f"a process with the runtime alone takes {memory.peak:,} bytes more for the file, "
        f"{memory.loaded:,} of them when it is loaded; the recipe allows {limit:,}. Cut more, or "
        f"ship a form of fewer bytes (--int8, --fp16). {KEPT.format('resident_bytes=N')}"
    )
    return _bytes("budget: resident memory", limit, memory.peak, wrong)


def check_milliseconds(limit: float, identity: Identity, times: Sequence[float]) -> Check:
    """Return the check that one sample takes at most ``limit`` milliseconds on a runner.

    It fails only if the whole confidence interval of the median, at ``CONFIDENCE``, is above the
    limit.

    Args:
        limit: limit in milliseconds.
        identity: runner.
        times: milliseconds per sample, one value per round.
    """
    median, (least, most) = statistics.median(times), median_interval(list(times))
    low, high = quartiles(times)
    measured = f"{median:.3g} ms ({least:.3g}–{most:.3g} at {percent(CONFIDENCE)})"
    # 0 stands for no interval, of too few rounds.
    passed = (least or median) <= limit
    wrong = (
        f"a sample takes {measured} on {identity.name} {identity.version}, {identity.device}; half "
        f"of {len(times)} rounds lie within {high - low:.2g} ms; the recipe allows {limit:g} ms. "
        f"Cut more, or ship a form that is faster there. "
        f"{KEPT.format(f'latency_ms={{{identity.name}=MS}}')}"
    )
    name = f"budget: latency on {identity.name}"
    return Check(name, f"≤ {limit:g} ms", measured, None, passed, "" if passed else wrong)


def check_operators(target: OperatorSet, used: Sequence[tuple[str, str]], suffix: str) -> Check:
    """Return the check that a target has every operator that a file uses.

    Args:
        target: operators of the target.
        used: (name, operator) of every node.
        suffix: suffix of the file.
    """
    missing = target.missing(used, suffix)
    places = "; ".join(
        f"{operator} at {', '.join(names[:_SHOWN])}"
        f"{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for operator, names in sorted(missing.items())
    )
    wrong = (
        f"{target.name} ({target.what}) has no {places}. Write the network in operators that it "
        f"has, or build that runtime with them. {KEPT.format('operators=false')}"
    )
    lacking = ", ".join(sorted(missing)) or "all of them"
    expected = f"all in {target.name}"
    return Check(
        "budget: operators", expected, lacking, None, not missing, wrong if missing else ""
    )


def _bytes(name: str, limit: int, actual: int, wrong: str) -> Check:
    passed = actual <= limit
    return Check(name, f"≤ {limit:,}", actual, None, passed, "" if passed else wrong)
