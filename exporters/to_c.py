"""Exporter of C11 without dependencies: source, header, kernels, and weights without their
zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prunec.deploy.exporter import Exact, Source
from prunec.deploy.native.lowering import lower
from prunec.deploy.native.reading import read_network
from prunec.deploy.native.source import HEADERS, digest_of, program, write_program
from prunec.deploy.written import Written
from prunec.errors import PrunecError


@dataclass(frozen=True)
class ToC(Exact):
    """Compile the network for one sample, its sizes fixed; a batch is run sample by sample.

    Kernels are chosen for each layer by how many of its weights are zero. Operators that have no
    kernel are refused before anything is written.
    """

    suffix: ClassVar[str] = ".c"
    beside: ClassVar[tuple[str, ...]] = (".h", ".bin")
    reads: ClassVar[str] = "onnx"
    is_code: ClassVar[bool] = True

    def write(self, source: Source, path: Path) -> None:
        """Write the source and the files that belong to it into the same folder.

        Raises:
            PassError: the network has an operator, a size or a type that C has no kernel for.
        """
        write_c(source.files[self.reads], source.metadata, path)

    def read_back(self, path: Path) -> Written:
        """Return the digest of all files: the form stores no names.

        Raises:
            PrunecError: a file is missing, or is cut off.
        """
        try:
            text = path.read_text("utf-8")
            blob = re.search(r"/\* weights: (\S+), (\d+) bytes \*/", text)
            names = [path.name, f"{path.stem}.h", *HEADERS]
            if blob:
                if Path(blob[1]).name != blob[1]:
                    raise PrunecError(f"{path.name} keeps weights in {blob[1]}, another folder")
                names.append(blob[1])
                size = (path.parent / blob[1]).stat().st_size
                if size != int(blob[2]):
                    raise PrunecError(
                        f"{blob[1]} has {size} bytes, but {path.name} reads {blob[2]}"
                    )
            return Written(graph_digest=digest_of(path.parent, names))
        except (OSError, UnicodeDecodeError) as error:
            raise PrunecError(f"{path} cannot be read: {error}") from error


def write_c(onnx: Path, metadata: Mapping[str, str], path: Path) -> None:
    """Compile an ONNX file; write the source and the files that belong to it.

    Raises:
        PassError: the network has an operator, a size or a type that C has no kernel for.
    """
    write_program(program(lower(read_network(onnx)), metadata), path)
