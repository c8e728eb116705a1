"""A channel plan: what was cut, as plain data, applied to a fresh network of the same making."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from prunec.errors import PrunecError
from prunec.graph.atoms import analyse
from prunec.graph.capture import capture
from prunec.graph.decide import Decision
from prunec.graph.structure import Structure

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """How a network was cut.

    Attributes:
        removed: ``"parameter:axis"`` → removed positions along that axis. Axis −1 counts the input
            channels of a grouped kernel through its groups, −2 those outputs of a transposed one.
        biases: kernels' biases that the cut added.
        frozen: values of the graph that became constants, by node name, with their shapes.
        folded: batch norms of the graph that went into the kernel before them, by node name.
    """

    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    frozen: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    folded: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The plan as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan.

        Raises:
            PrunecError: the text is no plan of this format.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise PrunecError("The channel plan has another format.", remedy="Export it anew.")
            return cls(
                {str(k): tuple(int(i) for i in v) for k, v in data["removed"].items()},
                tuple(str(b) for b in data["biases"]),
                {str(k): tuple(int(i) for i in v) for k, v in data["frozen"].items()},
                tuple(str(b) for b in data["folded"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PrunecError(f"Not a channel plan: {error!r}", remedy="Export it anew.") from error

    def apply(self, fresh: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
        """Cut a fresh network of the same making; weights that stay are the fresh network's.

        Args:
            fresh: what the constructor that made the planned network returns.
            example: inputs of any batch of at least two.

        Raises:
            PrunecError: the network is not the one the plan was made for.
        """
        from prunec.graph.rewrite import rewrite  # the plan is the value, rewriting is the act

        structure = analyse(capture(fresh, example))
        return rewrite(structure, self.decision(structure), self)

    def decision(self, structure: Structure) -> Decision:
        """The decision that this plan records, for a structure of the same network."""
        keep = torch.ones(len(structure.classes), dtype=torch.bool)
        for key, positions in self.removed.items():
            name, _, axis = key.rpartition(":")
            atoms = structure.slices.get((name, int(axis)))
            if atoms is None or max(positions, default=0) >= len(atoms):
                raise PrunecError(
                    f"The channel plan cuts {name}, which this network does not have so.",
                    remedy="Apply the plan to the network that it was made for.",
                )
            keep[structure.class_of(atoms[torch.tensor(positions)])] = False
        by_name = {node.name: node for node in structure.captured.nodes}
        unknown = [n for n in (*self.frozen, *self.folded) if n not in by_name]
        if unknown:
            raise PrunecError(
                f"The channel plan names {unknown[0]}, which this network's graph does not have.",
                remedy="Apply the plan to the network that it was made for.",
            )
        weights = dict(structure.captured.module.state_dict())
        for name in self.biases:
            weight = structure.captured.tensor(name.rpartition(".")[0] + ".weight")
            kernel = next(k for k in structure.kernels.values() if k.weight.endswith(".weight")
                          and k.weight.rpartition(".")[0] == name.rpartition(".")[0])  # fmt: skip
            weights[name] = torch.zeros(len(kernel.outputs), dtype=weight.dtype)
        frozen = {by_name[n]: torch.zeros(shape) for n, shape in self.frozen.items()}
        return Decision(keep, weights, frozen)


def plan_of(structure: Structure, decision: Decision) -> Plan:
    """The plan that records a decision."""
    removed = {}
    for (name, axis), atoms in structure.slices.items():
        gone = torch.nonzero(~decision.keep[structure.class_of(atoms)]).flatten().tolist()
        if gone:
            removed[f"{name}:{axis}"] = tuple(gone)
    known = set(structure.captured.module.state_dict())
    known |= {str(n.target) for n in structure.captured.nodes if n.op == "get_attr"}
    biases = tuple(sorted(name for name in decision.weights if name not in known))
    frozen = {node.name: tuple(value.shape) for node, value in decision.frozen.items()}
    return Plan(removed, biases, frozen)
