"""Removal of dead, unread and constant channels from a finished file."""

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

_ROUNDS = 8  # a cut may untie channels; more than two rounds were never needed
_KERNELS = ("conv1d", "conv2d", "conv3d", "linear")
_NO_CHANNEL = "not a channel"  # reason of atom 0, which stands for everything without channels
_LIVE = "read, and their value is not known"


@dataclass(frozen=True)
class Compacted:
    """Result of a compaction.

    Attributes:
        model: smaller model, or the original one if nothing can be removed.
        removed: channel group → number of removed channels.
        before: channel group → number of channels before.
        because: reason for keeping channels → their number.
        constants: names of values that are stored constants now.
    """

    model: onnx.ModelProto
    removed: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    because: Mapping[str, int] = field(default_factory=dict)
    constants: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was removed."""
        return bool(self.removed or self.constants)


def compact_model(
    model: onnx.ModelProto, sizes: Sizes | None = None, *, round_to: int = 1
) -> Compacted:
    """Remove every channel of a file that does not affect its outputs.

    Args:
        model: model with its weights; it is not changed.
        sizes: sizes of inputs that the file leaves open.
        round_to: multiple to which kept counts of each channel group are rounded up.

    Raises:
        PrunecError: onnxruntime does not run the model.
    """
    result = _once(model, sizes or {}, round_to)
    latest = result
    for _ in range(_ROUNDS):
        if not latest.changed:
            break
        latest = _once(latest.model, sizes or {}, round_to)
        removed = Counter(result.removed) + Counter(latest.removed)
        constants = (*result.constants, *latest.constants)
        if latest.changed:
            result = replace(latest, removed=removed, before=result.before, constants=constants)
    return result


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
    """Run the file at two sizes of its open axes, or at one size if it rejects the other."""
    first, second = (chosen_sizes(model.graph, sizes, turn) for turn in (0, 1))
    tries: list[tuple[Sizes, Sizes | None]] = [(first, second), (first, None)]
    # Without open axes both runs would be alike.
    if not is_open(model.graph):
        del tries[0]
    if sizes:  # the given batch size, for a file that accepts no other
        tries.append(({name: sizes.get(name) or size for name, size in first.items()}, None))
    for one, other in tries[:-1]:
        try:
            return observe(model, one, other)
        except PrunecError:
            continue
    return observe(model, *tries[-1])


def _because(structure: Structure, decision: Decision) -> dict[str, int]:
    """Return reason for keeping channels → their number."""
    pinned = structure.pinned()
    reasons: Counter[str] = Counter()
    seen: set[int] = set()
    for atoms in structure.slices.values():
        for number in structure.class_of(atoms).tolist():
            if number in seen or not bool(decision.keep[number]):
                continue
            seen.add(number)
            reasons[pinned.get(number, decision.reasons.get(number, _LIVE))] += 1
    for number, why in pinned.items():  # channels of values without a stored tensor to cut
        if number not in seen and "understood" in why:
            reasons[why] += 1
    for node in structure.captured.nodes:
        weight = node.arguments.get("weight", node.arguments.get("other"))
        if node.operator in _KERNELS and isinstance(weight, Node) and weight.kind == "call":
            made = "what is given" if weight.operator == AS_IT_IS else weight.operator
            reasons[f"the weight of {node.name} is computed by {made}"] += node.shape[1]
    del reasons[_NO_CHANNEL]
    return dict(reasons.most_common())
