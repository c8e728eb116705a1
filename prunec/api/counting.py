"""Counting of a network's MACs and parameters over its captured graph."""

from __future__ import annotations

from torch import nn

from prunec.api.guarded import Example, leaving_all_as_it_was
from prunec.cost import Cost
from prunec.cost import torch_graph as costs
from prunec.models.gates import absorbed
from prunec.models.inputs import checked_example, checked_module


@leaving_all_as_it_was
def count(model: nn.Module, example_inputs: Example) -> Cost:
    """Count MACs and parameters of one sample over the captured torch graph.

    Args:
        model: the network; it is not changed. Gates count as part of their kernels.
        example_inputs: as for :func:`compile`.

    Returns:
        The cost: ``macs``, ``nonzero_macs``, ``params``, ``nonzero_params``, in total and for each
        of ``layers``.

    Raises:
        UntraceableModel: ``torch.export`` cannot capture the network.
        PrunecError: an argument is wrong.
    """
    module = absorbed(checked_module(model))
    return costs.count(module, checked_example(module, example_inputs))
