"""Overrides by ``--set key=value``: replace a key of a recipe before it is validated."""

from __future__ import annotations

import datetime
import tomllib
from typing import Any

from prunec.errors import RecipeError
from prunec.recipe.lengths import twin_of
from prunec.recipe.values import DEEPEST
from prunec.wording import described, did_you_mean, shortened


def override(document: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a copy of the document with one key replaced.

    Args:
        document: a recipe as TOML tables.
        text: ``key=value``. The parts of the key are separated by dots; an entry of an array is
            named by its index from 0 or, if it is a table, by its ``name``
            (``pass.train-gdp.macs_ratio``). Missing tables on the way are created. The value is
            TOML or bare text. A duration in epochs replaces its share, and vice versa.

    Raises:
        RecipeError: ``text`` does not have this form, or the entry of an array does not exist.
    """
    key, equals, value = text.partition("=")
    text = shortened(text)
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise RecipeError(
            f"--set {text}: must be KEY=VALUE", remedy="For example: --set train.epochs=3"
        )
    if len(parts) > DEEPEST:
        raise RecipeError(f"--set {text}: a key has at most {DEEPEST} parts")
    changed = _replaced(document, parts, _value(value.strip(), text), text)
    assert isinstance(changed, dict)
    return changed


def _value(text: str, whole: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if text[:1] in tuple("[{\"'"):
            raise RecipeError(
                f"--set {whole}: the value is not valid TOML",
                remedy="Quote the whole argument for the shell: --set 'data.mean=[0.5]'",
            ) from None
        return text
    value = document["value"]
    times = (datetime.date, datetime.time)  # kept as text: a folder may be called 2026-01-01
    # More than one key: the value held a line break and further TOML.
    return text if len(document) > 1 or isinstance(value, times) else value


def _replaced(node: Any, parts: list[str], value: Any, whole: str) -> Any:
    if not parts:
        return value
    head, *rest = parts
    match node:
        case dict():
            # The other key of the same length would contradict the new one.
            kept = node if rest else {k: v for k, v in node.items() if k != twin_of(head)}
            return {**kept, head: _replaced(node.get(head, {}), rest, value, whole)}
        case list():
            index = _index(node, head, whole)
            changed = _replaced(node[index], rest, value, whole)
            return [*node[:index], changed, *node[index + 1 :]]
    raise RecipeError(f"--set {whole}: {shortened(head)!r} cannot be set inside {described(node)}")


def _index(array: list[Any], part: str, whole: str) -> int:
    if part.isascii() and part.isdigit():
        # Nine digits: int() raises for thousands of digits, and no array is longer.
        if int(part[:9]) < len(array):
            return int(part[:9])
        raise RecipeError(
            f"--set {whole}: there is no entry {shortened(part)}",
            remedy=f"The array has {len(array)} entries, counted from 0.",
        )
    names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in array]
    match [index for index, name in enumerate(names) if name == part]:
        case [index]:
            return index
        case []:
            near = did_you_mean(part, names)
            there = ", ".join(filter(None, names)) or "none with a name"
            raise RecipeError(
                f"--set {whole}: there is no entry {shortened(part)!r}",
                remedy=f"{near}There are: {there}.",
            )
        case several:
            raise RecipeError(
                f"--set {whole}: {part!r} stands at {', '.join(map(str, several))}",
                remedy=f"Name it by its index: {several[0]} instead of {part!r}.",
            )
