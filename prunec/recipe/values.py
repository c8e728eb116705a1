"""Types of recipe keys: values of TOML, names, tables without unknown keys."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DEEPEST = 16
"""Largest nesting of arrays and tables in an option: more is an accident or an attack."""

MOST_ENTRIES = 100
"""Largest number of passes, exports, transforms or edits in a recipe: far above any real one."""

LONGEST_NAME = 80
"""Longest name of a recipe, in characters: with a number it is a folder's name, shown in tables."""


def plain(value: Any, depth: int = 0) -> Any:
    """Return ``value`` in canonical form: tuples as lists, ``name`` first, other keys sorted.

    Raises:
        ValueError: a value that no option takes (a time), that does not equal itself (NaN), or that
            TOML cannot express.
    """
    if depth > DEEPEST:
        raise ValueError(f"is nested deeper than {DEEPEST} levels")
    match value:
        case bool():
            return value
        case str():
            return _encodable(value)
        case int():
            # TOML's integers have 64 bits; other readers would refuse the text.
            if not -(2**63) <= value < 2**63:
                raise ValueError("holds a whole number beyond 64 bits")
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"holds {value}, which is not a finite number")
            return value
        case list() | tuple():
            return [plain(item, depth + 1) for item in value]
        case dict():
            # One order, so that equal recipes have equal digests; name first for the reader.
            keys = sorted(value, key=lambda key: (key != "name", str(key)))
            return {_encodable(key): plain(value[key], depth + 1) for key in keys}
    raise ValueError(f"holds a {type(value).__name__}, which no key of a recipe takes")


def _encodable(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"has the key {_in_short(text)}, which is not text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"holds {_in_short(text)}, which is not valid Unicode") from None
    return text


def _in_short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def _named(table: dict[str, Any]) -> dict[str, Any]:
    if "name" not in table:
        raise ValueError("has no 'name'")
    if not isinstance(table["name"], str) or not table["name"]:
        raise ValueError(f"has a 'name' that is not text: {_in_short(table['name'])}")
    return table


def folder_name(text: str) -> str:
    """Return ``text`` if it is a valid name of a folder; raise ValueError if not."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) or len(text) > LONGEST_NAME:
        raise ValueError(
            f"must be a name for a folder: at most {LONGEST_NAME} letters, digits, '.', '_' or "
            f"'-', the first a letter or digit, found {_in_short(text)}"
        )
    return text


def some(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``entries`` if there are any; raise ValueError if not."""
    if not entries:
        raise ValueError("must have at least one entry")
    return entries


Text = Annotated[str, AfterValidator(_encodable)]
Options = Annotated[dict[str, Any], AfterValidator(plain)]
Named = Annotated[dict[str, Any], AfterValidator(plain), AfterValidator(_named)]
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A TOML table: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False
    )
