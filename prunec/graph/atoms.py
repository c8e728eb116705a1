"""Which atom of channel identity sits at each index of every tensor.

Every output channel of a producer is an integer, an *atom*. Operators that only move values are
run on tensors of such integers, so that views, concatenations, splits and shuffles need no rule of
their own. Operators that combine several tensors position by position join atoms (union–find);
whatever is not understood pins the atoms it reads, with its name as the reason. Atom 0 stands for
everything that is no channel: images, sequence positions, results that are not understood.

A tensor's *layout* holds its atoms with every axis along which they do not differ shrunk to size 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph import operators as ops
from prunec.graph.capture import Captured
from prunec.graph.moves import run_move, widen
from prunec.graph.shapes import broadcast
from prunec.graph.shuffles import close_region
from prunec.graph.structure import Kernel, Link, Norm, Structure, shrink, varying


def analyse(captured: Captured) -> Structure:
    """Atoms, kernels and pins of a captured network."""
    builder = _Builder(captured)
    for node in captured.nodes:
        builder.visit(node)
    return builder.finish()


class _Builder:
    """Visits the nodes in order; what it knows of atoms is final only when all were seen."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.found = Structure(captured)
        self.parent: list[int] = [0]
        self.found.pins[0] = "not a channel"
        self.uses: dict[str, tuple[bool, int]] = {}

    # -- union–find ---------------------------------------------------------------------------

    def fresh(self, count: int) -> Tensor:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, atom: int) -> int:
        while self.parent[atom] != atom:
            self.parent[atom] = self.parent[self.parent[atom]]
            atom = self.parent[atom]
        return atom

    def join(self, left: Tensor, right: Tensor) -> None:
        pairs = torch.stack([left.reshape(-1), right.reshape(-1)], 1)
        for a, b in torch.unique(pairs[pairs[:, 0] != pairs[:, 1]], dim=0).tolist():
            if a == 0 or b == 0:
                self.found.pins.setdefault(a + b, "meets a value that is no channel")
                continue
            a, b = self.find(a), self.find(b)
            self.parent[max(a, b)] = min(a, b)

    def pin(self, atoms: Tensor, reason: str) -> None:
        for atom in torch.unique(atoms).tolist():
            self.found.pins.setdefault(atom, reason)

    # -- layouts ------------------------------------------------------------------------------

    def layout(self, node: Node) -> Tensor:
        if node not in self.found.layouts:
            self.found.layouts[node] = self.blank(node)
            if node.op == "get_attr":
                self.own_parameter(node)
        return self.found.layouts[node]

    def blank(self, node: Node) -> Tensor:
        rank = len(self.captured.shape(node)) if self.captured.is_tensor(node) else 0
        return torch.zeros([1] * rank, dtype=torch.long)

    def own_parameter(self, node: Node) -> None:
        """A vector that enters element-wise arithmetic is a producer: its entries are atoms."""
        shape = self.captured.shape(node)
        size = math.prod(shape)
        if size <= 1 or size != max(shape):
            return
        axis = shape.index(size)
        atoms = self.slice(str(node.target), axis, None, size)
        self.found.layouts[node] = atoms.reshape(shape)

    def slice(self, name: str, axis: int, atoms: Tensor | None, size: int) -> Tensor:
        """Atoms along an axis of a parameter; a second use joins those of the first."""
        known = self.found.slices.get((name, axis))
        if known is None:
            known = self.found.slices[name, axis] = self.fresh(size) if atoms is None else atoms
        elif atoms is not None:
            self.join(known, atoms)
        return known

    def along(self, node: Node, axis: int, reason: str) -> Tensor:
        """Atoms along one axis, shape (size,); atoms that differ along another are pinned."""
        layout = self.layout(node)
        size = self.captured.shape(node)[axis]
        axis %= max(layout.dim(), 1)
        if any(other != axis for other in varying(layout)):
            self.pin(layout, reason)
            return torch.zeros(size, dtype=torch.long)
        for other in range(layout.dim()):
            if other != axis:
                layout = layout.narrow(other, 0, 1)
        return layout.reshape(-1).expand(size) if layout.numel() == 1 else layout.reshape(-1)

    # -- visits -------------------------------------------------------------------------------

    def visit(self, node: Node) -> None:
        if node.op == "output":
            for source in node.all_input_nodes:
                if self.captured.is_tensor(source):
                    self.pin(self.layout(source), "network output")
            return
        if node.op != "call_function":
            return
        name = ops.op_name(node)
        operands = [n for n in node.all_input_nodes if self.captured.is_tensor(n)]
        self.found.kinds[node] = "refused"
        if name == "getitem":
            self.visit_getitem(node)
        elif not self.captured.is_tensor(node):
            self.visit_tuple(node, name, operands)
        elif name in ops.CONVOLUTIONS:
            self.visit_convolution(node)
        elif name == "linear":
            self.visit_linear(node)
        elif name == "batch_norm":
            self.visit_norm(node)
        elif name in ops.IDENTITY or (name == "prelu" and self.visit_prelu(node)):
            self.settle(node, "prelu" if name == "prelu" else "identity", self.layout(operands[0]))
        elif name in ops.ELEMENTWISE or name == "prelu":
            self.visit_elementwise(node, operands)
        elif name in ops.WINDOWS:
            self.visit_window(node, operands[0])
        elif name in ops.REDUCTIONS:
            self.visit_reduction(node, operands[0])
        elif name in ops.PADS:
            self.visit_pad(node, operands[0])
        elif name in ops.MOVES:
            self.visit_move(node, node)
        else:
            self.refuse(node, operands)

    def settle(self, node: Node, kind: str, layout: Tensor) -> None:
        self.found.kinds[node] = kind
        self.found.layouts[node] = layout

    def refuse(self, node: Node, operands: Sequence[Node], why: str = "") -> None:
        for operand in operands:
            layout = self.layout(operand)
            self.pin(layout, why or f"{ops.op_name(node)} at {node.name} is not understood")
        self.found.layouts[node] = self.blank(node)

    def visit_tuple(self, node: Node, name: str, operands: Sequence[Node]) -> None:
        if name not in ops.MOVES:
            self.refuse(node, operands)

    def visit_getitem(self, node: Node) -> None:
        source = node.args[0]
        assert isinstance(source, Node)
        if self.captured.is_tensor(node) and ops.op_name(source) in ops.MOVES:
            self.visit_move(node, source)
        else:
            self.found.layouts[node] = self.blank(node)

    def visit_elementwise(self, node: Node, operands: Sequence[Node]) -> None:
        rank = len(self.captured.shape(node))
        out_shape = self.captured.shape(node)
        aligned = []
        for operand in operands:
            layout, real = self.layout(operand), self.captured.shape(operand)
            lead = [1] * (rank - layout.dim())
            aligned.append((layout.reshape(lead + list(layout.shape)), tuple(lead) + real))
        target = broadcast(*[tuple(layout.shape) for layout, _ in aligned])
        result: Tensor | None = None
        for layout, real in aligned:
            spread = [i for i in range(rank) if real[i] == 1 and out_shape[i] > 1 and target[i] > 1]
            if spread:
                self.pin(layout, f"broadcast by {ops.op_name(node)} at {node.name}")
            elif result is None:
                result = layout.expand(target)
            else:
                self.join(result, layout.expand(target))
        if result is None:
            self.refuse(node, operands, f"outer product by {ops.op_name(node)} at {node.name}")
            return
        self.settle(node, "elementwise", result.contiguous())

    def visit_window(self, node: Node, source: Node) -> None:
        layout = self.layout(source)
        axes = varying(layout)
        rank = len(self.captured.shape(node))
        spatial = int(ops.op_name(node).rstrip("_exact")[-2]) if ops.op_name(node)[-1] == "d" else 2
        if any(axis >= rank - spatial for axis in axes):
            self.refuse(node, [source], f"{ops.op_name(node)} at {node.name} runs over channels")
            return
        for axis in range(rank - spatial, rank):
            layout = layout.narrow(axis, 0, 1)
        self.settle(node, "window", layout)

    def visit_reduction(self, node: Node, source: Node) -> None:
        arguments = ops.arguments(node)
        layout = self.layout(source)
        rank = layout.dim()
        dims = arguments.get("dim")
        axes = {d % rank for d in dims} if isinstance(dims, (list, tuple)) and dims else None
        axes = {dims % rank} if isinstance(dims, int) else axes
        if axes is None or axes & set(varying(layout)):
            self.refuse(node, [source], f"{ops.op_name(node)} at {node.name} runs over channels")
            return
        for axis in sorted(axes, reverse=True):
            layout = layout.narrow(axis, 0, 1)
            layout = layout if arguments.get("keepdim") else layout.squeeze(axis)
        self.settle(node, "reduction", layout)

    def visit_prelu(self, node: Node) -> bool:
        """Slopes per channel are cut with the channels; one slope for all is element-wise."""
        source, slope = node.args[0], node.args[1]
        assert isinstance(source, Node)
        assert isinstance(slope, Node)
        size = math.prod(self.captured.shape(slope))
        if slope.op != "get_attr" or size == 1:
            return size == 1
        atoms = self.along(source, 1, f"prelu at {node.name}")
        self.slice(str(slope.target), 0, atoms, size)
        return True

    def visit_norm(self, node: Node) -> None:
        named = ops.arguments(node)
        source = named["input"]
        parts = [named[key] for key in ("weight", "bias", "running_mean", "running_var")]
        if any(isinstance(p, Node) and p.op != "get_attr" for p in parts) or parts[2] is None:
            self.refuse(node, [source], f"batch norm at {node.name} uses statistics of the batch")
            return
        atoms = self.along(source, 1, f"batch norm at {node.name}")
        names = [None if p is None else str(p.target) for p in parts]
        for name in names:
            if name is not None:
                self.slice(name, 0, atoms, len(atoms))
        assert names[2] is not None
        assert names[3] is not None
        self.found.norms[node] = Norm(
            node, source, names[0], names[1], names[2], names[3], float(named["eps"])
        )
        self.settle(node, "norm", self.layout(source))

    # -- kernels ------------------------------------------------------------------------------

    def visit_convolution(self, node: Node) -> None:
        named = ops.arguments(node)
        weight, source = named["weight"], named["input"]
        rank = len(self.captured.shape(source))
        if weight.op != "get_attr" or rank != len(self.captured.shape(weight)):
            self.refuse(
                node,
                [source, weight],
                f"{ops.op_name(node)} at {node.name}: its weight is computed",
            )
            return
        transposed = "transpose" in ops.op_name(node)
        shape, out = self.captured.shape(weight), self.captured.shape(node)
        groups = int(named["groups"])
        spatial = math.prod((self.captured.shape(source) if transposed else out)[2:])
        padding = named["padding"]
        padded = padding != "valid" if isinstance(padding, str) else any(ops.single(padding, 1))
        size = shape[1] * groups if transposed else shape[0]
        positions = spatial * math.prod(shape[2:])
        self.add_kernel(node, source, named, size, 1, groups, transposed, padded, positions)

    def visit_linear(self, node: Node) -> None:
        named = ops.arguments(node)
        weight, source = named["weight"], named["input"]
        if weight.op != "get_attr":
            self.refuse(node, [source, weight], f"linear at {node.name}: its weight is computed")
            return
        out = self.captured.shape(node)
        size, axis = self.captured.shape(weight)[0], len(out) - 1
        positions = math.prod(out[1:-1])
        self.add_kernel(node, source, named, size, axis, 1, False, False, positions)

    def add_kernel(
        self, node: Node, source: Node, named: dict[str, Any], size: int, axis: int, groups: int,
        transposed: bool, bordered: bool, positions: int,
    ) -> None:  # fmt: skip
        weight, bias = str(named["weight"].target), named["bias"]
        if self.uses.setdefault(weight, (transposed, groups)) != (transposed, groups):
            self.refuse(node, [source], f"{weight} is also used by another kind of kernel")
            for (owner, _), atoms in self.found.slices.items():
                if owner == weight:
                    self.pin(atoms, f"{weight} is used by kernels of two kinds")
            return
        inputs = self.along(source, axis, f"{ops.op_name(node)} at {node.name}")
        if groups == 1:
            self.slice(weight, 0 if transposed else 1, inputs, len(inputs))
        else:
            self.slice(weight, -1, inputs, len(inputs))  # counts through the groups
        outputs = self.slice(
            weight, -2 if transposed and groups > 1 else int(transposed), None, size
        )
        if bias is not None and bias.op == "get_attr":
            self.slice(str(bias.target), 0, outputs, size)
        elif bias is not None:
            self.pin(outputs, f"{ops.op_name(node)} at {node.name}: its bias is computed")
        if groups == len(inputs):
            self.join(inputs.repeat_interleave(size // groups), outputs)
        name = None if bias is None or bias.op != "get_attr" else str(bias.target)
        self.found.kernels[node] = Kernel(
            node, weight, name, source, axis, inputs, outputs, groups, transposed,
            bordered or transposed, positions,
        )  # fmt: skip
        shape = [1] * len(self.captured.shape(node))
        shape[axis] = size
        self.settle(node, "kernel", outputs.reshape(shape))

    # -- moves --------------------------------------------------------------------------------

    def visit_move(self, node: Node, call: Node) -> None:
        first = call.args[0]
        listed = first if isinstance(first, (list, tuple)) else [first]
        operands = tuple(n for n in listed if isinstance(n, Node))
        if ops.op_name(call) in ("cat", "concat") and self.joins_positions(call, operands):
            self.visit_spatial_cat(node, operands)
            return
        ids, start = [], 0
        for operand in operands:
            layout = self.layout(operand)
            index = torch.arange(start, start + layout.numel()).reshape(layout.shape)
            ids.append(widen(self.captured, index, operand, call))
            start += layout.numel()
        try:
            moved = run_move(self.captured, node, call, ids)
        except (RuntimeError, IndexError, TypeError) as error:
            self.refuse(node, operands, f"{ops.op_name(call)} at {node.name}: {error}")
            return
        index = shrink(moved)
        atoms = torch.cat([self.layout(operand).reshape(-1) for operand in operands])
        self.found.links[node] = Link(operands, index.reshape(-1))
        self.settle(node, "move", atoms[index])

    def joins_positions(self, call: Node, operands: Sequence[Node]) -> bool:
        """Whether a concatenation runs along an axis that is no channel axis of its operands."""
        axis = int(ops.arguments(call)["dim"])
        return any(
            self.captured.shape(x)[axis] > 1
            and self.layout(x).shape[axis] == 1
            and bool(self.layout(x).any())
            for x in operands
        )

    def visit_spatial_cat(self, node: Node, operands: Sequence[Node]) -> None:
        shape = broadcast(*[tuple(self.layout(x).shape) for x in operands])
        first = self.layout(operands[0]).expand(shape)
        for operand in operands[1:]:
            self.join(first, self.layout(operand).expand(shape))
        self.settle(node, "alike", first.contiguous())

    def visit_pad(self, node: Node, source: Node) -> None:
        """Padding of positions leaves atoms alone; padding of channels makes constant ones."""
        named = ops.arguments(node)
        layout, real = self.layout(source), self.captured.shape(source)
        widths = list(named["pad"] if "pad" in named else named["padding"])
        rank, fill = len(real), float(named.get("value") or 0.0)
        constant = ops.op_name(node) == "constant_pad_nd" or named.get("mode") == "constant"
        touched = [
            rank - 1 - i // 2 for i in range(0, len(widths), 2) if widths[i] or widths[i + 1]
        ]
        axes = [axis for axis in touched if layout.shape[axis] > 1]
        if not axes and all(real[axis] > 1 for axis in touched):
            self.settle(node, "border", layout)
            return
        if not constant or len(touched) != 1:
            self.refuse(node, [source])
            return
        index = torch.arange(layout.numel()).reshape(layout.shape)
        index = index.expand([real[i] if i in touched else layout.shape[i] for i in range(rank)])
        moved = torch.constant_pad_nd(index, widths, -1)
        made = moved < 0
        atoms = torch.zeros_like(moved)
        atoms[~made] = layout.reshape(-1)[moved[~made]]
        atoms[made] = self.fresh(int(made.sum()))
        self.found.links[node] = Link((source,), moved.reshape(-1), fill)
        self.settle(node, "move", atoms)

    # -- the end ------------------------------------------------------------------------------

    def finish(self) -> Structure:
        for node in self.captured.nodes:
            layout = self.found.layouts.get(node)
            if layout is None or len(varying(layout)) < 2 or node in self.found.virtual:
                continue
            if not close_region(self.found, node):
                name = ops.op_name(node)
                self.pin(layout, f"{name} at {node.name} spreads channels over several axes")
        self.found.classes = torch.tensor([self.find(a) for a in range(len(self.parent))])
        return self.found
