"""Recipes: schema, reading and writing as TOML, overrides by ``--set``."""

from __future__ import annotations

from prunec.recipe.network_and_data import DataName, DataSpec, ModelSpec, ModuleEdit
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
from prunec.recipe.schema import Budget, Recipe, VerifySpec
from prunec.recipe.training import ParameterGroup, Schedule, Stop, Teacher, TrainSpec

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
