"""Reading and writing of recipes: network, data, passes and budgets as TOML.

Recipes are frozen values. Unknown keys are refused with the nearest valid one; every error names
file, key and remedy. ``loads(dumps(r)) == r`` for every valid recipe.

See docs/glossary.md: recipe.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import tomlkit
from pydantic import ValidationError
from tomlkit.items import AoT, Item
from tomlkit.items import Table as TomlTable

from prunec.errors import RecipeError
from prunec.recipe.lengths import with_epochs_named
from prunec.recipe.overrides import override
from prunec.recipe.schema import Recipe
from prunec.recipe.values import DEEPEST, Table, plain
from prunec.wording import Known, Location, did_you_mean, key_path, mistakes, shortened

LONGEST = 100_000
"""Largest size of a recipe in bytes: reading takes up to 10 µs per byte, so at most a second."""

DOTTED = re.compile(
    rf"""(?:(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{2 * DEEPEST}}}"""
)
"""A dotted key of too many parts: tomllib's time is quadratic in their number."""


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load the recipe at a path or of a packaged name, with or without ``.toml``.

    Args:
        reference: a path, or one of `packaged_recipes`; an existing path has precedence.
        overrides: items ``key=value``, the value in TOML or bare text (``train.epochs=3``).

    Raises:
        RecipeError: there is no such recipe, or it is not valid.
    """
    text, source = _read(reference)
    document = _parse(text, source)
    # In order: a later --set may refer to what an earlier one has made.
    for item in overrides:
        document = override(document, item)
    if overrides:
        source = " ".join([source, "with", *(f"--set {shortened(item)}" for item in overrides)])
    return _validated(document, source)


def loads(text: str, source: str = "recipe") -> Recipe:
    """Parse a recipe from TOML text; ``source`` names the text in errors."""
    return _validated(_parse(text, source), source)


def dumps(recipe: Recipe) -> str:
    """Return the recipe's canonical TOML text: every key, defaults filled in, in fixed order."""
    document = tomlkit.document()
    for key, value in recipe.model_dump(mode="json", by_alias=True).items():
        match value:
            case dict() if key == "train" and not recipe.train.epochs:
                continue  # it has no training pass
            case dict() if key == "bundle" and not any(value.values()):
                continue  # keeps the digest of recipes written before this table existed
            case dict():
                document.add(key, _table(value))
            case list():
                document.add(key, AoT([_table(table) for table in value]))
            case _:
                document.add(key, _inline(value))
    return tomlkit.dumps(document)


