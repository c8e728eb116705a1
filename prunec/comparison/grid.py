"""The grid of a comparison: recipes × sparsities × seeds; a cell is a recipe that will run.

A cell is the recipe as it was named, with three more overrides: its name, its seed, and the
sparsity of its training pass. So whatever runs a recipe runs a cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from prunec.catalogue import build_passes, self_contained
from prunec.comparison.equal_terms import require_equal
from prunec.contract import Training
from prunec.errors import RecipeError, UsageError
from prunec.recipe import Recipe, digest, load_recipe
from prunec.recipe.values import LONGEST_NAME

SPARSITY = "sparsity"  # the option of a training pass


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        method: the recipe's name.
        sparsity: the share of zeros asked of its training pass; None where it takes none.
        seed: of weights, batches and masks.
        reference: the recipe as it was named.
        changes: ``key=value`` each, all that make the cell of it.
        recipe: the recipe with them.
    """

    method: str
    sparsity: float | None
    seed: int
    reference: str
    changes: tuple[str, ...]
    recipe: Recipe

    @property
    def name(self) -> str:
        """The name of its recipe, and so of its run."""
        return self.recipe.name

    @property
    def digest(self) -> str:
        """What its run is recognised by."""
        return digest(self.recipe)

    @property
    def command(self) -> list[str]:
        """The command line that trains it alone."""
        return [
            "prunec", "train", self.reference,
            *(part for change in self.changes for part in ("--set", change)),
        ]  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """All cells in the order in which they begin, and what should be known of them."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """The recipes' names, in the order of the command line."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))


def parse_sparsities(text: str) -> tuple[float, ...]:
    """Return the sparsities that ``0.9,0.99`` lists, ascending, each once.

    Raises:
        UsageError: one is no number from 0 to below 1.
    """
    found = set()
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1:
            raise UsageError(
                f"--sparsity {text!r}: {part.strip()!r} is no share of zeros",
                remedy="Name numbers from 0 to below 1: --sparsity 0.9,0.99. Without --sparsity "
                "each recipe has its own.",
            )
        found.add(value)
    return tuple(sorted(found))


def expand(
    references: Sequence[str],
    *,
    sparsities: Sequence[float] = (),
    seeds: int = 1,
    changes: Sequence[str] = (),
) -> Grid:
    """Return the grid: seed by seed, so that every recipe has a first result early.

    Args:
        references: files or packaged names.
        sparsities: shares of zeros; none for each recipe's own.
        seeds: how many, from 0.
        changes: ``key=value`` each, for all recipes.

    Raises:
        RecipeError: a recipe is wrong, they do not train on equal terms, or there is no seed.
    """
    _require_free(changes)
    if seeds < 1:
        raise UsageError(
            f"--seeds {seeds}: nothing runs",
            remedy="Name how many seeds each recipe runs with, at least one: --seeds 3",
        )
    lines = [_Line.read(reference, tuple(changes)) for reference in references]
    _require_names(lines, sparsities or (None,), seeds)
    require_equal([line.base for line in lines])
    cells = [
        line.cell(sparsity, seed)
        for seed in range(seeds)
        for sparsity in (sparsities or (None,))
        for line in lines
    ]
    return Grid(tuple({cell.name: cell for cell in cells}.values()), _notes(lines, sparsities))


@dataclass(frozen=True)
class _Line:
    """A recipe of the grid, and which of its passes takes a sparsity.

    Attributes:
        reference: as it was named.
        changes: those of all recipes.
        base: the recipe with them.
        place: the index of the pass; None where no training pass takes a sparsity.
        own: the sparsity that the recipe asks for itself.
    """

    reference: str
    changes: tuple[str, ...]
    base: Recipe
    place: int | None
    own: float | None

    @classmethod
    def read(cls, reference: str, changes: tuple[str, ...]) -> _Line:
        base = load_recipe(reference, changes)
        passes = build_passes(base, reference)
        if not any(isinstance(step, Training) for step in passes):
            raise RecipeError(
                f"{reference}: no pass trains", remedy="Add one: [[pass]] name = …, or leave it out"
            )
        for place, step in reversed(list(enumerate(passes))):
            if isinstance(step, Training) and _takes_sparsity(step):
                own = float(getattr(step, SPARSITY))
                return cls(reference, changes, base, place, own)
        return cls(reference, changes, base, None, None)

    def asked(self, sparsity: float | None) -> float | None:
        """What is asked of the pass: a sparsity, by default the recipe's own."""
        return None if self.place is None else self.own if sparsity is None else sparsity

    def suffix(self, sparsity: float | None, seed: int) -> str:
        """What the name of a cell says beyond the recipe's."""
        asked = self.asked(sparsity)
        return f"{'' if asked is None else f'-s{_brief(asked)}'}-seed{seed}"

    def cell(self, sparsity: float | None, seed: int) -> Cell:
        """The cell at a sparsity, the recipe's own by default, and a seed."""
        asked = self.asked(sparsity)
        more = [f"name={self.base.name}{self.suffix(sparsity, seed)}", f"seed={seed}"]
        if asked is not None:
            more.append(f"pass.{self.place}.{SPARSITY}={asked!r}")
        changes = (*self.changes, *more)
        source = " ".join([self.reference, "with", *more])
        recipe = self_contained(load_recipe(self.reference, changes), source)
        return Cell(self.base.name, asked, seed, self.reference, changes, recipe)


def _brief(number: float) -> str:
    """A number in as few digits as tell it from every other."""
    brief = f"{number:.10g}"
    return brief if float(brief) == number else repr(number)


def _takes_sparsity(step: Training) -> bool:
    """Whether the pass has the option; densities of another run take its place."""
    named = {field.name for field in dataclasses.fields(step)}
    return SPARSITY in named and getattr(step, "spread", "") != "densities"


def _require_free(changes: Sequence[str]) -> None:
    """Refuse overrides of what tells cells apart."""
    for change in changes:
        key = change.partition("=")[0].strip()
        if key == "seed":
            raise RecipeError(
                f"--set {change}: every cell has a seed of its own",
                remedy="--seeds N runs every recipe with the seeds from 0 to N - 1.",
            )


def _require_names(lines: Sequence[_Line], sparsities: Sequence[float | None], seeds: int) -> None:
    """Refuse recipes of one name, and names that leave a cell's no room."""
    names = [line.base.name for line in lines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(
            f"two recipes are called {twice[0]!r}",
            remedy="Give each a name of its own: name = … at the top of its file.",
        )
    for line in lines:
        suffix = max((line.suffix(sparsity, seeds - 1) for sparsity in sparsities), key=len)
        room = LONGEST_NAME - len(suffix)
        if len(line.base.name) > room:
            raise RecipeError(
                f"{line.reference}: the name {line.base.name!r} is too long for the runs of a "
                f"comparison, which add {suffix!r} to it",
                remedy=f"Shorten name = … at the top of the file to {room} characters or fewer.",
            )


def _notes(lines: Sequence[_Line], sparsities: Sequence[float]) -> tuple[str, ...]:
    fixed = [line.base.name for line in lines if line.place is None]
    if not (fixed and sparsities):
        return ()
    them = "it runs" if len(fixed) == 1 else "they run"
    return (
        f"{', '.join(fixed)}: no sparsity is asked of the training pass, so {them} once a seed.",
    )
