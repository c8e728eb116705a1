"""Comparison of a recorded graph's outputs with the outputs of its network."""

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
    """Graph of a network, and the network to compare it with.

    Attributes:
        graph: the graph with the network's own parameters and buffers.
        network: the caller's network.
        hollow: recorded copy of the network, without values.
        recording: first recording.
        names: name of the graph's node for each call of the recording.
    """

    graph: GraphModule
    network: nn.Module
    hollow: Hollow
    recording: Recording
    names: tuple[str, ...]

    def answers_as(self, outputs: tuple[Tensor, ...], example: tuple[Tensor, ...]) -> bool:
        """Return whether graph and network agree on one sample, and on the example if needed.

        Args:
            outputs: the graph's outputs for the example, a batch size that was not recorded.
            example: inputs; the network runs on their first sample alone, yet another batch size.
                If that differs from the first of the graph's outputs, because samples depend on
                each other or lie along another axis, the graph runs on one sample as well.
        """
        # A third batch size: a number that both recordings fit by chance differs at this one.
        single = of_samples(example, lambda x: x[:1])
        expected = self.hollow.answers(single)
        if _agree(tuple(map(_first, outputs, expected)), expected):
            return True
        with torch.no_grad():
            # Interpreted: compiling the graph to Python costs more than one run.
            run = Interpreter(self.graph).run
            outputs_of_one = pytree.tree_leaves(run(*(x.clone() for x in single)))
        return _agree(outputs_of_one, expected) and _agree(outputs, self.hollow.answers(example))

    def lengths(self, example: tuple[Tensor, ...], otherwise: frozenset[str]) -> tuple[Fixed, ...]:
        """Return the input axes for which the graph holds at one length only.

        Args:
            example: inputs of the recorded shapes, except for the batch size.
            otherwise: nodes of the graph that are written otherwise, so their numbers do not
                matter.
        """
        passed = frozenset(i for i, name in enumerate(self.names) if name in otherwise)
        with undisturbed(self.network):
            return lengths_by_recording(self.hollow, self.recording, example, passed)


def _agree(returned: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Return whether all outputs are equal tensors."""
    return len(returned) == len(expected) and all(
        isinstance(b, Tensor) and a.shape == b.shape and equal(a, b)
        for a, b in zip(returned, expected, strict=True)
    )


def _first(output: Tensor, expected: Any) -> Tensor:
    along = output.dim() and isinstance(expected, Tensor) and expected.dim()
    return output[: len(expected)] if along else output


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal up to the order of summation."""
    if a.dtype != b.dtype or not a.is_floating_point():
        return torch.equal(a, b)
    # Relative to the largest value: far above the rounding of a reordered sum, far below any wrong
    # operator. Half types get ten times their epsilon.
    bound = 1e-10 if a.dtype == torch.float64 else max(1e-5, 10 * torch.finfo(a.dtype).eps)
    finite = b[b.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    return torch.allclose(a, b, rtol=0, atol=bound * scale, equal_nan=True)