def digest(recipe: Recipe) -> str:
    """Return the sha256 of the recipe's canonical text, in hexadecimal."""
    return hashlib.sha256(dumps(recipe).encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors that complete and check TOML."""
    return Recipe.model_json_schema(by_alias=True)


def packaged_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with prunec, sorted."""
    paths = (Path(entry.name) for entry in files("prunec.recipes").iterdir())
    return tuple(sorted(path.stem for path in paths if path.suffix == ".toml"))


def packaged_text(name: str) -> str:
    """Return the text of a packaged recipe, comments included.

    Raises:
        RecipeError: no recipe of this name comes with prunec.
    """
    stem = name.removesuffix(".toml")
    if stem not in packaged_recipes():
        raise _not_found(name)
    return files("prunec.recipes").joinpath(f"{stem}.toml").read_text("utf-8")


def _read(reference: str) -> tuple[str, str]:
    # A file comes before a packaged recipe of the same name.
    for path in (reference, f"{reference}.toml"):
        if os.path.isfile(path):
            return _file_text(Path(path)), path
    return packaged_text(reference), f"{reference.removesuffix('.toml')}.toml"


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST:  # before reading: it may not fit into memory
            raise _too_long(str(path), path.stat().st_size)
        return path.read_text("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: byte {error.start} is not UTF-8 text", remedy="Save the file as UTF-8."
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None


def _not_found(reference: str) -> RecipeError:
    own = sorted(map(str, Path(reference).parent.glob("*.toml")))
    near = did_you_mean(reference, own) or did_you_mean(Path(reference).stem, packaged_recipes())
    return RecipeError(
        f"there is no recipe file {reference!r}, and no recipe of that name comes with prunec",
        remedy=f"{near}`prunec recipes` lists the packaged ones; `prunec init` writes a new one.",
    )


def require_readable(text: str, source: str) -> None:
    """Refuse a text that is too long for a recipe, or has keys of too many parts.

    Raises:
        RecipeError: the text exceeds a limit; names the limit.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LONGEST:
        raise _too_long(source, size)
    # Before tomllib, whose time is quadratic in the parts of a key.
    if DOTTED.search(text):
        raise RecipeError(f"{source}: a key has more than {2 * DEEPEST} parts between its dots")


def _too_long(source: str, size: int) -> RecipeError:
    return RecipeError(
        f"{source}: a recipe has at most {LONGEST:,} bytes, this one {size:,}",
        remedy="Move long options into a file and name the file.",
    )


def _parse(text: str, source: str) -> dict[str, Any]:
    require_readable(text, source)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{source}: arrays or tables are nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, and integers too long to convert
        place = r"(.*) \(at (?:line (\d+), column (\d+)|(end of document))\)"
        match = re.fullmatch(place, str(error))
        if match is None:
            raise RecipeError(f"{source}: not valid TOML: {str(error).split(';')[0]}") from None
        what, line, column, end = match.groups()
        where = "at its end" if end else f"line {line}, column {column}"
        raise RecipeError(
            f"{source}, {where}: not valid TOML: {what[0].lower()}{what[1:]}",
            remedy='Put text in quotes: name = "value"; start a table with [name].',
        ) from None


def _validated(document: dict[str, Any], source: str) -> Recipe:
    document = with_epochs_named(_with_exporters(document))
    for key, value in document.items():
        try:
            plain(value)
        except ValueError as error:
            raise RecipeError(f"{source}: {key} {error}") from None
    try:
        # JSON, because only there a strict schema takes an array as a tuple.
        return Recipe.model_validate_json(json.dumps(document), by_alias=True, by_name=False)
    except ValidationError as error:
        raise mistakes(error, source, Known(_keys_at, json_schema, _all_keys())) from None


def _with_exporters(document: dict[str, Any]) -> dict[str, Any]:
    """Convert the single ``[export]`` table of older recipes into ``[[export]] name = "to-onnx"``.

    Its only ``format`` was ``onnx``.
    """
    table = document.get("export")
    if not isinstance(table, dict):
        return document
    options = {k: v for k, v in table.items() if (k, v) != ("format", "onnx")}
    return {**document, "export": [{"name": "to-onnx", **options}]}


def _keys_at(location: Location) -> tuple[str, ...]:
    """Return the keys of the table at ``location``; none where it takes any key."""
    table: type[Table] | None = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        table = _table_class(_fields(table).get(part)) if table else None
    return tuple(_fields(table)) if table else ()


def settable_keys(reference: str = "") -> tuple[str, ...]:
    """Return the keys that ``--set`` takes, and those in the passes and exports of a recipe."""
    keys = [key for key in _all_keys() if key not in ("pass", "export")]
    try:
        document = _parse(*_read(reference)) if reference else {}
    except RecipeError:
        document = {}
    for kind in ("pass", "export"):
        for table in document.get(kind, ()):
            if isinstance(table, dict):
                name = table.get("name")
                keys += [f"{kind}.{name}.{key}" for key in table if key != "name"]
    return tuple(keys)


def _all_keys(table: type[Table] = Recipe, prefix: Location = ()) -> tuple[str, ...]:
    keys: list[str] = []
    for key, annotation in _fields(table).items():
        keys.append(key_path((*prefix, key)))
        inner = _table_class(annotation)
        if inner:
            keys.extend(_all_keys(inner, (*prefix, key)))
    return tuple(keys)


def _fields(table: type[Table]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in table.model_fields.items()}


def _table_class(annotation: Any) -> type[Table] | None:
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next(filter(None, map(_table_class, get_args(annotation))), None)


def _table(value: dict[str, Any]) -> TomlTable:
    table = tomlkit.table()
    for key, item in value.items():
        # TOML has no null: a missing key is the default, None.
        if item is not None:
            table.add(key, _inline(item))
    return table


def _inline(value: Any) -> Item:
    match value:
        case dict():
            inline = tomlkit.inline_table()
            for key, item in value.items():
                if item is not None:
                    inline.add(key, _inline(item))
            return inline
        case list():
            array = tomlkit.array()
            for item in value:
                array.append(_inline(item))
            return array.multiline(any(isinstance(item, dict) for item in value))
    scalar: Item = tomlkit.item(value)
    return scalar
