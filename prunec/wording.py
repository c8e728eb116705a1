"""Wording of messages: validation errors, suggestions, shares in percent, durations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from prunec.errors import RecipeError

Location = tuple[int | str, ...]

MOST = 8
"""Mistakes that one message lists: with their remedies they fit on a screen."""

EXPECTED = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
    "tuple_type": "an array",
    "list_type": "an array",
    "set_type": "an array",
    "frozen_set_type": "an array",
    "finite_number": "a finite number",
}

RANGES = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}

IN_EPOCHS = "_epochs"
"""Suffix of the key of a duration in epochs; the key without it is a share of the training."""

LIMITS = {
    "exclusiveMinimum": "greater than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}
"""The keys of a JSON schema that bound a number."""


@dataclass(frozen=True)
class Known:
    """Valid keys, for suggestions.

    Attributes:
        at: returns the keys of the table at a location.
        schema: returns the JSON schema.
        everywhere: all keys by their paths.
    """

    at: Callable[[Location], Sequence[str]]
    schema: Callable[[], Mapping[str, Any]]
    everywhere: Sequence[str] = ()


def key_path(location: Location) -> str:
    """Return a location as a path: ``("pass", 0, "name")`` is ``pass[0].name``."""
    text = ""
    for part in location:
        word = shortened(str(part))
        text += f"[{word}]" if isinstance(part, int) else f".{word}" if text else word
    return text


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'? "`` with the name nearest to ``word``, or an empty text."""
    near = nearest(word, names)
    return f"Did you mean {near!r}? " if near else ""


def nearest(word: str, names: Iterable[str]) -> str:
    """Return the name of the smallest edit distance to ``word``; empty where none is near.

    Case is ignored, ``_`` equals ``-``; of equally near names, the first is taken.
    """
    # The time is the product of the lengths: a text of megabytes is compared by its beginning.
    typed = _folded(shortened(word))
    slips = {name: edits(typed, _folded(name)) for name in names}
    best = min(slips, key=slips.__getitem__, default="")
    return best if best and slips[best] <= max(1, round(SLIPS * len(typed))) else ""


def edits(one: str, other: str) -> int:
    """Return the edit distance: insertions, deletions, substitutions, swaps of neighbours.

    The restricted Damerau–Levenshtein distance (optimal string alignment): no part is edited twice.
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            least = min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b))
            # Swapped neighbours count once: Damerau 1964, in the restricted form.
            if i > 1 < j and a == other[j - 2] and one[i - 2] == b:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


SLIPS = 0.35
"""Edits per letter up to which a name counts as near: above it, suggestions mislead."""


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")


def described(value: object) -> str:
    """Return a TOML value in a few words: ``the text "gdp"``, ``an array``."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {json.dumps(shortened(value), ensure_ascii=False)}"
        case int() | float():
            return f"the number {shortened(str(value))}"
        case list() | tuple():
            return "an array"
        case dict():
            return "a table"
    return "nothing" if value is None else shortened(repr(value))


