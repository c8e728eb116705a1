"""What became of mutants, family by family: the table that the command prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        family: how it was made.
        name: which it is.
        harmful: whether it computes something else, or nothing.
        caught: whether it was refused.
        crashed: the traceback's last line; empty where there was none.
        named: whether the message names the culprit; None where nothing of it can be named.
    """

    family: str
    name: str
    harmful: bool
    caught: bool
    crashed: str
    named: bool | None

    @property
    def missed(self) -> bool:
        """Whether it would have shipped."""
        return self.harmful and not self.caught


def rows(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the lines of a Markdown table, a family a line, all of them last."""
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.family, []).append(outcome)
    every = [outcome for found in families.values() for outcome in found]
    head = ["family", "mutants", "harmful", "of them caught", "tracebacks", "culprit named"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return lines + [_row(name, found) for name, found in (*families.items(), ("**all**", every))]


def _row(name: str, found: list[Outcome]) -> str:
    harmful = [outcome for outcome in found if outcome.harmful]
    caught = [outcome for outcome in harmful if outcome.caught]
    nameable = [outcome.named for outcome in caught if outcome.named is not None]
    cells = [
        name,
        f"{len(found)}",
        f"{len(harmful)}",
        f"{len(caught)}",
        f"{sum(bool(outcome.crashed) for outcome in found)}",
        f"{sum(nameable)} of {len(nameable)}",
    ]
    return "| " + " | ".join(cells) + " |"
