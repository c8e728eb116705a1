"""Mutated recipes: packaged ones, changed as typing, merging, copying and malice change them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Source = random.Random

VALUES = (
    "0", "1", "-1", "1.5", "1e400", "nan", "-inf", "true", '""', '"x"', '"\\u0000"', '"é∞"', "[]",
    "[[]]", "{}", "{ name = 1 }", '{ name = "x" }', '["a", "b"]', "[0.5, 0.5, 0.5]", "9" * 400,
    "9223372036854775807", "-9223372036854775809", "1979-05-27", "07:32:00", '"../../etc/passwd"',
    '"torch.hub:load"', '"os:system"', "0x7fffffffffffffff", "0.1e-300", "'''\n\n'''",
    '{ name = "Resize", size = "large" }', '[{ name = "Resize" }]', '[{ name = "NoSuch" }]',
)  # fmt: skip
"""Values, as TOML spells them, that replace another."""
NAMES = (
    "name", "pass", "export", "model", "data", "train", "verify", "budget", "epochs", "options",
    "augment", "learning_rate", "schedule", "teacher", "group", "match", "", "a.b", "__class__",
    "model_config", "classes", "weights", "edit", "input", "max_pixels", "réseau", "constructor",
)  # fmt: skip
PLACES = (
    "train.epochs", "train.learning_rate", "data.mean", "data.std.0", "pass.0.name", "pass.0",
    "pass.99.x", "pass.train-dense.x", "model.options.width_mult", "data", "seed", "verify.budget",
    "data.augment.0.name", "data.max_pixels", "name.x.y",
)  # fmt: skip
LONG = (1_000, 20_000, 99_000, 10_000_000)
DEEP = (10, 40, 3_000)
NOTHING = "name = 'a'"

KEY = re.compile(r"^([\w.-]+)( *= *)(.+)$", re.MULTILINE)
WORD = re.compile(r"[\w.-]+")


def mutant(texts: list[str], number: int) -> tuple[str, str]:
    """The kind of a mutant and its text; the same for the same number."""
    source = random.Random(number)
    kinds = sorted(KINDS)
    kind = kinds[number % len(kinds)]
    text = source.choice(texts)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        text = KINDS[kind](text, source)
    return kind, text


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True) or [NOTHING]


def _value(text: str, source: Source) -> str:
    return _at_key(text, source, lambda actual: f"{actual[1]}{actual[2]}{source.choice(VALUES)}")


def _key(text: str, source: Source) -> str:
    return _at_key(text, source, lambda actual: f"{source.choice(NAMES)!r}{actual[2]}{actual[3]}")


def _misspelt(text: str, source: Source) -> str:
    def spelt(match: re.Match[str]) -> str:
        place = source.randrange(len(match[1]))
        letter = source.choice("abcxyz_")
        return f"{match[1][:place]}{letter}{match[1][place + 1 :]}{match[2]}{match[3]}"

    return _at_key(text, source, spelt)


def _number(text: str, source: Source) -> str:
    def scaled(match: re.Match[str]) -> str:
        change = source.choice(("1e3", "1e-9", "-1", "1e19", "0"))
        try:
            return f"{match[1]}{match[2]}{float(match[3]) * float(change)}"
        except ValueError:
            return f"{match[1]}{match[2]}{change}"

    return _at_key(text, source, scaled)


def _at_key(text: str, source: Source, change: Callable[[re.Match[str]], str]) -> str:
    matches = list(KEY.finditer(text))
    if not matches:
        return text + NOTHING
    one = source.choice(matches)
    return text[: one.start()] + change(one) + text[one.end() :]


def _bytes(text: str, source: Source) -> str:
    letters = list(text) or ["x"]
    for _ in range(source.choice((1, 3, 20))):
        letters[source.randrange(len(letters))] = chr(source.choice((*range(128), 0xE9, 0x1F600)))
    return "".join(letters)


def _cut(text: str, source: Source) -> str:
    return text[: source.randrange(len(text) + 1)]


def _line_gone(text: str, source: Source) -> str:
    lines = _lines(text)
    del lines[source.randrange(len(lines))]
    return "".join(lines)


def _line_twice(text: str, source: Source) -> str:
    lines = _lines(text)
    place = source.randrange(len(lines))
    return "".join([*lines[: place + 1], *lines[place:]])


def _lines_swapped(text: str, source: Source) -> str:
    lines = _lines(text)
    one, two = (source.randrange(len(lines)) for _ in range(2))
    lines[one], lines[two] = lines[two], lines[one]
    return "".join(lines)


def _word_moved(text: str, source: Source) -> str:
    words = list(WORD.finditer(text))
    if not words:
        return NOTHING
    one, two = source.choice(words), source.choice(words)
    return text[: one.start()] + two[0] + text[one.end() :]


def _table(text: str, source: Source) -> str:
    name = source.choice(NAMES) or "x"
    head = source.choice((f"[{name}]", f"[[{name}]]", f"[{name}.{name}]", f"[{name}"))
    return f"{text}\n{head}\n{source.choice(NAMES)!r} = {source.choice(VALUES)}\n"


def _pass(text: str, source: Source) -> str:
    name = source.choice(("remove-channels", "train-dense", "absorb-gates", "train-gdp", "no-such"))
    option = (
        f"{source.choice(('round_to', 'macs_ratio', 'x', 'density'))} = {source.choice(VALUES)}"
    )
    added = f'[[pass]]\nname = "{name}"\n{option}\n' * source.choice((1, 2, 150))
    return f"{text}\n{added}"


def _long(text: str, source: Source) -> str:
    many = "x" * source.choice(LONG)
    return _at_key(
        text,
        source,
        lambda actual: source.choice(
            (f"{many} = 1", f'{actual[1]} = "{many}"', f"{actual[1]} = {many}")
        ),
    )


def _many(text: str, source: Source) -> str:
    count = source.choice((500, 6_000))
    return text + "\n" + "".join(f"k{i} = {i}\n" for i in range(count))


def _deep(text: str, source: Source) -> str:
    levels = source.choice(DEEP)
    value = source.choice(
        ("[" * levels + "]" * levels, "{a=" * levels + "1" + "}" * levels, "[" * levels)
    )
    key = source.choice(("augment", ".".join(["a"] * levels), '"a".' * levels + "a"))
    return f"{key} = {value}\n{text}" if source.random() < 0.5 else f"{text}\n{key} = {value}\n"


def _transform(text: str, source: Source) -> str:
    name = source.choice(("Resize", "RandomCrop", "Normalize", "Lambda", "Compose", "ToDtype"))
    word = source.choice(("size", "p", "transforms", "lambd", "dtype", "mean", "interpolation"))
    table = f'{{ name = "{name}", {word} = {source.choice(VALUES)} }}'
    return text.replace(
        "[data]\n", f"[data]\n{source.choice(('augment', 'prepare'))} = [{table}]\n"
    )


def _override(text: str, source: Source) -> str:
    """A recipe as it is; what changes it stands behind the text, in a comment."""
    key = source.choice((*PLACES, *NAMES, "a." * 40 + "a", "a." * 5_000 + "a"))
    return f"{text}\n#--set {key}={source.choice(VALUES)}"


KINDS: dict[str, Callable[[str, Source], str]] = {
    "a value of another kind": _value,
    "another key": _key,
    "a key misspelt": _misspelt,
    "a number scaled": _number,
    "bytes changed": _bytes,
    "cut off": _cut,
    "a line gone": _line_gone,
    "a line twice": _line_twice,
    "lines swapped": _lines_swapped,
    "a word moved": _word_moved,
    "a table added": _table,
    "passes added": _pass,
    "a value of up to 10 MB": _long,
    "thousands of keys": _many,
    "nested deep": _deep,
    "a transform": _transform,
    "--set": _override,
}
