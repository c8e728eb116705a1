"""Exporter of C11 whose weights are halves: three bytes a nonzero weight, or four."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.written import Written
from prunec.exporters.to_c import ToC, write_c
from prunec.exporters.to_fp16 import ToFp16


@dataclass(frozen=True, kw_only=True)
class ToCFp16(Lossy):
    """Round kernels to half precision as ``to-fp16`` does, and compile them as ``to-c`` does.

    Arithmetic stays float32: the processor widens the weights as it reads them. Kernels that half
    precision does not suffice for, and layers too dense for the sparse kernels, stay float32.
    """

    suffix: ClassVar[str] = ToC.suffix
    beside: ClassVar[tuple[str, ...]] = ToC.beside
    reads: ClassVar[str] = ToC.reads
    is_code: ClassVar[bool] = True
    takes_bytes: ClassVar[bool] = ToC.takes_bytes
    oldest_opset: ClassVar[int] = ToC.oldest_opset

    def write(
        self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]
    ) -> Mapping[str, object]:
        """Write the source and its files; report the kernels that stay float32.

        Raises:
            PassError: the network has an operator, a size or a type that C has no kernel for.
        """
        with tempfile.TemporaryDirectory() as folder:
            rounded = Path(folder) / "model.onnx"
            reported: Mapping[str, object] = ToFp16().write(source, rounded, batches)
            write_c(rounded, source.metadata, path)
        return reported

    def read_back(self, path: Path) -> Written:
        """Return the digest of all files.

        Raises:
            PrunecError: a file is missing, or is cut off.
        """
        read: Written = ToC().read_back(path)
        return read
