"""Outcomes of mutants, family by family: the table that the command prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Outcome of one mutant.

    Attributes:
        family: how it was made.
        name: which it is.
        harmful: whether it computes something else, or nothing.
        caught: whether it was refused.
        crashed: the traceback's last line; empty where there was none.
        named: whether the message names the culprit; None where nothing of it can be named.
        lies: whether it computes the same, and says something else of it.
    """

    family: str
    name: str
    harmful: bool
    caught: bool
    crashed: str
    named: bool | None
    lies: bool = False

    @property
    def missed(self) -> bool:
        """Return whether it would have shipped, or been believed."""
        return (self.harmful or self.lies) and not self.caught


def rows(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the lines of a Markdown table, one family per line, all of them last."""
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.family, []).append(outcome)
    every = [outcome for members in families.values() for outcome in members]
    columns = _COLUMNS if any(o.lies for o in every) else _COLUMNS[:3] + _COLUMNS[5:]
    lines = [_line(["family", *(name for name, _ in columns)]), "|---|" + "--:|" * len(columns)]
    for family, members in (*families.items(), ("**all**", every)):
        lines.append(_line([family, *(cell(members) for _, cell in columns)]))
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _named(members: list[Outcome]) -> str:
    nameable = [o.named for o in members if o.harmful and o.caught and o.named is not None]
    return f"{sum(nameable)} of {len(nameable)}"


_COLUMNS: tuple[tuple[str, Callable[[list[Outcome]], str]], ...] = (
    ("mutants", lambda members: f"{len(members)}"),
    ("harmful", lambda members: f"{sum(o.harmful for o in members)}"),
    ("of them caught", lambda members: f"{sum(o.harmful and o.caught for o in members)}"),
    ("say something else", lambda members: f"{sum(o.lies for o in members)}"),
    ("of them caught", lambda members: f"{sum(o.lies and o.caught for o in members)}"),
    ("tracebacks", lambda members: f"{sum(bool(o.crashed) for o in members)}"),
    ("culprit named", _named),
)
