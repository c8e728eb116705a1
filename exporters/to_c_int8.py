"""Exporter of C11 whose layers compute with integers of eight bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.native.integer_convolutions import lower_integers
from prunec.deploy.native.quantised import read_quantised
from prunec.deploy.native.source import program, write_program
from prunec.deploy.written import Written
from prunec.exporters.to_c import ToC


@dataclass(frozen=True, kw_only=True)
class ToCInt8(Lossy):
    """Compile the file of ``to-int8``: its ranges, its integers, and its layers in float.

    Convolutions and linear layers read bytes, sum products in 32 bits, and round each sum once,
    with the residual sum and the activation behind them. Max pooling, means of planes,
    concatenations and sums take bytes too. Operators that have no integer kernel compute in
    float32.
    """

    suffix: ClassVar[str] = ToC.suffix
    beside: ClassVar[tuple[str, ...]] = ToC.beside
    reads: ClassVar[str] = "int8"
    is_code: ClassVar[bool] = True
    takes_bytes: ClassVar[bool] = ToC.takes_bytes
    oldest_opset: ClassVar[int] = ToC.oldest_opset

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the source and its files; report how many layers compute with integers.

        Raises:
            PassError: the network has an operator, a size or a type that C has no kernel for.
        """
        quantised = read_quantised(source.files[self.reads])
        made = lower_integers(quantised)
        write_program(program(made, source.metadata), path)
        layers = [step.struct for step in made.steps if step.work is not None]
        return {"integer layers": layers.count("pn_fours"), "layers": len(layers)}

    def read_back(self, path: Path) -> Written:
        """Return the digest of all files.

        Raises:
            PrunecError: a file is missing, or is cut off.
        """
        read: Written = ToC().read_back(path)
        return read
