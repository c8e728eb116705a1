"""Exporter of LiteRT's flatbuffer with integer kernels, for one sample."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from torch import Tensor

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.losses import losses
from prunec.deploy.runners.litert import Litert
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
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
from prunec.exporters._litert_file import (
    convert,
    expressing,
    litert_flow,
    litert_operators,
    read_file,
    read_model,
)
from prunec.exporters._litert_int8 import Network, Quantised
from prunec.exporters._one_sample import one_sample, require_eval

_BITS = 8  # of a weight


@dataclass(frozen=True, kw_only=True)
class ToLitertInt8(Lossy):
    """Quantise the file of ``to-litert`` with LiteRT's own quantiser, with ranges from real images.

    Weights have eight bits and one scale per filter, activations one scale per tensor. Inputs and
    outputs stay float. Ranges and layers in float are found as for `to-int8`.
    """

    suffix: ClassVar[str] = ".tflite"
    reads: ClassVar[str] = "onnx"
    needs: ClassVar[frozenset[str]] = frozenset({"compact", "folded"})

    percentiles: Percentiles = PERCENTILES

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the file; report its layers in float, and the changes of its weights.

        Raises:
            PassError: the network is in training mode, LiteRT cannot express it, or no layers in
                float make its answers near enough.
        """
        require_eval(source.module, "LiteRT's")
        given, model = arrays_of(batches), onnx.load(source.files[self.reads])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.tflite"
            with expressing():
                convert(source.module, one_sample(source.example), file)
                network = Network(read_model(file), source.module)

            def quantised(ranges: Ranges, left: Errors) -> Quantised:
                with expressing():
                    made = network.quantised(ranges, {attempts.layers[node] for node in left})
                file.write_bytes(made.content)
                _require_loading(file)
                return made

            def outputs(_: Quantised) -> Iterator[np.ndarray]:
                return (y[0] for y in Litert().open(file).run(given))

            attempts = Attempts(model, given, source.labels, _BITS, network, quantised, outputs)
            chosen = within_bounds(self, attempts, self.percentiles)
        made = chosen.made
        path.write_bytes(made.content)
        return {
            **layers_told(chosen, made.integer, made.floats, "LiteRT's quantiser"),
            "losses": [asdict(loss) for loss in losses(made.stored, source.module)],
        }

    def read_back(self, path: Path) -> Written:
        """Return a digest: the form has names of its own."""
        written: Written = read_file(path)
        return written

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        flow: Flow = litert_flow(path)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name of its first output, operator) of every node."""
        operators: list[tuple[str, str]] = litert_operators(path)
        return operators


def _require_loading(file: Path) -> None:
    try:
        read_file(file)
    except PrunecError as error:
        raise PassError(
            "LiteRT does not load the integers: the scales of a layer's input, kernel and output "
            "lie too far apart",
            remedy="Ship another form, or clip the values of the network.",
        ) from error
