"""Grid of a comparison: recipes × sparsities × seeds; every cell is a recipe to run.

A cell is the named recipe with three more overrides: name, seed, and sparsity of its training pass.
It can thus be run like any recipe.
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

SPARSITY = "sparsity"  # name of the option of training passes


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        method: name of the recipe.
        sparsity: sparsity that its training pass aims at; None where the pass has no such option.
        seed: seed of weights, batches and masks.
        reference: the recipe as named on the command line.
        changes: all overrides ``key=value`` that turn the recipe into the cell.
        recipe: the recipe with these overrides.
    """

    method: str
    sparsity: float | None
    seed: int
    reference: str
    changes: tuple[str, ...]
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of the cell's recipe, and of its run."""
        return self.recipe.name

    @property
    def digest(self) -> str:
        """Digest of the cell's recipe, which identifies its run."""
        return digest(self.recipe)

    @property
    def command(self) -> list[str]:
        """Command line that trains only this cell."""
        return [
            "prunec", "train", self.reference,
            *(part for change in self.changes for part in ("--set", change)),
        ]  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """All cells in the order in which they start, and notes for the user."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the recipes, in the order of the command line."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))


def parse_sparsities(text: str) -> tuple[float, ...]:
    """Parse a list of sparsities, ``0.9,0.99``; return them ascending, each once.

    Raises:
        UsageError: an entry is not a number from 0 to below 1.
    """
    sparsities = set()
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1:
            raise UsageError(
                f"--sparsity {text!r}: {part.strip()!r} is not a sparsity",
                remedy="Give numbers from 0 to below 1: --sparsity 0.9,0.99. Without --sparsity, "
                "each recipe keeps its own.",
            )
        sparsities.add(value)
    return tuple(sorted(sparsities))


def expand(
    references: Sequence[str],
    *,
    sparsities: Sequence[float] = (),
    seeds: int = 1,
    changes: Sequence[str] = (),
) -> Grid:
    """Build the grid, ordered by seed, so that every recipe has a first result early.

    Args:
        references: recipe files or packaged names.
        sparsities: sparsities of each recipe; empty for the recipe's own.
        seeds: number of seeds, from 0.
        changes: overrides ``key=value`` for all recipes.

    Raises:
        RecipeError: a recipe is wrong, they do not train on equal terms, or there is no seed.
    """
    _require_free(changes)
    if seeds < 1:
        raise UsageError(
            f"--seeds {seeds}: must be at least 1",
            remedy="Give the number of runs of each recipe and sparsity: --seeds 3.",
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
    # By name: a recipe without a sparsity gives the same cell at every sparsity.
    return Grid(tuple({cell.name: cell for cell in cells}.values()), _notes(lines, sparsities))


@dataclass(frozen=True)
class _Line:
    """A recipe of the grid, and its pass that has a sparsity.

    Attributes:
        reference: the recipe as named on the command line.
        changes: overrides for all recipes.
        base: the recipe with these overrides.
        place: index of the pass; None where no training pass has a sparsity.
        own: the recipe's own sparsity.
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
                f"{reference} has no training pass",
                remedy="Add one: [[pass]] name = …; or leave the recipe out.",
            )
        # The last training pass decides the sparsity of the file.
        for place, step in reversed(list(enumerate(passes))):
            if isinstance(step, Training) and _takes_sparsity(step):
                own = float(getattr(step, SPARSITY))
                return cls(reference, changes, base, place, own)
        return cls(reference, changes, base, None, None)

    def asked(self, sparsity: float | None) -> float | None:
        """Return the sparsity of the pass: the given one, by default the recipe's own."""
        return None if self.place is None else self.own if sparsity is None else sparsity

    def suffix(self, sparsity: float | None, seed: int) -> str:
        """Return the part of a cell's name after the recipe's."""
        asked = self.asked(sparsity)
        return f"{'' if asked is None else f'-s{_brief(asked)}'}-seed{seed}"

    def cell(self, sparsity: float | None, seed: int) -> Cell:
        """Return the cell of a sparsity, by default the recipe's own, and a seed."""
        asked = self.asked(sparsity)
        more = [f"name={self.base.name}{self.suffix(sparsity, seed)}", f"seed={seed}"]
        if asked is not None:
            # By index: two passes may have the same name.
            more.append(f"pass.{self.place}.{SPARSITY}={asked!r}")
        changes = (*self.changes, *more)
        source = " ".join([self.reference, "with", *more])
        recipe = self_contained(load_recipe(self.reference, changes), source)
        return Cell(self.base.name, asked, seed, self.reference, changes, recipe)


def _brief(number: float) -> str:
    """Return a number in the fewest digits that identify it."""
    brief = f"{number:.10g}"
    return brief if float(brief) == number else repr(number)


def _takes_sparsity(step: Training) -> bool:
    """Return whether the pass uses its sparsity; densities of another run replace it."""
    named = {field.name for field in dataclasses.fields(step)}
    return SPARSITY in named and getattr(step, "spread", "") != "densities"


def _require_free(changes: Sequence[str]) -> None:
    """Refuse overrides of the seed, which distinguishes cells."""
    for change in changes:
        key = change.partition("=")[0].strip()
        if key == "seed":
            raise RecipeError(
                f"--set {change}: every cell has its own seed",
                remedy="--seeds N runs every recipe with the seeds from 0 to N - 1.",
            )


def _require_names(lines: Sequence[_Line], sparsities: Sequence[float | None], seeds: int) -> None:
    """Refuse recipes of the same name, and names too long for the suffix of a cell."""
    names = [line.base.name for line in lines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(
            f"two recipes have the name {twice[0]!r}",
            remedy="Give each its own: name = … at the top of its file.",
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
    return (f"{', '.join(fixed)}: the training pass has no sparsity, so {them} once per seed.",)
