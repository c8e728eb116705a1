"""Damage of files in a run folder: bits, lengths, files of another run, values of records."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prunec.store.records import DIGEST, record_text

Edit = Callable[[Path], None]

ABSURD: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 10**400, 1e308, float("nan"), "", "x" * 5000, "../../etc", [], {},
    [[[]]],
)  # fmt: skip
"""Values that replace another."""


def byte_edits(path: Path, other: Path, rng: random.Random) -> Iterator[tuple[str, Edit]]:
    """Damage of any file; ``other`` is the same file of another run."""
    size = path.stat().st_size
    for _ in range(3):
        place, bit = rng.randrange(size), 1 << rng.randrange(8)
        yield "a bit flipped", lambda p, place=place, bit=bit: flip(p, place, bit)  # type: ignore[misc]
    length = rng.randrange(size)
    yield "cut off", lambda p: _write(p, p.read_bytes()[:length])
    yield "emptied", lambda p: _write(p, b"")
    yield "deleted", Path.unlink
    yield "foreign bytes", lambda p: _write(p, bytes(range(256)) * 9)
    if other.is_file() and other.read_bytes() != path.read_bytes():
        yield "of another run", lambda p: _write(p, other.read_bytes())


def record_edits(path: Path, rng: random.Random, count: int) -> Iterator[tuple[str, Edit]]:
    """Values of a JSON record changed or left out, its digest as it is or made to fit."""
    record = json.loads(path.read_text())
    places = [place for place in _places(record) if place != (DIGEST,)]
    for place in rng.sample(places, min(count, len(places))):
        value = rng.choice((*ABSURD, _near, _near, _near, _DROPPED))
        for kind, text in (("a value changed", json.dumps), ("forged", record_text)):
            yield kind, lambda p, a=place, v=value, t=text: _edit(p, a, v, t)  # type: ignore[misc]
    if DIGEST in record:
        yield "no digest", lambda p: _edit(p, (DIGEST,), _DROPPED, json.dumps)


def recipe_edits(path: Path, rng: random.Random, count: int) -> Iterator[tuple[str, Edit]]:
    """A number or a switch of a recipe changed, in place or as one that it never stated."""
    lines = path.read_text().splitlines()
    numbered = [i for i, line in enumerate(lines) if _changed(line) != line]
    for number in rng.sample(numbered, min(count, len(numbered))):
        yield "a value changed", lambda p, n=number: _edit_line(p, n)  # type: ignore[misc]


def tensor_edits(path: Path, rng: random.Random) -> Iterator[tuple[str, Edit]]:
    """Values of the float tensors of a safetensors file: one changed, all zero, two exchanged."""
    header = json.loads(path.read_bytes()[8 : _start(path)])
    floats = [v["data_offsets"] for v in header.values() if v.get("dtype") == "F32"]
    for begin, end in rng.sample(floats, min(3, len(floats))):
        place = _start(path) + rng.randrange(begin, end, 4)
        value = struct.pack("<f", rng.gauss(0, 3))
        yield "a weight changed", lambda p, a=place, v=value: _overwrite(p, a, v)  # type: ignore[misc]
        zeros, first = bytes(end - begin), _start(path) + begin
        yield "a tensor zeroed", lambda p, a=first, v=zeros: _overwrite(p, a, v)  # type: ignore[misc]
        twins = [a for a, b in floats if b - a == end - begin and a != begin]
        if twins:
            second = _start(path) + rng.choice(twins)
            yield (
                "tensors exchanged",
                lambda p, a=first, b=second, n=end - begin: _exchange(p, a, b, n),
            )  # type: ignore[misc]


def log_edits(path: Path, rng: random.Random) -> Iterator[tuple[str, Edit]]:
    """Lines of a log changed, left out, twice, in another order."""
    count = len(path.read_text().splitlines())
    for _ in range(4):
        number, value = rng.randrange(count), rng.choice((_near, *ABSURD[:8]))
        key = rng.choice(list(json.loads(path.read_text().splitlines()[number])))
        for kind, text in (("a value changed", json.dumps), ("forged", record_text)):
            yield kind, lambda p, n=number, k=key, v=value, t=text: _edit_entry(p, n, k, v, t)  # type: ignore[misc]
    for kind, order in (
        ("a line left out", lambda lines: lines[1:]),
        ("the last line left out", lambda lines: lines[:-1]),
        ("a line twice", lambda lines: [*lines, lines[-1]]),
        ("lines swapped", lambda lines: lines[::-1]),
    ):
        yield kind, lambda p, o=order: _write(p, "".join(o(_lines(p))).encode())  # type: ignore[misc]


def _start(path: Path) -> int:
    """Offset of the tensors in a safetensors file."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def _overwrite(path: Path, place: int, by: bytes) -> None:
    data = path.read_bytes()
    _write(path, data[:place] + by + data[place + len(by) :])


def _exchange(path: Path, first: int, second: int, size: int) -> None:
    data = path.read_bytes()
    _overwrite(path, first, data[second : second + size])
    _overwrite(path, second, data[first : first + size])


def flip(path: Path, place: int, bit: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    _write(path, bytes(data))


class _Dropped:
    """Stands for a key that is left out."""


_DROPPED = _Dropped()


def _near(value: object) -> object:
    """A value of the same kind, not far away."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value * 2 + 1
    if isinstance(value, str):
        return value[::-1] + "0"
    return [value, value]


def _places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _edit(path: Path, place: tuple[Any, ...], value: Any, text: Callable[[Any], str]) -> None:
    record = json.loads(path.read_text())
    holder = record
    for key in place[:-1]:
        holder = holder[key]
    if value is _DROPPED:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value(holder[place[-1]]) if callable(value) else value
    _write(path, text(record).encode())


def _edit_entry(path: Path, number: int, key: str, value: Any, text: Callable[[Any], str]) -> None:
    lines = _lines(path)
    entry = json.loads(lines[number])
    entry[key] = value(entry[key]) if callable(value) else value
    lines[number] = json.dumps(json.loads(text(entry))) + "\n"
    _write(path, "".join(lines).encode())


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def _edit_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines()
    lines[number] = _changed(lines[number])
    _write(path, "\n".join(lines).encode())


def _changed(line: str) -> str:
    key, equals, value = line.partition(" = ")
    swapped = {"true": "false", "false": "true"}.get(value)
    if swapped or not equals:
        return f"{key} = {swapped}" if swapped else line
    try:
        return f"{key} = {json.loads(value) * 2 + 1}"
    except (ValueError, TypeError):
        return line


def _write(path: Path, data: bytes) -> None:
    """Write as a new file: copies of a run share theirs."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
