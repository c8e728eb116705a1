"""Exporter of ncnn's graph (``.param``) and weights (``.bin``), for one sample, in float32."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ncnn
import pnnx
import torch

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.runners.ncnn import Ncnn
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._ncnn_batch import POOLINGS, BatchFirst, without_marks
from prunec.exporters._ncnn_graph import ncnn_flow, ncnn_operators, with_sizes
from prunec.exporters._ncnn_traced import require_expressible
from prunec.exporters._one_sample import one_sample, require_eval, require_numbers
from prunec.wording import first_line

_KINDS = {torch.float32: "f32", torch.int64: "i64", torch.int32: "i32"}


@dataclass(frozen=True)
class ToNcnn(Exact):
    """Convert the network by pnnx, without half precision, which zeroes weights below 6.1e-5.

    ncnn has no batch axis: a sample is [C, H, W]. Its sizes are written into the file.
    """

    suffix: ClassVar[str] = ".param"
    beside: ClassVar[tuple[str, ...]] = (".bin",)
    reads: ClassVar[str] = "onnx"
    kinds: ClassVar[frozenset[torch.dtype]] = frozenset({torch.float32})
    takes_bytes: ClassVar[bool] = False

    def write(self, source: Source, path: Path) -> None:
        """Write the graph, and the weights as ``.bin`` beside it.

        Raises:
            PassError: the network is in training mode, or ncnn cannot express it.
        """
        require_eval(source.module, "ncnn's")
        require_numbers(source.example, "ncnn's")
        with tempfile.TemporaryDirectory() as folder:
            try:
                _convert(source, Path(folder))
                made = Path(folder) / "model.ncnn.param"
                text = without_marks(made.read_text("utf-8"))
                _require_layers(text)
                shapes = [x.shape for x in one_sample(source.example)]
                path.write_text(with_sizes(text, shapes), "utf-8")
                path.with_suffix(".bin").write_bytes(made.with_suffix(".bin").read_bytes())
            except Exception as error:
                raise PassError(
                    f"pnnx cannot express the network for ncnn: {first_line(error)}",
                    remedy="Replace the operator in the network, or ship another form.",
                ) from error

    def read_back(self, path: Path) -> Written:
        """Return a digest of graph and weights: the form stores no names."""
        weights, net = path.with_suffix(".bin"), ncnn.Net()
        try:
            wrong = net.load_param(str(path)) or net.load_model(str(weights))
            data = path.read_bytes() + weights.read_bytes()
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        if wrong:
            raise PrunecError(f"ncnn cannot load {path} and {weights.name}")
        return Written(graph_digest=file_digest(data))

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        flow: Flow = ncnn_flow(path, Ncnn().open(path).input_shapes)
        return flow

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name, operator) of every layer."""
        operators: list[tuple[str, str]] = ncnn_operators(path)
        return operators


def _require_layers(text: str) -> None:
    """Refuse a graph with operators that pnnx left as they were: ``torch.index_select``."""
    rows = [line.split() for line in text.splitlines()[2:] if line.strip()]
    foreign = sorted({row[0] for row in rows if not row[0].isidentifier()})
    if foreign:
        raise RuntimeError(f"ncnn has no layer for {', '.join(foreign)}")
    # pnnx knows no average with a divisor of its own, and writes it without a window.
    if any(row[0] in POOLINGS and len(row) == 4 + int(row[2]) + int(row[3]) for row in rows):
        raise RuntimeError("ncnn has no pooling with divisor_override")


def _convert(source: Source, folder: Path) -> None:
    """Run pnnx on the traced network; its files stay in the folder."""
    example = one_sample(source.example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        marked = BatchFirst(source.module, example).eval()
        traced = torch.jit.trace(marked, example, check_trace=False)  # type: ignore[no-untyped-call]
        require_expressible(traced.inlined_graph)
        traced.save(str(folder / "model.pt"))
    shapes = ",".join(f"{list(x.shape)}{_KINDS[x.dtype]}".replace(" ", "") for x in example)
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape={shapes}", "fp16=0"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode < 0:
        raise RuntimeError(f"pnnx crashed (signal {-ended.returncode})")
    if ended.returncode:
        raise RuntimeError((ended.stderr or ended.stdout).strip().rpartition("\n")[2])
