"""Exporter of C11 without dependencies: source, header, kernels, and weights without their
zeros.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from prunec.deploy.exporter import Exact, Source
from prunec.deploy.native.compiler import compiler
from prunec.deploy.native.lowering import lower
from prunec.deploy.native.reading import OLDEST_OPSET, read_network
from prunec.deploy.native.source import digest_of, headers_of, program, write_program
from prunec.deploy.native.tuning import tuned
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError


@dataclass(frozen=True, kw_only=True)
class ToC(Exact):
    """Compile the network for one sample, its sizes fixed; a batch is run sample by sample.

    Kernels are chosen for each layer by its shape and by how many of its weights are zero, or, with
    ``tune``, by measuring all that fit on this machine. Operators that have no kernel are refused
    before anything is written.

    Attributes:
        tune: whether kernels are measured; needs a C compiler. The choice stands in the metadata of
            ``model_describe``, as JSON under ``kernels``.
        kernels: tensor → kernel, as such a choice: the same choice writes the same bytes.
    """

    suffix: ClassVar[str] = ".c"
    beside: ClassVar[tuple[str, ...]] = (".h", ".bin")
    reads: ClassVar[str] = "onnx"
    is_code: ClassVar[bool] = True
    kinds: ClassVar[frozenset[torch.dtype]] = frozenset({torch.float32})
    takes_bytes: ClassVar[bool] = False
    oldest_opset: ClassVar[int] = OLDEST_OPSET
    tune: bool = False
    kernels: Mapping[str, str] = field(default_factory=dict)

    def write(self, source: Source, path: Path) -> None:
        """Write the source and the files that belong to it into the same folder.

        Raises:
            PassError: the network has an operator, a size or a type that C has no kernel for.
        """
        onnx = source.files[self.reads]
        write_c(onnx, source.metadata, path, tune=self.tune, kernels=self.kernels)

    def read_back(self, path: Path) -> Written:
        """Return the digest of all files: the form stores no names.

        Raises:
            PrunecError: a file is missing, or is cut off.
        """
        try:
            text = path.read_text("utf-8")
            blob = re.search(r"/\* weights: (\S+), (\d+) bytes \*/", text)
            names = [path.name, f"{path.stem}.h", *headers_of(text)]
            if blob:
                # Weights lie beside the source; a path would lead out of its folder.
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


def write_c(
    onnx: Path,
    metadata: Mapping[str, str],
    path: Path,
    *,
    tune: bool = False,
    kernels: Mapping[str, str] | None = None,
) -> None:
    """Compile an ONNX file; write the source and the files that belong to it.

    Args:
        onnx: the file.
        metadata: key → value, embedded in the source.
        path: the source.
        tune: whether the kernels of layers are measured here; the choice becomes metadata.
        kernels: tensor → the kernel that shall compute it; others are chosen.

    Raises:
        PassError: the network has an operator, a size or a type that C has no kernel for, or a
            kernel does not fit its tensor.
        PrunecError: there is no compiler to measure with.
    """
    network = read_network(onnx)
    chosen = dict(kernels or {})
    if tune:
        # Without a compiler nothing can be measured: refuse before the work.
        compiler()
        # What was asked for wins over what was measured.
        chosen = tuned(network) | chosen
    made = lower(network, chosen)
    _require_used(made.choices, chosen)
    said = {"kernels": json.dumps(chosen)} if chosen else {}
    write_program(program(made, {**metadata, **said}), path)


def _require_used(choices: Mapping[str, tuple[str, ...]], chosen: Mapping[str, str]) -> None:
    """Require that every chosen kernel computes its tensor.

    Raises:
        PassError: a tensor is computed by no kernel of choice, or by others only.
    """
    for name, kernel in chosen.items():
        if name not in choices:
            raise PassError(
                f"kernels names {name!r}, which no convolution or linear layer computes",
                remedy=f"They compute {', '.join(choices)}.",
            )
        if choices[name][0] != kernel:
            raise PassError(
                f"kernel {kernel!r} does not compute {name!r}",
                remedy=f"There are {', '.join(choices[name])}.",
            )
