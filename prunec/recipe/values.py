"""What a key of a recipe may hold: values that TOML knows, names, tables without unknown keys."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DEEPEST = 16
"""How many levels of arrays and tables an option may nest: more is an accident or an attack."""

MOST_ENTRIES = 100
"""How many passes, exports, transforms or edits a recipe may list."""

LONGEST_NAME = 80
"""How many characters the name of a recipe may have."""


def plain(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as TOML can hold it, keys in one order, or raise ValueError.

    Arrays become lists; ``name`` is the first key, the others are sorted. Times are refused because
    no option is one, numbers that are not finite because they do not equal themselves.
    """
    if depth > DEEPEST:
        raise ValueError(f"is nested deeper than {DEEPEST} levels")
    match value:
        case bool():
            return value
        case str():
            return _encodable(value)
        case int():
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
        raise ValueError(f"has a 'name' that is no text: {_in_short(table['name'])}")
    return table


def folder_name(text: str) -> str:
    """Return ``text`` if it is a name for a folder, or raise ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) or len(text) > LONGEST_NAME:
        raise ValueError(
            f"must be a name for a folder: at most {LONGEST_NAME} letters, digits, '.', '_' or "
            f"'-', the first a letter or digit, found {_in_short(text)}"
        )
    return text


def some(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``entries`` if there are any, or raise ValueError."""
    if not entries:
        raise ValueError("must hold at least one entry")
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
