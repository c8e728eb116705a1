"""Invalid texts of an ONNX file: names or notes that are not UTF-8.

A protocol buffer is parsed nevertheless, and returns bytes in place of text.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_LOOKED_AT = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE})


def not_texts(message: Message, place: str = "") -> Iterator[str]:
    """Yield the places of texts that are not UTF-8, such as ``graph.node[3].name``."""
    for field in message.DESCRIPTOR.fields:
        if field.type not in _LOOKED_AT:
            continue
        value, here = getattr(message, field.name), f"{place}{field.name}"
        if not isinstance(value, (Message, str, bytes)):
            for number, item in enumerate(value):
                yield from _of_value(item, f"{here}[{number}]")
        elif not isinstance(value, Message) or message.HasField(field.name):
            yield from _of_value(value, here)


def _of_value(value: object, place: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from not_texts(value, f"{place}.")
    elif isinstance(value, bytes):
        yield place
