"""Exporter of an ExecuTorch program with integer kernels, for XNNPACK, for one sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.losses import losses
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._executorch_graph import executorch_flow, executorch_operators
from prunec.exporters._executorch_int8 import float_layers, quantised, stored_weights
from prunec.exporters._executorch_program import expressing, read_program, write_program
from prunec.exporters._one_sample import one_sample, require_eval


@dataclass(frozen=True, kw_only=True)
class ToExecutorchInt8(Lossy):
    """Lower the network to XNNPACK's integer kernels, with ranges from real images.

    Weights have eight bits and one scale per filter, activations one scale per tensor. XNNPACK adds
    products in 32 bits on every processor. No layer is left in float to meet the bounds.
    """

    suffix: ClassVar[str] = ".pte"
    reads: ClassVar[str] = "onnx"
    needs: ClassVar[frozenset[str]] = frozenset({"compact", "folded"})

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the program; report the changes of its weights.

        Raises:
            PassError: the network is in training mode, or ExecuTorch or XNNPACK cannot express it.
        """
        require_eval(source.module, "XNNPACK's")
        example = one_sample(source.example)
        with expressing():
            made = quantised(source.module, example, _samples(batches, example))
            write_program(made, example, path)
        try:
            read_program(path)
        except PrunecError as error:
            raise PassError(
                "XNNPACK does not load the integers: the scales of a layer's input, kernel and "
                "output lie too far apart",
                remedy="Ship another form, or clip the values of the network.",
            ) from error
        stored = stored_weights(made)
        left = float_layers(made)
        remarks = [f"{left} layers are float: XNNPACK's quantiser knows no integers for them"]
        return {
            "losses": [asdict(loss) for loss in losses(stored, source.module)],
            "remarks": remarks if left else [],
        }

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form stores no names."""
        written: Written = read_program(path)
        return written

    def flow(self, path: Path) -> Flow | None:
        """Return the activations of a file; None if it computes outside of XNNPACK."""
        flow: Flow | None = executorch_flow(path)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (place, operator) of every node of XNNPACK and every kernel outside of it."""
        operators: list[tuple[str, str]] = executorch_operators(path)
        return operators


def _samples(
    batches: Iterable[tuple[Tensor, ...]], example: tuple[Tensor, ...]
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the inputs of one sample each; an input as long as the example's belongs to all."""
    for batch in batches:
        count = max(len(x) for x in batch)
        for i in range(count):
            yield tuple(x[i : i + 1].cpu() if len(x) == count else x.cpu() for x in batch)