def shortened(text: str, length: int = 60) -> str:
    """Return ``text``, cut to ``length`` characters with ``…`` where it is longer."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def mistakes(error: ValidationError, source: str, known: Known, prefix: str = "") -> RecipeError:
    """Return the error that lists the mistakes in a document, each with key and remedy.

    Args:
        error: pydantic's error.
        source: the file, or a name of what was read.
        known: valid keys, for suggestions.
        prefix: path of what was validated: ``pass[0] (train-gdp)``.
    """
    findings = error.errors(include_url=False)
    # Suggestions take time: only for the mistakes that are shown.
    sentences = [_sentence(finding, known, prefix) for finding in findings[:MOST]]
    if len(sentences) == 1:
        sentence, remedy = sentences[0]
        return RecipeError(f"{source}: {sentence}", remedy=remedy)
    lines = [f"  {sentence}{remedy and '. ' + remedy}" for sentence, remedy in sentences]
    if len(findings) > MOST:
        lines.append(f"  … and {len(findings) - MOST} more")
    head = f"{source}: {len(findings)} mistakes"
    return RecipeError("\n".join([head, *lines]))


def _sentence(finding: ErrorDetails, known: Known, prefix: str) -> tuple[str, str]:
    location, kind, value = finding["loc"], finding["type"], finding["input"]
    context: dict[str, Any] = finding.get("ctx", {})
    path = key_path(((prefix,) if prefix else ()) + location) or "the recipe"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {path}", _nearest(location, known)
    if kind == "missing":
        return f"{path} is missing", f"Add {str(location[-1])!r} to the recipe."
    if kind == "value_error":
        return f"{path} {context['error']}", ""
    if kind in EXPECTED:
        return f"{path} must be {EXPECTED[kind]}, found {described(value)}", _of_percent(value)
    if kind in RANGES:
        words, key = RANGES[kind]
        remedy = _as_epochs(location, value, known) or _allowed(known.schema(), location)
        return f"{path} must be {words} {context[key]}, found {described(value)}", remedy
    if kind == "literal_error":
        near = did_you_mean(str(value), re.findall(r"'([^']*)'", context["expected"]))
        return f"{path} must be {context['expected']}, found {described(value)}", near.strip()
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        least = "at least" if kind == "too_short" else "at most"
        return f"{path} must have {least} {bound} entries, found {context['actual_length']}", ""
    message = finding["msg"].replace("Input should be", "must be")
    return f"{path}: {message[0].lower()}{message[1:]}, found {described(value)}", ""


def _nearest(location: Location, known: Known) -> str:
    *table, wrong = location
    names = known.at(tuple(table))
    near = did_you_mean(str(wrong), names)
    if not near:
        elsewhere = [path for path in known.everywhere if path.split(".")[-1] == wrong]
        near = f"Did you mean {elsewhere[0]!r}?" if elsewhere else ""
    if near:
        return near.strip()
    return f"Known keys here: {', '.join(names)}." if names else "It takes no options."


def _of_percent(value: object) -> str:
    """Return the remedy for a text in percent: the same share as a number."""
    stated = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if isinstance(value, str) else None
    return f"As a share: {float(stated[1]) / 100:g}." if stated else ""


def _as_epochs(location: Location, value: object, known: Known) -> str:
    """Return the remedy for a share above 1: the key of the same duration in epochs."""
    if not location:
        return ""
    *table, key = location
    name = f"{key}{IN_EPOCHS}"
    beyond = isinstance(value, int | float) and value > 1
    if not (beyond and name in known.at(tuple(table))):
        return ""
    return f"It is a share of the training, at most 1; in epochs: {name} = {value:g}."


def _allowed(schema: Mapping[str, Any], location: Location) -> str:
    """Return the remedy for a number out of range: both ends, where the mistake names one."""
    for node in _nodes(schema, schema, location):
        limits = [f"{words} {node[key]:.10g}" for key, words in LIMITS.items() if key in node]
        if limits:
            kind = "whole number" if node.get("type") == "integer" else "number"
            return f"Give a {kind} that is {' and '.join(limits)}."
    return ""


def _nodes(
    schema: Mapping[str, Any], node: Mapping[str, Any], location: Location
) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a JSON schema for the value at a location, one per alternative type."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for kind in node.get("anyOf", ()):
        yield from _nodes(schema, kind, location)
    if not location:
        yield node
        return
    first, *rest = location
    inner = node.get("items") if isinstance(first, int) else node.get("properties", {}).get(first)
    if inner:
        yield from _nodes(schema, inner, tuple(rest))


def percent(share: float, digits: int = 1) -> str:
    """Return a share (1 is the whole) in percent: ``39.9 %``."""
    return f"{100 * share:.{digits}f} %"


def percent_of(part: float, whole: float) -> str:
    """Return ``part`` of ``whole`` in percent, or a dash where ``whole`` is 0."""
    return percent(part / whole) if whole else "—"


def duration(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``, or ``m:ss`` below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"


def some_of(names: Iterable[str]) -> str:
    """Return the first five names, and the number of the others."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
