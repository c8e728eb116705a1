"""Conversion of an ONNX graph to an earlier opset."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import defs, helper

from prunec.errors import PassError
from prunec.exporters._onnx_earlier import RULES
from prunec.exporters._onnx_graph import Needs, RewrittenGraph, attribute


def to_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return ``model``, changed in place, in the operators of ``opset``.

    Operators that are equal in both opsets stay; attributes that the earlier opset lacks are
    dropped if they have default values; for all others there are rules that express them in earlier
    operators.

    Raises:
        PassError: operators cannot be expressed; the message names each, and the opset it needs.
    """
    now = opset_of(model)
    if opset >= now:
        return model
    graph = RewrittenGraph(model)
    nodes: list[onnx.NodeProto] = []
    lacking: dict[str, Needs] = {}
    for node in model.graph.node:
        try:
            nodes += _earlier(node, graph, opset, now)
        except Needs as need:
            first = lacking.setdefault(need.operator, need)
            lacking[need.operator] = max(first, need, key=lambda n: n.opset)
    if lacking:
        raise _refusal(lacking.values(), opset)
    del model.graph.node[:], model.opset_import[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.made)
    model.opset_import.append(helper.make_opsetid("", opset))
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """Return the opset of a model."""
    return int(next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")))


def require_operators(model: onnx.ModelProto) -> None:
    """Refuse operators newer than the model's opset, which exporters sometimes write.

    Raises:
        PassError: there are some; the message names each, and the opset it needs.
    """
    opset = opset_of(model)
    lacking = {
        node.op_type: Needs(node, _first(node.op_type))
        for node in model.graph.node
        if node.domain in ("", "ai.onnx") and not _since(node.op_type, opset)
    }
    if lacking:
        raise _refusal(lacking.values(), opset)


def _first(operator: str) -> int:
    """Return the opset that introduced an operator."""
    known = defs.get_all_schemas_with_history()
    return min(int(s.since_version) for s in known if (s.name, s.domain) == (operator, ""))


def _refusal(lacking: Iterable[Needs], opset: int) -> PassError:
    needs = sorted(lacking, key=lambda need: (-need.opset, need.operator))
    listed = "; ".join(f"{n.operator} at {n.place} needs opset {n.opset}{n.because}" for n in needs)
    return PassError(
        f"the network cannot be written at opset {opset}: {listed}",
        remedy=f"Ask for opset {needs[0].opset} or later ([[export]] opset, --opset), or replace "
        "the operator in the network.",
    )


def _earlier(
    node: onnx.NodeProto, graph: RewrittenGraph, opset: int, now: int
) -> list[onnx.NodeProto]:
    """Return nodes at ``opset`` that are equivalent to ``node`` at ``now``."""
    if opset < 11:
        _count_axes_from_the_first(node, graph)
    if _since(node.op_type, opset) == _since(node.op_type, now):
        return [node]
    rule = RULES.get(node.op_type)
    if rule is not None and opset < rule.below:
        made = rule.write(node, graph, opset)
        if [n.op_type for n in made] != [node.op_type]:
            # Replacements may need rewriting themselves.
            return [last for n in made for last in _earlier(graph.known(n), graph, opset, now)]
        node = made[0]
    _fit(node, graph, opset, now)
    return [node]


def _since(operator: str, opset: int) -> int:
    """Return the version of an operator at an opset; 0 if there is none."""
    try:
        return int(defs.get_schema(operator, opset).since_version)
    except defs.SchemaError:
        return 0


def _fit(node: onnx.NodeProto, graph: RewrittenGraph, opset: int, now: int) -> None:
    """Drop attributes with default values that the opset lacks.

    Raises:
        Needs: the opset lacks the operator, or another attribute or input of it.
    """
    new = defs.get_schema(node.op_type, now)
    first = next(v for v in range(opset, now + 1) if _has(node, graph, v, new))
    if first > opset:
        raise Needs(node, first)
    old = defs.get_schema(node.op_type, opset)
    kept = [a for a in node.attribute if a.name in old.attributes]
    del node.attribute[:]
    node.attribute.extend(kept)


def _has(node: onnx.NodeProto, graph: RewrittenGraph, opset: int, new: defs.OpSchema) -> bool:
    """Return whether an opset has an operator with these inputs, types and attributes."""
    if not _since(node.op_type, opset):
        return False
    old = defs.get_schema(node.op_type, opset)
    if old.since_version == new.since_version:
        return True
    if not old.min_input <= len(node.input) <= old.max_input:
        return False
    formal = [*old.inputs, *[old.inputs[-1]] * len(node.input)]
    typed = (
        not name or not graph.type(name) or graph.type_name(name) in place.types
        for name, place in zip(node.input, formal, strict=False)
    )
    given = (a for a in node.attribute if a.name not in old.attributes)
    return all(typed) and all(_is_default(a, new.attributes[a.name].default_value) for a in given)


def _is_default(given: onnx.AttributeProto, default: onnx.AttributeProto) -> bool:
    if default.type == onnx.AttributeProto.UNDEFINED:
        return False
    return bool(helper.get_attribute_value(given) == helper.get_attribute_value(default))


def _count_axes_from_the_first(node: onnx.NodeProto, graph: RewrittenGraph) -> None:
    """Make negative axes positive: opsets before 11 lack them."""
    for name in ("axis", "axes"):
        value = attribute(node, name)
        given = value if isinstance(value, list) else [value]
        if value is None or min(given, default=0) >= 0:
            continue
        # OneHot adds an axis, so that its axis counts in the output.
        rank = graph.rank(node.output[0] if node.op_type in ("OneHot", "Concat") else node.input[0])
        if rank is None:
            raise Needs(node, 11)
        counted = [axis % rank for axis in given]
        graph.set(node, name, counted if isinstance(value, list) else counted[0])
