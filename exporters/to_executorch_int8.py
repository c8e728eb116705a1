"""Exporter of an ExecuTorch program with integer kernels, for XNNPACK, for one sample."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.losses import losses
from prunec.deploy.runners.executorch import Executorch
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._executorch_graph import executorch_flow, executorch_operators
from prunec.exporters._executorch_int8 import Network, layers_of_graph, stored_weights
from prunec.exporters._executorch_program import expressing, read_program, write_program
from prunec.exporters._int8_calibration import arrays_of
from prunec.exporters._int8_search import (
    PERCENTILES,
    Attempts,
    Errors,
    Percentiles,
    Ranges,
    layers_told,
    within_bounds,
)
from prunec.exporters._one_sample import one_sample, require_eval

_BITS = 8  # of a weight


@dataclass(frozen=True, kw_only=True)
class ToExecutorchInt8(Lossy):
    """Lower the network to XNNPACK's integer kernels, with ranges from real images.

    Weights have eight bits and one scale per filter, activations one scale per tensor. XNNPACK adds
    products in 32 bits on every processor. Ranges and layers in float are found as for `to-int8`.
    """

    suffix: ClassVar[str] = ".pte"
    reads: ClassVar[str] = "onnx"
    needs: ClassVar[frozenset[str]] = frozenset({"compact", "folded"})

    percentiles: Percentiles = PERCENTILES

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the program; report its layers in float, and the changes of its weights.

        Raises:
            PassError: the network is in training mode, ExecuTorch or XNNPACK cannot express it, or
                no layers in float make its answers near enough.
        """
        require_eval(source.module, "XNNPACK's")
        example, given = one_sample(source.example), arrays_of(batches)
        with expressing():
            network = Network(source.module, example)
        model = onnx.load(source.files[self.reads])

        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "model.pte"

            def quantised(ranges: Ranges, left: Errors) -> Any:
                with expressing():
                    made = network.quantised(ranges, {attempts.layers[node] for node in left})
                    write_program(made, example, program)
                _require_loading(program)
                return made

            def outputs(_: Any) -> Iterator[np.ndarray]:
                return (y[0] for y in Executorch().open(program).run(given))

            attempts = Attempts(model, given, source.labels, _BITS, network, quantised, outputs)
            chosen = within_bounds(self, attempts, self.percentiles)
            path.write_bytes(program.read_bytes())
        stored = losses(stored_weights(chosen.made), source.module)
        return {
            **layers_told(chosen, *layers_of_graph(chosen.made), "XNNPACK's quantiser"),
            "losses": [asdict(loss) for loss in stored],
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


def _require_loading(program: Path) -> None:
    try:
        read_program(program)
    except PrunecError as error:
        raise PassError(
            "XNNPACK does not load the integers: the scales of a layer's input, kernel and "
            "output lie too far apart",
            remedy="Ship another form, or clip the values of the network.",
        ) from error
