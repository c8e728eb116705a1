"""Training on several processes: averaged gradients, batch norms over the whole batch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_flatten

from prunec.processes import Processes
from prunec.training.context import Context


def parallel(
    model: nn.Module, device: torch.device, processes: Processes, *, unused: bool = False
) -> nn.Module:
    """Return ``model`` wrapped such that backward averages the gradients of all processes.

    Args:
        model: network on ``device``; every rank gets the weights of rank 0.
        device: device of this rank.
        processes: the processes.
        unused: whether some parameters do not affect the loss.
    """
    if not processes.several:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=unused,
        # Not needed: batch norms are synchronised, or made equal before they are used.
        **{_SYNC_BUFFERS: False},  # type: ignore[arg-type]
    )


_NAMES = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


def unused_parameters(model: nn.Module, context: Context) -> bool:
    """Return whether some parameters do not affect the outputs, by a backward pass on two images.

    Processes wait for the gradients of all parameters unless told that some are missing.
    """
    if not context.processes.several:
        return False
    images = next(iter(context.data.test_batches(2)))[0].to(context.device)
    own = copy.deepcopy(model).eval()
    answers = tree_flatten(own(images))[0]
    torch.autograd.backward(sum(answer.float().sum() for answer in answers))
    return any(p.requires_grad and p.grad is None for p in own.parameters())


@contextmanager
def synchronised(model: nn.Module, device: torch.device, processes: Processes) -> Iterator[None]:
    """Make batch norms use statistics of all processes inside the block.

    The modules are replaced by others with the same parameters and buffers, and restored
    afterwards.
    """
    own = [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm)]
    if not processes.several or not own:
        yield
        return
    for name, norm in own:
        _put(model, name, _shared(norm, device))
    try:
        yield
    finally:
        for name, norm in own:
            norm.train(model.training)
            _put(model, name, norm)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _shared(norm: _BatchNorm, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return synced
    return _OnCpu(norm)


class _OnCpu(_BatchNorm):
    """Batch norm over all processes by gloo; torch's own SyncBatchNorm needs an accelerator.

    μ = Σx/n and σ² = Σ(x − μ)²/n, each sum over the values of a channel on every rank; all ranks
    have equally large parts of the batch. Gradients flow through both sums.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        tracked = norm.track_running_stats
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, tracked)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, …]."""
        shape = [1, -1, *[1] * (x.ndim - 2)]
        if self.training or self.running_mean is None or self.running_var is None:
            mean, variance = self._statistics(x, shape)
        else:
            mean, variance = self.running_mean, self.running_var
        result = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(x.dtype)

    def _statistics(self, x: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = dist.get_world_size() * x.numel() // x.shape[1]
        mean = _summed(wide.sum(axes)) / count
        variance = _summed((wide - mean.view(shape)).square().sum(axes)) / count
        # Running statistics use the unbiased variance, as torch's batch norm does.
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        return mean, variance

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _summed(values: Tensor) -> Tensor:
    """Return the sum over all processes; gradients flow through it."""
    total: Tensor = _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    """y = Σ x over processes; since every rank's loss depends on every rank's x, ∂/∂x = Σ ∂/∂y."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
