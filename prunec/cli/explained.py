"""Description of one pass: purpose, options with their ranges, paper, recipes that use it."""

from __future__ import annotations

import inspect
import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from prunec.tables import INDENT, FittedTable, table
from prunec.wording import IN_EPOCHS, LIMITS

if TYPE_CHECKING:
    from prunec.contract import Pass

KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "table",
    "null": "",
}
"""JSON schema type → plain words; null has none, because an option that may be null is optional."""

FACTS = {
    "needs": "Takes a network that is",
    "forbids": "Refuses one that is",
    "adds": "Leaves it",
    "drops": "Leaves it no longer",
}
"""Class variable of a pass → the words before its facts."""


def explained(cls: type[Pass], schema: Mapping[str, Any], recipes: Iterable[str]) -> list[Any]:
    """Return the parts of the screen of ``prunec passes show``.

    Args:
        cls: class of the pass.
        schema: JSON schema of its options.
        recipes: names of the packaged recipes that use it.
    """
    from prunec.contract import Training  # here: it imports torch, which other screens do not need

    kind = "training pass" if issubclass(cls, Training) else "rewrite: it does not change outputs"
    parts: list[RenderableType] = [Text.assemble((cls.pass_name(), "bold"), f", a {kind}")]
    parts += [Padding(Text(paragraph), (0, 0, 0, INDENT)) for paragraph in _paragraphs(cls.__doc__)]
    parts += [Text(line) for line in _facts(cls)]
    parts += [options_table(schema) if schema.get("properties") else Text("It takes no options.")]
    parts += [Text("Method and paper", style="italic"), *_method(cls)]
    used = ", ".join(recipes)
    return [*parts, Text(f"Recipes that use it: {used}")] if used else parts


def options_table(schema: Mapping[str, Any]) -> FittedTable:
    """Return the table of options: name, allowed values, default, meaning."""
    made = table("Options", "option", "takes", "default", "meaning")
    needed = schema.get("required", ())
    for name, node in schema["properties"].items():
        default = "required" if name in needed else _value(node.get("default"))
        made.add_row(name, value_in_words(node, schema), default, _description(name, node))
    return made


def value_in_words(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the values that a node of a JSON schema allows: ``whole number, at least 1``."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        return " or ".join(filter(None, (value_in_words(one, schema) for one in node["anyOf"])))
    if "enum" in node:
        return f"one of {', '.join(map(json.dumps, node['enum']))}"
    if "const" in node:
        return json.dumps(node["const"])
    if node.get("type") == "array":
        return f"array of {value_in_words(node.get('items', {}), schema) or 'value'}s"
    # pydantic states both limits where an annotation tightens a field; the weaker one says nothing.
    strict = node.get("exclusiveMinimum", -math.inf) >= node.get("minimum", math.inf)
    given = [key for key in LIMITS if key in node and not (strict and key == "minimum")]
    # Ten digits print 0.1 as 0.1, and all limits in use without loss.
    limits = [f"{LIMITS[key]} {node[key]:.10g}" for key in given]
    return ", ".join([KINDS.get(str(node.get("type")), "any value"), *limits])


def _value(default: object) -> str:
    return "—" if default is None else json.dumps(default, ensure_ascii=False)


def _description(name: str, node: Mapping[str, Any]) -> str:
    inner = [str(one["description"]) for one in node.get("anyOf", ()) if "description" in one]
    own = str(node.get("description") or next(iter(inner), ""))
    return own or ("in epochs, in place of the share" if name.endswith(IN_EPOCHS) else "")


def _facts(cls: type[Pass]) -> Iterator[str]:
    for key, words in FACTS.items():
        if facts := sorted(getattr(cls, key)):
            yield f"{words} {', '.join(facts)}."


def _method(cls: type[Pass]) -> Iterator[RenderableType]:
    """Yield the module docstring of the pass: paragraphs are wrapped, formulas are not."""
    for paragraph in _paragraphs(inspect.getmodule(cls).__doc__):
        yield Padding(Text(paragraph), (0, 0, 0, INDENT))


def _paragraphs(text: str | None) -> Iterator[str]:
    for block in inspect.cleandoc(text or "").split("\n\n"):
        # An indented block of a docstring is a formula: its line breaks matter.
        formula = block.startswith(" ")
        yield textwrap.indent(inspect.cleandoc(block), "  ") if formula else " ".join(block.split())
