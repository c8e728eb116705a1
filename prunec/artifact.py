"""Artifact: the value that flows through the pipeline, a network with masks and history.

See docs/glossary.md: artifact, step, mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prunec.cost import Cost
from prunec.cost.torch_graph import count_captured
from prunec.graph.capture import Captured, capture
from prunec.graph.rewriting.plan import Plan
from prunec.models.gates import absorbed
from prunec.models.low_rank import Form


@dataclass(frozen=True)
class Step:
    """Record of a pass that ran.

    Attributes:
        name: name of the pass.
        options: its options from the recipe, defaults filled in.
        facts: facts that hold after it, such as ``trained`` or ``gated``.
        macs: MACs per sample, before and after.
        params: number of parameters, before and after.
        error: largest relative difference of the outputs before and after; None for training.
        seconds: wall-clock time.
        digest: sha256 of the weights after it.
        notes: sentences for the user: refusals with reasons, accuracies, counts.
        details: the same as values of JSON.
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
    """A network as an immutable value; a pass returns a new one.

    Attributes:
        module: the network, in eval mode, on the CPU, always runnable.
        example: one tensor per input, two samples each; used to trace, count, check and export.
        masks: parameter name → bool tensor of its shape; the weight is zero where it is False.
        ties: parameter name → name of the parameter that replaces it, in the network of the
            recipe's constructor, before any cut.
        forms: name of a linear map → its form (low rank, …), where it differs from that of the
            recipe's constructor, before any cut.
        plans: the cuts, in order, starting from the network of the recipe's constructor.
        history: one step per pass.
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
        """Facts that hold of the network now, as the last step recorded them."""
        return frozenset(self.history[-1].facts) if self.history else frozenset()

    @cached_property
    def cost(self) -> Cost:
        """Cost of the network, gates absorbed; counted once."""
        module = absorbed(self.module)
        captured = capture(module, self.example)
        cost = count_captured(captured, module)
        # With gates, the counted network is a copy, and its graph is another.
        if module is self.module:
            self.__dict__[_GRAPH] = captured
        return cost

    @cached_property
    def answers(self) -> list[Tensor]:
        """Outputs of the network for the example, computed once."""
        return outputs(self.module, self.example)

    def captured(self) -> Captured:
        """Return the network's graph, which the caller may modify.

        The graph that :attr:`cost` was counted on is handed out once; after that, a new one.
        """
        # Popped: the caller may change it, so the next one needs its own.
        graph = self.__dict__.pop(_GRAPH, None)
        return graph or capture(self.module, self.example)

    def knows(self, same: Artifact) -> None:
        """Take over what is cached of an artifact of the same network and weights."""
        for key in ("cost", "answers", _GRAPH):
            if key in same.__dict__:
                self.__dict__[key] = same.__dict__[key]


_GRAPH = "_graph"


def outputs(module: nn.Module, example: tuple[Tensor, ...]) -> list[Tensor]:
    """Return all output tensors of a network for an example, nested containers flattened."""
    with torch.no_grad():
        return _flat(module(*(x.clone() for x in example)))  # clones: it may modify its inputs


def _flat(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value
    if not isinstance(items, Iterable):
        return []
    return [tensor for item in items for tensor in _flat(item)]
