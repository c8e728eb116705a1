"""Rewriting of a captured program into operators that torch's exporter writes correctly and
fast.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.export import ExportedProgram

from prunec.errors import PassError
from prunec.graph.capture.aten import arguments
from prunec.graph.capture.node import per_axis

aten = torch.ops.aten

# Operators whose result is memory of its own, so that no other value sees it being overwritten.
_FRESH = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear", "batch_norm", "add", "mul"}
)


def drop_inplace(program: ExportedProgram) -> None:
    """Replace in-place activations of values without other readers by functional ones.

    The numbers are equal. torch's decomposition of in-place operators under a dynamic batch takes
    70 % of the time of an export (MobileNetV2: 11 s, without it 6 s).
    """
    for node in program.graph.nodes:
        name, overload = operator_of(node)
        if not name.endswith("_"):
            continue
        source = node.args[0]
        functional = getattr(torch.ops.aten, name.rstrip("_"), None)
        if len(source.users) > 1 or operator_of(source)[0] not in _FRESH or functional is None:
            continue
        if overload in functional.overloads():
            node.target = getattr(functional, overload)
    program.graph_module.recompile()


def operator_of(node: torch.fx.Node) -> tuple[str, str]:
    """Return (name, overload) of a node's ATen operator; empty for other nodes."""
    parts = str(node.target).split(".")
    return (parts[1], parts[2]) if parts[0] == "aten" and len(parts) == 3 else ("", "")


def spell_out_divisors(program: ExportedProgram) -> None:
    """Write an average pooling with its own divisor as a mean times a factor.

    torch's exporter silently drops the divisor. For windows that count their padding, Σ / divisor =
    mean · window / divisor.

    Raises:
        PassError: windows may also reach beyond the padding, so that their sizes differ.
    """
    graph = program.graph
    for node in list(graph.nodes):
        axes = {"avg_pool2d": 2, "avg_pool3d": 3}.get(operator_of(node)[0], 0)
        if not axes:
            continue
        named = arguments(node)
        divisor = named["divisor_override"]
        if divisor is None:
            continue
        if named["ceil_mode"]:
            raise PassError(
                f"{operator_of(node)[0]} at {node.name} rounds up and has its own divisor "
                "(divisor_override), which torch.onnx drops",
                remedy="Leave out ceil_mode or divisor_override, and multiply by a factor after.",
            )
        places = [named[key] for key in ("self", "kernel_size", "stride", "padding")]
        factor = prod(per_axis(named["kernel_size"], axes)) / divisor
        with graph.inserting_before(node):
            # False, True: not rounded up, padding counted.
            mean = _like(node, node.target, (*places, False, True))
            scaled = _like(node, aten.mul.Tensor, (mean, factor))
        node.replace_all_uses_with(scaled)
        graph.erase_node(node)
    program.graph_module.recompile()


def make_bounds_alike(program: ExportedProgram) -> None:
    """Write an integer and a float bound of a clamp as two floats.

    torch's exporter supports clamp only with two bounds of one type.
    """
    for node in program.graph.nodes:
        if operator_of(node) != ("clamp", "default"):
            continue
        bounds = [arguments(node)[key] for key in ("min", "max")]
        if {type(bound) for bound in bounds} == {int, float}:
            node.args, node.kwargs = (node.args[0], *map(float, bounds)), {}
    program.graph_module.recompile()


def spell_out_fake_quantisation(program: ExportedProgram) -> None:
    """Write a fake quantisation as (clamp(round(x / s) + z, a, b) − z) · s.

    torch's exporter supports it for one batch size only. Numbers are fp32, as in torch's kernel.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if operator_of(node) != ("fake_quantize_per_tensor_affine", "default"):
            continue
        # Below, bounds less z take the place of adding z and taking it away.
        source, scale, zero, least, most = node.args
        scale = torch.tensor(float(scale), dtype=torch.float32)
        with graph.inserting_before(node):
            # torch's kernel multiplies by 1/s; a division would round differently.
            steps = _like(node, aten.mul.Tensor, (source, scale.reciprocal().item()))
            steps = _like(node, aten.round.default, (steps,))
            steps = _like(
                node, aten.clamp.default, (steps, float(least - zero), float(most - zero))
            )
            spelled = _like(node, aten.mul.Tensor, (steps, scale.item()))
        node.replace_all_uses_with(spelled)
        graph.erase_node(node)
    program.graph_module.recompile()


def _like(node: torch.fx.Node, target: Any, args: tuple[Any, ...]) -> torch.fx.Node:
    """Return a call with the metadata, including the shape, of another node."""
    made = node.graph.call_function(target, args)
    made.meta = dict(node.meta)
    return made
