"""A recipe: its schema, its reading and writing as TOML, ``--set`` on the command line."""

from __future__ import annotations

from prunec.recipe.recipe import (
    digest,
    dumps,
    json_schema,
    load_recipe,
    loads,
    packaged_recipes,
    packaged_text,
    settable_keys,
)
from prunec.recipe.schema import (
    Budget,
    DataName,
    DataSpec,
    ModelSpec,
    ModuleEdit,
    ParameterGroup,
    Recipe,
    Schedule,
    Stop,
    Teacher,
    TrainSpec,
    VerifySpec,
)

__all__ = [
    "Budget",
    "DataName",
    "DataSpec",
    "ModelSpec",
    "ModuleEdit",
    "ParameterGroup",
    "Recipe",
    "Schedule",
    "Stop",
    "Teacher",
    "TrainSpec",
    "VerifySpec",
    "digest",
    "dumps",
    "json_schema",
    "load_recipe",
    "loads",
    "packaged_recipes",
    "packaged_text",
    "settable_keys",
]
