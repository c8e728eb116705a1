"""Whether a graph answers as the network that it was recorded from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter
from torch.utils import _pytree as pytree

from prunec.graph.capture.other_lengths import Fixed
from prunec.graph.capture.recorded_lengths import lengths_by_recording
from prunec.graph.capture.recording import Hollow, Recording
from prunec.graph.capture.samples import of_samples
from prunec.graph.capture.surroundings import undisturbed


@dataclass(frozen=True)
class Traced:
    """A network's graph, and the network itself to compare it with.

    Attributes:
        graph: the graph with the network's own parameters and buffers.
        network: the caller's network.
        hollow: the copy that was recorded.
        recording: what was recorded first.
        names: of the graph's node for each call of it.
    """

    graph: GraphModule
    network: nn.Module
    hollow: Hollow
    recording: Recording
    names: tuple[str, ...]

    def answers_as(self, outputs: tuple[Tensor, ...], example: tuple[Tensor, ...]) -> bool:
        """Whether the network answers the same on one sample, and on the example if need be.

        Args:
            outputs: of the graph for the example, a batch that was not recorded.
            example: of which the network is given the first sample alone, yet another batch. Where
                that is not the first of the graph's answers, since samples depend on each other or
                lie elsewhere than along the first axis, the graph is given it as well.
        """
        single = of_samples(example, lambda x: x[:1])
        expected = self.hollow.answers(single)
        if _agree(tuple(map(_first, outputs, expected)), expected):
            return True
        with torch.no_grad():
            run = Interpreter(self.graph).run
            found = pytree.tree_leaves(run(*(x.clone() for x in single)))
        return _agree(found, expected) and _agree(outputs, self.hollow.answers(example))

    def lengths(self, example: tuple[Tensor, ...], otherwise: frozenset[str]) -> tuple[Fixed, ...]:
        """The axes of the inputs that the graph has at one length only.

        Args:
            example: inputs of the recorded shapes but for the batch.
            otherwise: nodes of the graph whose numbers do not matter.
        """
        passed = frozenset(i for i, name in enumerate(self.names) if name in otherwise)
        with undisturbed(self.network):
            return lengths_by_recording(self.hollow, self.recording, example, passed)


def _agree(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether all outputs are the same tensors."""
    return len(found) == len(expected) and all(
        isinstance(b, Tensor) and a.shape == b.shape and equal(a, b)
        for a, b in zip(found, expected, strict=True)
    )


def _first(output: Tensor, expected: Any) -> Tensor:
    along = output.dim() and isinstance(expected, Tensor) and expected.dim()
    return output[: len(expected)] if along else output


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same but for the order of sums."""
    if a.dtype != b.dtype or not a.is_floating_point():
        return torch.equal(a, b)
    bound = 1e-10 if a.dtype == torch.float64 else max(1e-5, 10 * torch.finfo(a.dtype).eps)
    finite = b[b.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    return torch.allclose(a, b, rtol=0, atol=bound * scale, equal_nan=True)
