"""The recipes of the tables in docs/results.md: equal terms, every method, passes that build."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunec.catalogue import build_passes
from prunec.comparison.equal_terms import require_equal
from prunec.recipe import Recipe, load_recipe

HERE = Path(__file__).parent


def recipes(folder: str) -> list[Recipe]:
    return [load_recipe(str(path)) for path in sorted((HERE / folder).glob("*.toml"))]


@pytest.mark.parametrize("folder", ["fashion", "extreme"])
def test_they_build_and_have_equal_terms(folder: str) -> None:
    actual = recipes(folder)
    require_equal(actual)
    for recipe in actual:
        build_passes(recipe, recipe.name)


def test_every_method_of_unstructured_sparsity_is_compared() -> None:
    methods = {recipe.passes[0]["name"] for recipe in recipes("fashion")}
    files = (HERE.parents[1] / "passes").glob("train_*.py")
    packaged = {path.stem.replace("_", "-") for path in files}
    assert methods == packaged - {
        *("train-gdp", "train-magnitude", "train-two-of-four", "train-str-rank"),
    }
