"""Lowering to XNNPACK, and reading back, of ExecuTorch programs of any precision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from prunec.deploy.runners.executorch import loaded_program
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.wording import first_line


@contextmanager
def expressing() -> Iterator[None]:
    """Turn any exception of torch and ExecuTorch into a PassError, and silence their warnings.

    Raises:
        PassError: the network cannot be expressed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise PassError(
            f"ExecuTorch cannot express the network: {first_line(error)}",
            remedy="Replace the operator in the network, or ship another form.",
        ) from error


def write_program(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Write a module for one sample, as much of it as possible lowered to XNNPACK."""
    program = torch.export.export(module, example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def read_program(path: Path) -> Written:
    """Return a digest of a program that loads; programs store no names.

    Raises:
        PrunecError: it does not load.
    """
    try:
        loaded_program(path)
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
    return Written(graph_digest=file_digest(path.read_bytes()))
