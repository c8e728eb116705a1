"""What flows through the pipeline: a network, its masks, and the history of what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from prunec.cost import Cost
from prunec.cost.torch_graph import count_captured
from prunec.graph.capture import Captured, capture
from prunec.graph.rewriting.plan import Plan
from prunec.models.gates import absorbed
from prunec.models.low_rank import Form


@dataclass(frozen=True)
class Step:
    """One pass that ran.

    Attributes:
        name: the pass.
        options: its options, as the recipe gave them, defaults filled in.
        facts: what holds of the artifact after it.
        macs: MACs of one sample, before and after.
        params: number of parameters, before and after.
        error: largest relative difference of the outputs before and after; None for training.
        seconds: wall-clock time.
        digest: sha256 of the weights after it.
        notes: what a person should know: refusals with reasons, accuracies, counts.
        details: the same for machines.
    """

    name: str
    options: Mapping[str, Any]
    facts: tuple[str, ...]
    macs: tuple[int, int]
    params: tuple[int, int]
    error: float | None
    seconds: float
    digest: str
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A network as a value; a pass returns a new one.

    Attributes:
        module: the network, in eval mode, on the CPU, always runnable as it stands.
        example: one small fixed input (batch of 2): traces, counts, checks and export use it.
        masks: parameter name → bool tensor of its shape; the weight is zero where it is False.
        ties: name of a parameter → name of the one that takes its place, in the network that the
            recipe's constructor makes, before it is cut.
        forms: name of a linear map → how it is computed, where that is not how the recipe's
            constructor has it; before it is cut.
        plans: how it was cut, in order, from the network that the recipe's constructor makes.
        history: a step per pass.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
    plans: tuple[Plan, ...] = ()
    history: tuple[Step, ...] = ()

    @property
    def facts(self) -> frozenset[str]:
        """What holds of the network now, by the last step's word."""
        return frozenset(self.history[-1].facts) if self.history else frozenset()

    @cached_property
    def cost(self) -> Cost:
        """Cost of the network as it stands, counted once."""
        module = absorbed(self.module)
        captured = capture(module, self.example)
        cost = count_captured(captured, module)
        if module is self.module:
            self.__dict__[_GRAPH] = captured
        return cost

    def captured(self) -> Captured:
        """Return the network's graph, for one who uses it up: the one counted, if it is left."""
        found = self.__dict__.pop(_GRAPH, None)
        return found or capture(self.module, self.example)

    def knows(self, same: Artifact) -> None:
        """Take over what is known of another artifact's cost, whose network and weights it has."""
        for key in ("cost", _GRAPH):
            if key in same.__dict__:
                self.__dict__[key] = same.__dict__[key]


_GRAPH = "_graph"
