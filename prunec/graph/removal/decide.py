"""Decision on the kept channels: constants and liveness to a fixpoint, then demands of operators.

A channel (a class of joined atoms) stays if it is pinned or live anywhere. Some dead channels stay
too, as zeros or unread: to keep groups of a grouped convolution equal, to leave no tensor empty,
and to round counts up to the recipe's multiple.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.groups import class_bundles
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.weights import Weights
from prunec.graph.removal.carriers import constants_read, fold
from prunec.graph.removal.constants import Constants, propagate
from prunec.graph.removal.counts import STEP, Counts, Rounding
from prunec.graph.removal.demands import Demands
from prunec.graph.removal.liveness import Liveness, find_live
from prunec.graph.removal.taps import Taps, dead_taps


@dataclass(frozen=True)
class Decision:
    """Kept channels, and the weights after folding of constants.

    Attributes:
        keep: class → whether it stays, indexed by class number.
        weights: every parameter and buffer, uncut; float64 where constants were folded.
        frozen: node → the constant that replaces it, in the layout's shape.
        reasons: class that is unread or constant and stays nevertheless → why.
        taps: weight → number of spatial taps cut at each end of each axis.
    """

    keep: Tensor
    weights: dict[str, Tensor]
    frozen: dict[Node, Tensor]
    reasons: dict[int, str] = field(default_factory=dict)
    taps: Taps = field(default_factory=dict)


def decide(structure: Structure, weights: dict[str, Tensor], *, round_to: Rounding = 1) -> Decision:
    """Decide on the kept channels of a network with these weights (zero where masked).

    Args:
        structure: structure of the captured network.
        weights: parameter or buffer name → tensor.
        round_to: multiple to which kept counts of a channel group are rounded up, or a rule that
            returns the counts.
    """
    values = Weights(weights)
    constants, alive = _folded(structure, values)
    known = constants.known
    live = _live_classes(structure, alive)
    strength = _Strength(structure, values)
    settled = _Settled(structure, live.clone(), torch.ones_like(live), alive, strength)
    if isinstance(round_to, int):
        rounded = _Rounded(structure, round_to)
    else:
        settled.settle(None)
        rounded = _Rounded(structure, _fixed(structure, settled.keep, round_to))
        settled = _Settled(structure, live.clone(), torch.ones_like(live), alive, strength)
    settled.settle(rounded)
    # A channel kept for one demand may also serve another: settle again among the kept ones only,
    # until no channel is superfluous.
    while True:
        less = _Settled(structure, live.clone(), settled.keep, alive, strength)
        less.settle(rounded)
        if bool((less.keep == settled.keep).all()):
            break
        settled = less
    reasons = _carriers(structure, values, constants, live) | settled.reasons
    frozen = {node: torch.nan_to_num(known[node]) for node in alive.frozen}
    taps = dead_taps(structure, settled.keep, values.all_stored(), alive)
    return Decision(settled.keep, values.all_stored(), frozen, reasons, taps)


def _folded(structure: Structure, weights: Weights) -> tuple[Constants, Liveness]:
    """Fold constants until nothing changes; return the constants and the liveness."""
    constants = propagate(structure, weights)
    while fold(structure, weights, constants):
        constants = propagate(structure, weights)
    alive = find_live(structure, weights, constants.known)
    while fold(structure, weights, constants, alive):  # now without unread filters as readers
        constants = propagate(structure, weights)
        alive = find_live(structure, weights, constants.known)
    return constants, alive


def _live_classes(structure: Structure, alive: Liveness) -> Tensor:
    """Return classes that are pinned or live, or that no plan can name: in no stored tensor."""
    keep = torch.ones(len(structure.classes), dtype=torch.bool)
    for atoms in structure.slices.values():
        # Classes in a stored tensor start as removable; all others stay.
        keep[structure.class_of(atoms)] = False
    keep[structure.pinned_classes()] = True
    for node, live in alive.live.items():
        if node not in alive.frozen and bool(live.any()):
            keep[structure.class_of(structure.layouts[node])[live]] = True
    return keep


def _carriers(
    structure: Structure, weights: Weights, constants: Constants, keep: Tensor
) -> dict[int, str]:
    """Return constant channels that stay to carry the constants of a padding kernel → why."""
    varies = torch.zeros(len(structure.classes), dtype=torch.bool)
    carries: dict[int, str] = {}
    for kernel in structure.of(Kernel).values():
        values = constants_read(kernel, constants).inside
        reads = weights.reads(kernel).any(1).reshape(-1)
        classes = structure.class_of(kernel.inputs)
        varies[classes[reads & values.isnan()]] = True
        for number in classes[reads & ~values.isnan()].tolist():
            carries.setdefault(number, f"carries the constants that {kernel.weight} reads")
    pinned = structure.pinned()
    return {
        n: why
        for n, why in carries.items()
        if bool(keep[n]) and n not in pinned and not bool(varies[n])
    }


class _Strength:
    """Strength of channels, by which dead ones are chosen to stay.

    The strength is the sum of the absolute kernel weights that write or read the channel.
    """

    def __init__(self, structure: Structure, weights: Weights) -> None:
        self.structure = structure
        self.weights = weights

    @cached_property
    def of_classes(self) -> Tensor:
        """Class → strength, computed at the first choice between channels."""
        class_of = self.structure.class_of
        strength = torch.zeros(len(self.structure.classes), dtype=torch.float64)
        for kernel in self.structure.of(Kernel).values():
            matrix = self.weights.matrix(kernel).abs().sum(-1, dtype=torch.float64)
            strength.index_add_(0, class_of(kernel.outputs), matrix.sum(2).reshape(-1))
            strength.index_add_(0, class_of(kernel.inputs), matrix.sum(1).reshape(-1))
        return strength


class _Rounded:
    """Wanted numbers of channels per group, for groups that keep any."""

    def __init__(self, structure: Structure, round_to: int | list[int]) -> None:
        self._round_to = round_to
        rounds = round_to if isinstance(round_to, list) else round_to > 1
        self._groups = list(class_bundles(structure).values()) if rounds else []

    def of(self, keep: Tensor) -> Iterator[tuple[Tensor, int, str]]:
        """Yield each group's classes, wanted count and reason, given the classes that stay now."""
        for number, group in enumerate(self._groups):
            kept = int(keep[group].sum())
            if isinstance(self._round_to, int):
                wanted = -(-kept // self._round_to) * self._round_to
                yield group, wanted, f"rounded up to a multiple of {self._round_to}"
            elif kept <= self._round_to[number]:
                yield group, self._round_to[number], "rounded up to what takes the least time"
            else:  # demands of operators exceed the chosen count
                yield group, -(-kept // STEP) * STEP, f"rounded up to a multiple of {STEP}"


def _fixed(structure: Structure, keep: Tensor, counts: Counts) -> list[int]:
    """Return the wanted count of each group, from the counts that it needs unrounded."""
    groups = list(class_bundles(structure).values())
    needed = [int(keep[group].sum()) for group in groups]
    wanted = counts(structure, groups, needed)
    return [max(n, count) for n, count in zip(needed, wanted, strict=True)]


class _Settled:
    """Kept channels besides the live ones: as few as operators and rounding allow."""

    def __init__(
        self,
        structure: Structure,
        keep: Tensor,
        allowed: Tensor,
        alive: Liveness,
        strength: _Strength,
    ) -> None:
        self.structure = structure
        self.keep = keep
        self.allowed = allowed
        self.alive = alive
        self.strength = strength
        self.reasons: dict[int, str] = {}
        kernels = structure.of(Kernel).values()
        self.grouped = [k for k in kernels if k.groups > 1 and not k.depthwise]
        self.demands = Demands(structure, self.grouped)

    def settle(self, rounded: _Rounded | None) -> None:
        """Add channels until every demand is met."""
        before = -1
        while int(self.keep.sum()) != before:
            before = int(self.keep.sum())
            self._fill_empty()
            for kernel in self.grouped:
                self._equalise(kernel)
            for blocks in self.structure.even:
                self._even_out([self.structure.class_of(atoms) for atoms in blocks])
            for atoms in self.structure.projected:
                self._widen(*map(self.structure.class_of, atoms))
            for bundle, wanted, why in rounded.of(self.keep) if rounded else ():
                self._revive(bundle, wanted, why)

    def _revive(self, candidates: Tensor, wanted: int, why: str) -> None:
        """Keep the strongest dead candidates until ``wanted`` of them stay, or all do.

        A class that occurs several times among the candidates counts as often. Classes that more
        groups lack come before stronger ones.
        """
        missing = wanted - int(self.keep[candidates].sum())
        classes, counts = torch.unique(candidates, return_counts=True)
        choice = ~self.keep[classes] & self.allowed[classes]
        dead, counts = classes[choice], counts[choice]
        while missing > 0 and len(dead):
            order = torch.argsort(self.strength.of_classes[dead], descending=True, stable=True)
            # One at a time: each kept channel changes the number of groups that lack the others.
            if bool(self.demands.shared[dead].any()):
                unmet = self.demands.unmet(self.keep)[dead[order]]
                order = order[torch.argmax(unmet)].reshape(1)
            before = counts[order].cumsum(0) - counts[order]
            revived = dead[order[before < missing]]
            self.keep[revived] = True
            self.reasons |= dict.fromkeys(revived.tolist(), why)
            unused = ~torch.isin(dead, revived)
            missing -= int(counts[~unused].sum())
            dead, counts = dead[unused], counts[unused]

    def _revive_one(self, candidates: Tensor, why: str) -> None:
        """Keep one dead candidate: one that forces the fewest further groups of kernels to stay."""
        burden = torch.zeros(len(self.keep), dtype=torch.long)
        for kernel in self.grouped:
            inputs, outputs, stays = self._groups(kernel)
            for classes in (inputs[~stays], outputs[~stays]):
                burden[torch.unique(classes)] += 1
        candidates = candidates[self.allowed[candidates]]
        if not len(candidates):
            return
        self._revive(candidates[burden[candidates] == burden[candidates].min()], 1, why)

    def _groups(self, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
        """Return input and output classes of each group of a kernel, and whether any of them
        stays.
        """
        inputs = self.structure.class_of(kernel.inputs).reshape(kernel.groups, -1)
        outputs = self.structure.class_of(kernel.outputs).reshape(kernel.groups, -1)
        return inputs, outputs, self.keep[inputs].any(1) | self.keep[outputs].any(1)

    def _equalise(self, kernel: Kernel) -> None:
        """Give every group that stays as many inputs and outputs as the fullest group."""
        inputs, outputs, stays = self._groups(kernel)
        if not bool(stays.any()):
            return
        for classes in (inputs, outputs):
            wanted = max(1, int(self.keep[classes].sum(1).max()))
            for group in torch.nonzero(stays).flatten().tolist():
                self._revive(classes[group], wanted, f"evens the groups of {kernel.weight}")

    def _even_out(self, blocks: list[Tensor]) -> None:
        """Give the parts of one operator, such as recurrent cells, equal counts, or none at all."""
        counts = [int(self.keep[classes].sum()) for classes in blocks]
        if max(counts):
            for classes in blocks:
                self._revive(classes, max(counts), "evens the parts of one operator")

    def _widen(self, units: Tensor, outputs: Tensor) -> None:
        """Give a cell with a projection more units than outputs, as torch requires, or none."""
        if bool(self.keep[torch.cat([units, outputs])].any()):
            why = "a recurrent projection needs more units than outputs"
            self._revive(outputs, 1, why)
            self._revive(units, int(self.keep[outputs].sum()) + 1, why)

    def _fill_empty(self) -> None:
        """Keep one channel at least of every computed value, and of its required operands."""
        structure, alive = self.structure, self.alive
        needed: set[Node] = set()
        for node in reversed(structure.captured.nodes):
            if node in alive.frozen or node.kind == "stored":
                continue
            layout = structure.layouts.get(node)
            live = layout is not None and bool(alive.live[node].any())
            kept = layout is not None and bool(self.keep[structure.class_of(layout)].any())
            if node.kind == "output" or live or kept or node in needed:
                if layout is not None and not kept:
                    classes = self._passed_on(node, torch.unique(structure.class_of(layout)))
                    self._revive_one(classes, f"{node.name} may not be empty")
                needed.update(_must_have(structure, node))

    def _passed_on(self, node: Node, classes: Tensor) -> Tensor:
        """Return those of a value's classes that all required operands share.

        Keeping one of them fills the operands too; a padded-on zero would fill this value alone.
        """
        todo, seen = [node], {node}
        while todo:
            for source in _must_have(self.structure, todo.pop()):
                layout = self.structure.layouts.get(source)
                if layout is None or source in seen:
                    continue
                own = torch.isin(classes, self.structure.class_of(layout)) & self.allowed[classes]
                if bool(own.any()):
                    classes = classes[own]
                    seen.add(source)
                    todo.append(source)
        return classes


def _must_have(structure: Structure, node: Node) -> list[Node]:
    """Return the operands that may not be empty: all but those of a concatenation."""
    operator = structure.operators.get(node)
    required = node.operands if operator is None else operator.required
    return [n for n in required if n in structure.layouts]
