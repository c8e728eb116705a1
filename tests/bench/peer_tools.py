"""prunec and two other libraries behind one signature: a network with zeros in, a smaller one out.

Each is used as its documentation says, on a network that already holds its zeros, and nothing is
done for it that its user would not do:

- torch-pruning is told of every convolution and linear layer the filters that are wholly zero, and
  prunes where it says that the group may be pruned;
- torch-simplify is given the network and an image of zeros, with float64 as torch's default type,
  in which it makes its new tensors. Where it folds batch norms it rounds to float32 by itself.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Tool = Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]


def by_prunec(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """The compiler."""
    from prunec.graph.rewriting.compile import compile_module

    return compile_module(module, example).module


def by_torch_pruning(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """Its dependency graph, then every group whose root has zero filters."""
    import torch_pruning

    with _quiet():
        graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=example)
        for part in list(module.modules()):
            known = isinstance(part, (nn.modules.conv._ConvNd, nn.Linear))
            if not known or part not in graph.module2node:
                continue
            gone = zero_filters(part)
            if gone:
                prune = graph.get_pruner_of_module(part).prune_out_channels
                group = graph.get_pruning_group(part, prune, idxs=gone)
                if graph.check_pruning_group(group):
                    group.prune()
    return module


def zero_filters(part: nn.Module) -> list[int]:
    """Outputs of a convolution or linear layer whose weights are all zero."""
    weight = part.weight.detach()
    axis = 1 if getattr(part, "transposed", False) and part.groups == 1 else 0
    zero = (weight.movedim(axis, 0).flatten(1) == 0).all(1)
    return [int(i) for i in torch.nonzero(zero).flatten()]


def by_torch_simplify(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """Its one function: batch norms folded, constants moved on, zero filters removed."""
    from simplify import simplify

    if len(example) != 1:
        raise TypeError("torch-simplify takes networks of one input")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _quiet():
            small = simplify(module, torch.zeros_like(example[0][:1]))
    finally:
        torch.set_default_dtype(default)
    assert isinstance(small, nn.Module)
    return small.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


TOOLS: dict[str, Tool] = {
    "prunec": by_prunec,
    "torch-pruning": by_torch_pruning,
    "torch-simplify": by_torch_simplify,
}
