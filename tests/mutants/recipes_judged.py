"""Treatment of mutated recipes before anything is built, and its table.

``python tests/mutants/recipes_judged.py`` judges all 10,000 and prints the table.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from recipes_made import mutant

from prunec.batches.data import built_transforms
from prunec.catalogue import build_exporters, build_passes
from prunec.errors import PrunecError
from prunec.recipe import dumps, loads, packaged_recipes, packaged_text
from prunec.recipe.overrides import override
from prunec.recipe.recipe import _parse, _validated

ALL = 10_000
LINES, SECONDS = 20, 2.0


@dataclass(frozen=True)
class Judged:
    """A mutant: its kind, whether it was taken, what was said of it, and what else happened."""

    number: int
    kind: str
    taken: bool
    error: str
    traceback: str
    seconds: float

    @property
    def flaw(self) -> str:
        """Return what is wrong with its treatment; empty where nothing is."""
        if self.traceback:
            return f"mutant {self.number} ({self.kind}): {self.traceback}"
        if self.error.count("\n") >= LINES:
            return f"mutant {self.number} ({self.kind}): an error of more than {LINES} lines"
        if self.seconds > SECONDS:
            return f"mutant {self.number} ({self.kind}): {self.seconds:.1f} s"
        return ""


def texts() -> list[str]:
    return [packaged_text(name) for name in packaged_recipes()]


def warm() -> None:
    """Import what every command imports once."""
    for text in texts():
        _read(text)


def judge(numbers: Iterable[int]) -> list[Judged]:
    given = texts()
    collected = []
    for number in numbers:
        kind, text = mutant(given, number)
        begin = time.process_time()
        error = traceback = ""
        try:
            _read(text)
        except PrunecError as refused:
            error = str(refused)
        except BaseException as other:
            traceback = f"{type(other).__name__}: {str(other)[:200]}"
        seconds = time.process_time() - begin
        collected.append(Judged(number, kind, not (error or traceback), error, traceback, seconds))
    return collected


def _read(text: str) -> None:
    """All that is checked of a recipe before anything is loaded or built."""
    body, _, change = text.partition("\n#--set ")
    document = _parse(body, "mutant.toml")
    recipe = _validated(override(document, change) if change else document, "mutant.toml")
    if loads(dumps(recipe)) != recipe:
        raise AssertionError("it does not survive its own text")
    build_passes(recipe, "mutant.toml")
    build_exporters(recipe, "mutant.toml")
    built_transforms(recipe.data)


def table(judged: Iterable[Judged]) -> str:
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        kinds[one.kind].append(one)
        kinds["all"].append(one)
    rows = ["| mutation | mutants | accepted | refused | tracebacks | longest error | slowest, s |"]
    rows.append("|---|---|---|---|---|---|---|")
    for kind, some in sorted(kinds.items(), key=lambda item: (item[0] == "all", item[0])):
        refused = [one for one in some if one.error]
        longest = max((one.error.count("\n") + 1 for one in refused), default=0)
        rows.append(
            f"| {kind} | {len(some):,} | {sum(one.taken for one in some):,} | {len(refused):,} | "
            f"{sum(bool(one.traceback) for one in some)} | {longest} | "
            f"{max(one.seconds for one in some):.2f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    warm()
    everything = judge(range(int(sys.argv[1]) if len(sys.argv) > 1 else ALL))
    print(table(everything))
    flaws = [one.flaw for one in everything if one.flaw]
    print("\n".join(flaws[:50]) or "No traceback, no error above 20 lines, none slower than 2 s.")
    sys.exit(bool(flaws))
