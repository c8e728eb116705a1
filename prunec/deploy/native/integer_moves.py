"""Bytes of other scales: concatenation, and sums that no convolution takes in."""

from __future__ import annotations

from prunec.deploy.native.builder import Fields, Place
from prunec.deploy.native.byte_layout import byte_layout
from prunec.deploy.native.integers import IntegerBuilder, Stored
from prunec.deploy.native.quantised import Codes
from prunec.deploy.native.reading import Call


def concatenated_bytes(builder: IntegerBuilder, call: Call) -> bool:
    """Append ``Concat`` of channels as bytes; return whether it could."""
    name = call.results[0]
    codes = builder.made_of(name)
    tensors = (*call.operands, name)
    planes = all(byte_layout(builder.layout(each)) is not None for each in tensors)
    if codes is None or not planes or call.whole("axis", 0) % len(builder.shape(name)) != 1:
        return False
    given = [builder.bytes_of(operand) for operand in call.operands]
    read = [each for each in given if each is not None]
    if len(read) < len(given):
        return False
    made, first = builder.store(name, codes), 0
    for each in read:
        _append(builder, call, [each], made, first)
        first += each.layout.channels * each.layout.plane
    return True


def summed_bytes(builder: IntegerBuilder, call: Call) -> bool:
    """Append the sum of two tensors of bytes; return whether it could."""
    name = call.results[0]
    codes = builder.made_of(name)
    alike = {builder.shape(each) for each in (*call.operands, name)}
    if codes is None or len(call.operands) != 2 or len(alike) != 1:
        return False
    given = [builder.bytes_of(operand) for operand in call.operands]
    read = [each for each in given if each is not None]
    if len(read) < len(given):
        return False
    _append(builder, call, read, builder.store(name, codes), 0)
    return True


def _append(
    builder: IntegerBuilder, call: Call, given: list[Stored], made: Stored, first: int
) -> None:
    """Append the step that writes one tensor, or the sum of two, in steps of another."""
    own, codes = given[0].layout, made.codes
    fields: Fields = {
        "out": Place(made.buffer), "out_first": made.layout.lead + first, "zero": codes.zero,
        "lead": made.layout.lead,
        "count": own.channels * own.plane, "least": 0, "most": 255, "two": len(given) - 1,
    }  # fmt: skip
    for key, each in zip("ab", given, strict=False):
        fields |= {
            key: Place(each.buffer), f"{key}_first": each.layout.lead,
            f"{key}_zero": each.codes.zero, f"{key}_scale": _ratio(each.codes, codes),
        }  # fmt: skip
    reads = [each.buffer for each in given]
    builder.add("q->rescaled(&S, w);", "pn_byte_sum", fields, reads, made.buffer, call.name)


def _ratio(given: Codes, made: Codes) -> float:
    return given.scale / made.scale
