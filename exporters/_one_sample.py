"""Inputs and requirements of forms with a fixed batch of one sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.graph.capture.samples import holds_samples


def one_sample(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the first sample of each input; inputs that hold no samples are copied whole."""
    return tuple(x[:1].clone() if holds_samples(x, example) else x.clone() for x in example)


def require_numbers(example: tuple[Tensor, ...], form: str) -> None:
    """Refuse byte images for a form whose arrays cannot hold bytes.

    Raises:
        PassError: an input holds bytes.
    """
    if any(x.dtype == torch.uint8 for x in example):
        raise PassError(
            f"{form} arrays cannot hold bytes",
            remedy="Leave --with-preprocessing out for this form.",
        )


def require_eval(module: nn.Module, form: str) -> None:
    """Refuse a network in training mode, or in float64, which the form's kernels do not support.

    Raises:
        PassError: the network is in training mode or in float64.
    """
    if any(part.training for part in module.modules()):
        raise PassError("the network is in training mode", remedy="Call module.eval() first.")
    wide = next((n for n, p in module.named_parameters() if p.dtype == torch.float64), "")
    if wide:
        raise PassError(
            f"{form} kernels compute in float32, and {wide} is float64",
            remedy="Call module.float() first.",
        )
