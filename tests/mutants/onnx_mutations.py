"""Ways to damage an ONNX file: bytes, weights, where they lie, the graph, its metadata."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.random import Generator
from onnx import TensorProto, external_data_helper, helper, numpy_helper

Model = onnx.ModelProto
Mutation = Callable[[Model, Generator], None]
"""Damages a model in place."""


def one(items, generator: Generator):  # type: ignore[no-untyped-def]
    """One of several, by chance."""
    return items[int(generator.integers(len(items)))]


def tensor(model: Model, generator: Generator) -> TensorProto:
    return one([t for t in model.graph.initializer if len(t.raw_data) >= 4], generator)


def weights(change: Callable[[np.ndarray, Generator], object]) -> Mutation:
    def mutate(model: Model, generator: Generator) -> None:
        chosen = one([t for t in model.graph.initializer if t.data_type == 1], generator)
        values = numpy_helper.to_array(chosen).copy()
        change(values, generator)
        chosen.raw_data = values.tobytes()

    return mutate


def _bit(values: np.ndarray, generator: Generator) -> None:
    bits = values.reshape(-1).view(np.uint32)
    bits[generator.integers(bits.size)] ^= np.uint32(1) << np.uint32(generator.integers(32))


def _value(values: np.ndarray, generator: Generator) -> None:
    values.reshape(-1)[generator.integers(values.size)] = generator.normal() * 3


def _swap(values: np.ndarray, generator: Generator) -> None:
    if values.ndim and len(values) > 1:
        a, b = generator.choice(len(values), 2, replace=False)
        values[[a, b]] = values[[b, a]]


def _zero_channel(values: np.ndarray, generator: Generator) -> None:
    values[generator.integers(len(values)) if values.ndim else ...] = 0


def _scale(values: np.ndarray, generator: Generator) -> None:
    values *= np.float32(one([1.001, 0.5, -1, 1e3], generator))


def _not_finite(values: np.ndarray, generator: Generator) -> None:
    values.reshape(-1)[generator.integers(values.size)] = one([np.nan, np.inf, -np.inf], generator)


WEIGHTS: dict[str, Mutation] = {
    change.__name__.strip("_"): weights(change)
    for change in (_bit, _value, _swap, _zero_channel, _scale, _not_finite)
}


def _short(model: Model, generator: Generator) -> None:
    chosen = tensor(model, generator)
    chosen.raw_data = chosen.raw_data[: int(generator.integers(len(chosen.raw_data)))]


def _long(model: Model, generator: Generator) -> None:
    tensor(model, generator).raw_data += bytes(int(generator.integers(1, 40)))


def _dims(model: Model, generator: Generator) -> None:
    chosen = one([t for t in model.graph.initializer if t.dims], generator)
    axis = int(generator.integers(len(chosen.dims)))
    chosen.dims[axis] = one([0, -1, 3, 2**40, chosen.dims[axis] + 1], generator)


def _flat(model: Model, generator: Generator) -> None:
    chosen = one([t for t in model.graph.initializer if len(t.dims) > 1], generator)
    chosen.dims[:] = [int(np.prod(chosen.dims))]


def _type(model: Model, generator: Generator) -> None:
    tensor(model, generator).data_type = int(one([0, 2, 6, 7, 8, 10, 11, 16, 22, 99], generator))


def _missing(model: Model, generator: Generator) -> None:
    chosen = tensor(model, generator)
    model.graph.initializer.remove(chosen)


def _renamed(model: Model, generator: Generator) -> None:
    tensor(model, generator).name = "stranger"


def _exchanged(model: Model, generator: Generator) -> None:
    first, second = tensor(model, generator), tensor(model, generator)
    first.name, second.name = second.name, first.name


STORED: dict[str, Mutation] = {
    f.__name__.strip("_"): f
    for f in (_short, _long, _dims, _flat, _type, _missing, _renamed, _exchanged)
}


def _external(**places: list[str]) -> Mutation:
    def mutate(model: Model, generator: Generator) -> None:
        chosen = tensor(model, generator)
        said = {"location": "weights.bin", "offset": "0", "length": str(len(chosen.raw_data))}
        said |= {key: one(values, generator) for key, values in places.items()}
        chosen.ClearField("raw_data")
        chosen.data_location = TensorProto.EXTERNAL
        for key, value in said.items():
            chosen.external_data.add(key=key, value=value)
        assert external_data_helper.uses_external_data(chosen)

    return mutate


EXTERNAL: dict[str, Mutation] = {
    "outside": _external(location=["../weights.bin", "/etc/hostname", "a/../../w", "", "."]),
    "nowhere": _external(location=["none.bin", "a/b/c", "\x00", "x" * 5000]),
    "offset": _external(offset=["-1", "1e9", "99999999999999999999", "0x10", "", "10000000"]),
    "length": _external(length=["-1", "0", "3", "99999999999999999999", "many"]),
    "other bytes": _external(),
}


def _operator(model: Model, generator: Generator) -> None:
    node = one(model.graph.node, generator)
    node.op_type = one(["Relu", "Identity", "Neg", "Sigmoid", "Abs", "Nonsense"], generator)


def _attribute(model: Model, generator: Generator) -> None:
    chosen = one([a for n in model.graph.node for a in n.attribute], generator)
    if chosen.type == onnx.AttributeProto.INTS:
        chosen.ints[int(generator.integers(len(chosen.ints)))] += int(one([-1, 1, 100], generator))
    elif chosen.type == onnx.AttributeProto.INT:
        chosen.i += int(one([-1, 1, 2, 100], generator))
    elif chosen.type == onnx.AttributeProto.FLOAT:
        chosen.f = float(one([0.0, chosen.f * 1.5, -1.0, float("nan")], generator))
    else:
        chosen.s = one([b"", b"VALID", b"\xff"], generator)


def _no_attribute(model: Model, generator: Generator) -> None:
    node = one([n for n in model.graph.node if n.attribute], generator)
    del node.attribute[int(generator.integers(len(node.attribute)))]


def _wire(model: Model, generator: Generator) -> None:
    place = int(generator.integers(1, len(model.graph.node)))
    made = [n.output[0] for n in model.graph.node[:place]] + [model.graph.input[0].name]
    model.graph.node[place].input[0] = one(made, generator)


def _order_of_inputs(model: Model, generator: Generator) -> None:
    node = one([n for n in model.graph.node if len(n.input) > 1], generator)
    node.input[:] = [*node.input[1:], node.input[0]]


def _dropped(model: Model, generator: Generator) -> None:
    place = int(generator.integers(len(model.graph.node) - 1))
    node = model.graph.node[place]
    for other in model.graph.node:
        other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
    del model.graph.node[place]


def _added(model: Model, generator: Generator) -> None:
    place = int(generator.integers(1, len(model.graph.node)))
    node = model.graph.node[place]
    operator = one(["Relu", "Neg", "Identity", "Tanh"], generator)
    model.graph.node.insert(place, helper.make_node(operator, [node.input[0]], ["added"]))
    model.graph.node[place + 1].input[0] = "added"


def _other_weight(model: Model, generator: Generator) -> None:
    stored = {t.name for t in model.graph.initializer}
    places = [(n, i) for n in model.graph.node for i, name in enumerate(n.input) if name in stored]
    node, index = one(places, generator)
    node.input[index] = one(sorted(stored), generator)


def _cycle(model: Model, generator: Generator) -> None:
    place = int(generator.integers(len(model.graph.node) - 1))
    model.graph.node[place].input[0] = model.graph.node[place + 1].output[0]


def _shapes(model: Model, generator: Generator) -> None:
    value = one([*model.graph.input, *model.graph.output, *model.graph.value_info], generator)
    dims = value.type.tensor_type.shape.dim
    if dims:
        one(dims, generator).dim_value = int(one([0, 1, 7, -3, 2**50], generator))


GRAPH: dict[str, Mutation] = {
    f.__name__.strip("_").replace("_", " "): f
    for f in (
        *(_operator, _attribute, _no_attribute, _wire, _order_of_inputs, _dropped, _added),
        *(_other_weight, _cycle, _shapes),
    )
}


def _said(model: Model, generator: Generator) -> None:
    entry = one(model.metadata_props, generator)
    entry.value = one(["", "9" * 5000, "-1", "NaN", "{", "\u0663", "\x00", "1e400"], generator)


def _opset(model: Model, generator: Generator) -> None:
    model.opset_import[0].version = int(one([-5, 0, 1, 7, 11, 13, 999, 2**40], generator))


def _ir(model: Model, generator: Generator) -> None:
    model.ir_version = int(one([-1, 0, 1, 3, 99, 2**40], generator))


SAID: dict[str, Mutation] = {f.__name__.strip("_"): f for f in (_said, _opset, _ir)}
FAMILIES = {
    "weights": WEIGHTS,
    "storage of weights": STORED,
    "external data": EXTERNAL,
    "graph": GRAPH,
    "metadata": SAID,
}


def damaged_bytes(data: bytes, generator: Generator) -> bytes:
    """Cut the file, turn a bit, lose bytes, or put others in."""
    place = int(generator.integers(len(data)))
    some = bytes(generator.integers(0, 256, int(generator.integers(1, 20)), dtype=np.uint8))
    turned = bytes([data[place] ^ (1 << int(generator.integers(8)))])
    return one(
        [
            data[:place],
            data[:place] + turned + data[place + 1 :],
            data[:place] + data[place + len(some) :],
            data[:place] + some + data[place:],
            data[:place] + some + data[place + len(some) :],
        ],
        generator,
    )
