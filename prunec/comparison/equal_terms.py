"""Equal terms: recipes are comparable if data, network and training budget are the same.

Choices of the method may differ: learning rate, schedule, optimizer, decay, options of passes. The
conditions may not: images and their transforms, network and initial weights, epochs, batch size,
teacher, early stopping, and the epoch whose weights ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunec.catalogue import pass_class
from prunec.contract import Training
from prunec.errors import RecipeError
from prunec.recipe import Recipe

TRAIN = (
    "epochs", "batch_size", "mixup", "cutmix", "teacher", "stop", "ship", "precision",
)  # fmt: skip
HOW = ("download", "workers")  # keys of data without an effect on the images
SHOWN = 60  # characters of a value in a message


def require_equal(recipes: Sequence[Recipe]) -> None:
    """Refuse recipes that do not train on equal terms.

    Raises:
        RecipeError: names every key that differs, with each recipe's value, and the remedy.
    """
    terms = [_terms(recipe) for recipe in recipes]
    keys = [key for key in terms[0] if any(other[key] != terms[0][key] for other in terms[1:])]
    if not keys:
        return
    lines = [f"  {key}: {_each(recipes, [own[key] for own in terms])}" for key in keys]
    settable = " ".join(f"--set {key}=…" for key in keys if key != PASSES)
    remedy = f"Make them equal for all recipes: {settable}" if settable else ""
    if PASSES in keys:
        remedy = f"Compare recipes with as many training passes. {remedy}".strip()
    message = "\n".join(["the recipes differ in what must be equal:", *lines])
    raise RecipeError(message, remedy=remedy)


def equal_terms(recipe: Recipe) -> str:
    """Return the terms of a recipe, which are those of all, in one line."""
    train = recipe.train
    parts = [
        recipe.model.name.rpartition(":")[2],
        f"{recipe.data.name} images",
        f"{train.epochs} epoch{'' if train.epochs == 1 else 's'}",
        f"batches of {train.batch_size}",
    ]
    return " · ".join(parts)


PASSES = "number of training passes"


def _terms(recipe: Recipe) -> dict[str, Any]:
    """Return key → value, for everything that must be equal."""
    data = recipe.data.model_dump(mode="json", exclude=set(HOW))
    model = recipe.model.model_dump(mode="json")
    train = recipe.train.model_dump(mode="json", include=set(TRAIN))
    trainings = sum(issubclass(pass_class(table["name"]), Training) for table in recipe.passes)
    return {
        **{f"model.{key}": value for key, value in model.items()},
        **{f"data.{key}": value for key, value in data.items()},
        **{f"train.{key}": train[key] for key in TRAIN},
        PASSES: trainings,
    }


def _each(recipes: Sequence[Recipe], values: Sequence[Any]) -> str:
    pairs = zip(recipes, values, strict=True)
    return ", ".join(f"{_shown(value)} ({recipe.name})" for recipe, value in pairs)


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
