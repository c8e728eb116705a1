"""A finished file without its dead, unread and constant channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
import torch

from prunec.cost.onnx_sizes import Sizes
from prunec.deploy.compaction.observed import Observed, observe
from prunec.deploy.compaction.reader import captured_file
from prunec.deploy.compaction.reading import AS_IT_IS
from prunec.deploy.compaction.shape_of import ShapeOf
from prunec.deploy.compaction.sizes import chosen_sizes, is_open
from prunec.deploy.compaction.writer import OnnxWriter
from prunec.errors import PrunecError
from prunec.graph.capture.node import Node
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.families import FAMILIES
from prunec.graph.channels.groups import groups_of
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.decide import Decision, decide

_ROUNDS = 8  # a cut may untie channels; more than two rounds were never seen to find any
_KERNELS = ("conv1d", "conv2d", "conv3d", "linear")
_NO_CHANNEL = "not a channel"  # what has no channels has one number of them
_LIVE = "read, and their value is not known"


@dataclass(frozen=True)
class Compacted:
    """What became of a file.

    Attributes:
        model: the smaller one; the one that was given where nothing can go.
        removed: channel group → how many of its channels went.
        before: channel group → its channels.
        because: why channels stayed → how many.
        constants: values that are stored constants now.
    """

    model: onnx.ModelProto
    removed: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    because: Mapping[str, int] = field(default_factory=dict)
    constants: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything went."""
        return bool(self.removed or self.constants)


def compact_model(
    model: onnx.ModelProto, sizes: Sizes | None = None, *, round_to: int = 1
) -> Compacted:
    """Remove every channel of a file that does not matter to its outputs.

    Args:
        model: the file, its weights in it; it is not changed.
        sizes: of inputs that the file leaves open.
        round_to: kept counts of each channel group are rounded up to a multiple of it.

    Raises:
        PrunecError: onnxruntime does not run it.
    """
    first = _once(model, sizes or {}, round_to)
    found = first
    for _ in range(_ROUNDS):
        if not found.changed:
            break
        found = _once(found.model, sizes or {}, round_to)
        removed = Counter(first.removed) + Counter(found.removed)
        constants = (*first.constants, *found.constants)
        if found.changed:
            first = replace(found, removed=removed, before=first.before, constants=constants)
    return first


def _once(model: onnx.ModelProto, sizes: Sizes, round_to: int) -> Compacted:
    structure = analyse(
        captured_file(model, _observed(model, sizes)), families=(*FAMILIES, ShapeOf)
    )
    weights = {name: tensor.detach() for name, tensor in structure.captured.stored.items()}
    decision = replace(decide(structure, weights, round_to=round_to), taps={})
    groups = groups_of(structure)
    removed = {}
    for group in groups:
        gone = int((~decision.keep[torch.tensor(group.channels)]).sum())
        if gone:
            removed[group.name] = gone
    because = _because(structure, decision)
    if not removed and not decision.frozen:
        return Compacted(model, because=because)
    written = OnnxWriter(structure, decision).write()
    frozen = tuple(node.name for node in decision.frozen)
    before = {group.name: group.size for group in groups}
    return Compacted(written, removed, before, because, frozen)


def _observed(model: onnx.ModelProto, sizes: Sizes) -> Observed:
    """The file at two sizes of what it leaves open; at one where it does not take the other."""
    first, second = (chosen_sizes(model.graph, sizes, turn) for turn in (0, 1))
    tries: list[tuple[Sizes, Sizes | None]] = [(first, second), (first, None)]
    if not is_open(model.graph):
        del tries[0]
    if sizes:  # the batch that was given, of a file that takes no other
        tries.append(({name: sizes.get(name) or size for name, size in first.items()}, None))
    for one, other in tries[:-1]:
        try:
            return observe(model, one, other)
        except PrunecError:
            continue
    return observe(model, *tries[-1])


def _because(structure: Structure, decision: Decision) -> dict[str, int]:
    """Why channels stay → how many."""
    pinned = structure.pinned()
    found: Counter[str] = Counter()
    seen: set[int] = set()
    for atoms in structure.slices.values():
        for number in structure.class_of(atoms).tolist():
            if number in seen or not bool(decision.keep[number]):
                continue
            seen.add(number)
            found[pinned.get(number, decision.reasons.get(number, _LIVE))] += 1
    for number, why in pinned.items():  # of values that no stored tensor is cut with
        if number not in seen and "understood" in why:
            found[why] += 1
    for node in structure.captured.nodes:
        weight = node.arguments.get("weight", node.arguments.get("other"))
        if node.operator in _KERNELS and isinstance(weight, Node) and weight.kind == "call":
            made = "what is given" if weight.operator == AS_IT_IS else weight.operator
            found[f"the weight of {node.name} is computed by {made}"] += node.shape[1]
    del found[_NO_CHANNEL]
    return dict(found.most_common())
