"""Judges one mutant of an ONNX file: does it compute something else, is it caught, is it named?

Whether it computes something else is told by onnxruntime on inputs of its own, without prunec.
"""

from __future__ import annotations

import resource
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from mutant_table import Outcome
from numpy.random import default_rng
from onnx_mutations import FAMILIES, damaged_bytes
from onnx_net import branches
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.cost import Cost
from prunec.cost.onnx_graph import count_onnx
from prunec.cost.torch_graph import count
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.signature import GRAPH_DIGEST, MACS, graph_digest
from prunec.deploy.written import WrittenGraph
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec

_ROUNDING = 1e-4  # of the outputs' scale: what is below is not called another function
_MEMORY = 2**32
_SCALES = (1.0, 30.0)


@dataclass
class Bench:
    """The healthy file, its network, and what it computes."""

    folder: Path
    module: nn.Module = field(default_factory=branches)

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self.example: tuple[Tensor, ...] = (torch.randn(2, 3, 12, 12),)
        self.cost: Cost = count(self.module, self.example)
        self.path = self.folder / "model.onnx"
        source = Source(Artifact(self.module, self.example), {MACS: str(self.cost.macs)})
        ToOnnx()(source, self.path)
        self.data = self.path.read_bytes()
        self.model = onnx.load_from_string(self.data)
        fresh = ToOnnx().graph_again(source, ToOnnx().read_back(self.path))
        assert fresh is not None
        self.graph: WrittenGraph = fresh
        (self.folder / "weights.bin").write_bytes(bytes(4096))
        shape = (2, 3, 12, 12)
        noise = default_rng(9)
        self.probes = [noise.normal(size=shape).astype(np.float32) * scale for scale in _SCALES]
        self.healthy = self.computes(self.path)

    def computes(self, path: Path) -> list[np.ndarray] | None:
        """The outputs on the probes; None where it does not run."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(str(path), options)
            name = session.get_inputs()[0].name
            return [np.asarray(session.run(None, {name: probe})[0]) for probe in self.probes]
        except Exception:
            return None

    def harmful(self, path: Path) -> bool:
        """Return whether a file computes other outputs, or none."""
        actual = self.computes(path)
        assert self.healthy is not None
        return actual is None or any(map(_differs, self.healthy, actual))

    def mutants(self, count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
        """Family, name and bytes of so many mutants, every other one with digests forged."""
        generator = default_rng(seed)
        kinds = [(family, name) for family, ways in FAMILIES.items() for name in ways]
        kinds += [("bytes", "bytes")] * (len(kinds) // 4)
        for index in range(count):
            family, name = kinds[index % len(kinds)]
            forged = (index // len(kinds)) % 2 == 1
            if family == "bytes":
                yield family, f"{index}", damaged_bytes(self.data, generator)
                continue
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            FAMILIES[family][name](model, generator)
            if forged:
                _forge(model)
            title = f"{family}, digests forged" if forged else family
            yield title, f"{name} {index}", model.SerializeToString()

    def judge(self, family: str, name: str, data: bytes) -> Outcome:
        """Verify one mutant, within 4 GiB more than is held: a pad of 10⁷ is an error, no swap."""
        with _bounded_memory():
            return self._judged(family, name, data)

    def _judged(self, family: str, name: str, data: bytes) -> Outcome:
        path = self.folder / "mutant.onnx"
        path.write_bytes(data)
        harmful, crashed, said, caught = self.harmful(path), "", "", True
        try:
            report = verify_file(
                path,
                self.module,
                self.example,
                exporter=ToOnnx(),
                runner=Onnxruntime(),
                spec=VerifySpec(),
                torch_cost=self.cost,
                again=lambda _: self.graph,
            )
            report.to_json()
            caught = not report.passed
            said = " ".join(check.message for check in report.failures)
        except Exception as error:
            crashed = "".join(traceback.format_exception(error))
        culprits = _culprits(self.model, data)
        named = any(culprit in said for culprit in culprits) if culprits else None
        return Outcome(family, name, harmful, caught, crashed, named)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _forge(model: onnx.ModelProto) -> None:
    """Write digest and MACs of the graph as it is now, as whoever edited it would."""
    said = {entry.key: entry for entry in model.metadata_props}
    try:
        forged = {GRAPH_DIGEST: graph_digest(model), MACS: str(count_onnx(model).macs)}
    except Exception:
        return
    for key, value in forged.items():
        if key in said:
            said[key].value = value


def _differs(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return True
    return bool(np.abs(ours - theirs).max() > _ROUNDING * np.abs(ours).max())


def _culprits(healthy: onnx.ModelProto, data: bytes) -> set[str]:
    """Names of the tensors and nodes that are not as they were; of a constant, of its readers."""
    try:
        actual = onnx.load_from_string(data)
    except Exception:
        return set()
    tensors = {t.name: t.SerializeToString() for t in actual.graph.initializer}
    changed = {
        t.name for t in healthy.graph.initializer if tensors.get(t.name) != t.SerializeToString()
    }
    readers = {n.name for n in healthy.graph.node if changed & {*n.input}}
    theirs = [node.SerializeToString() for node in actual.graph.node]
    ours = [(node.name, node.SerializeToString()) for node in healthy.graph.node]
    edited = [name for (name, text), other in zip(ours, theirs, strict=False) if text != other]
    missing = [name for name, _ in ours[len(theirs) :]]
    return changed | readers | {*(edited or missing)[:1], *edited}
