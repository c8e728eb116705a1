"""Whether a graph answers as the network that it was recorded from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunec.graph.capture.recording import Hollow


@dataclass(frozen=True)
class Traced:
    """A network's graph, and the network itself to compare it with.

    Attributes:
        graph: the graph with the network's own parameters and buffers.
        network: the caller's network.
        hollow: the copy that was recorded.
    """

    graph: GraphModule
    network: nn.Module
    hollow: Hollow

    def answers_as(self, outputs: tuple[Tensor, ...], example: tuple[Tensor, ...]) -> bool:
        """Whether the network answers the same.

        Args:
            outputs: of the graph for the example, a batch that was not recorded.
            example: of which the network is given the first sample alone, yet another batch,
                unless one of its outputs holds samples elsewhere than along the first axis.
        """
        for given in (tuple(x[:1] for x in example), example):
            expected = self.hollow.answers(self.network, given)
            if len(expected) != len(outputs):
                return False
            pairs = list(zip(map(_first, outputs, expected), expected, strict=True))
            if all(a.shape == b.shape for a, b in pairs):
                return all(_equal(a, b) for a, b in pairs)
        return False


def _first(output: Tensor, expected: Tensor) -> Tensor:
    return output[: len(expected)] if output.dim() and expected.dim() else output


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same but for the order of sums."""
    if a.dtype != b.dtype or not a.is_floating_point():
        return torch.equal(a, b)
    bound = 1e-10 if a.dtype == torch.float64 else max(1e-5, 10 * torch.finfo(a.dtype).eps)
    finite = b[b.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    return torch.allclose(a, b, rtol=0, atol=bound * scale, equal_nan=True)
