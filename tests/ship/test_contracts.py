"""Contracts of exporters and runners; those of docs/extending.md run as printed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import onnx
import pytest
import torch
from onnx import numpy_helper
from ship_nets import METADATA, TINY_COST, FakeData, Shipped
from torch import Tensor

import prunec
from prunec.artifact import Artifact
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Exact, Exporter, Lossy, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runner import Identity, LoadedFile, Runner
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import NeedsNotMet, NotExact, PrunecError
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"
_, EXPORTER, RUNNER, _ = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
BATCHES = [(torch.zeros(2, 3, 16, 16),)]


def written(name: str, text: str) -> Any:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


ToHalf: type[Any] = written("to_half", EXPORTER).ToHalf
Reference: type[Runner] = written("reference", RUNNER).Reference


def source_of(shipped: Shipped) -> Source:
    artifact = Artifact(shipped.module, shipped.example)
    return Source(artifact, METADATA, {"onnx": shipped.path})


def gate(path: Path, shipped: Shipped, exporter: Exporter, runner: Runner | None = None) -> Report:
    return verify_file(
        path,
        shipped.module,
        shipped.example,
        exporter=exporter,
        runner=runner or Onnxruntime(),
        spec=VerifySpec(),
        torch_cost=TINY_COST,
        data=FakeData(),  # type: ignore[arg-type]
    )


def test_a_lossy_form_is_judged_by_its_answers(shipped: Shipped, tmp_path: Path) -> None:
    writer, path = ToHalf(), tmp_path / "half.onnx"
    exported = writer(source_of(shipped), path, BATCHES)
    assert (exported.form, exported.path) == ("half", path)
    assert exported.bytes == path.stat().st_size
    report = gate(path, shipped, writer)
    assert report.passed, report.failures
    names = {check.name for check in report.checks}
    assert {"MACs", "outputs, random", "top-1 agreement", "accuracy, percent"} <= names
    assert "weights equal" not in names
    assert not gate(path, shipped, ToOnnx()).passed  # it is no exact form


@dataclass(frozen=True, kw_only=True)
class ToNoise(ToHalf):  # type: ignore[misc]
    """A form that loses its answers."""

    def write(self, source: Source, path: Path, batches: Iterable[tuple[Tensor, ...]]) -> None:
        model = onnx.load(source.files["onnx"])
        bias = next(t for t in model.graph.initializer if t.name == "9.bias")
        values = numpy_helper.to_array(bias).copy()
        values[0] += 100
        bias.raw_data = values.tobytes()
        onnx.save(model, path)


@pytest.mark.parametrize(
    ("bounds", "failing"),
    [
        ({}, {"top-1 agreement"}),
        ({"agreement": 0.0}, set()),
        ({"agreement": 0.0, "accuracy_drop": 0.0}, set()),
    ],
)
def test_a_lossy_form_fails_the_bounds_of_its_recipe(
    shipped: Shipped, tmp_path: Path, bounds: dict[str, float], failing: set[str]
) -> None:
    writer = ToNoise(**bounds)
    path = writer(source_of(shipped), tmp_path / "noise.onnx", BATCHES).path
    failed = {check.name for check in gate(path, shipped, writer).failures}
    assert failing <= failed
    assert failed <= {"top-1 agreement", "accuracy, percent"}
    lenient = ToNoise(agreement=0.0, accuracy_drop=100.0)
    assert gate(path, shipped, lenient).passed


def test_a_lossy_form_needs_batches_and_the_file_that_it_reads(
    shipped: Shipped, tmp_path: Path
) -> None:
    with pytest.raises(NeedsNotMet, match="must be given batches"):
        ToHalf()(source_of(shipped), tmp_path / "half.onnx")
    alone = Source(Artifact(shipped.module, shipped.example))
    with pytest.raises(NeedsNotMet, match="reads the onnx file"):
        ToHalf()(alone, tmp_path / "half.onnx", BATCHES)
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class ToSpoiled(Exact):
    """Writes something else than the network, in the way that its option says."""

    suffix: ClassVar[str] = ".onnx"
    way: str = ""

    def write(self, source: Source, path: Path) -> None:
        if self.way == "nothing":
            return
        ToOnnx().write(source, path)
        model = onnx.load(path)
        tensor = next(t for t in model.graph.initializer if t.name == "9.bias")
        if self.way == "a weight":
            tensor.raw_data = bytes(len(tensor.raw_data))
        elif self.way == "an input":
            model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 17
        elif self.way == "the graph":
            next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Sigmoid"
        data = model.SerializeToString()
        path.write_bytes(data[:500] if self.way == "half of it" else data)

    read_back = ToOnnx.read_back


@pytest.mark.parametrize("way", ["nothing", "half of it", "a weight", "an input", "the graph"])
def test_what_was_written_is_read_back(shipped: Shipped, tmp_path: Path, way: str) -> None:
    path = tmp_path / "spoiled.onnx"
    path.write_text("as it was")
    with pytest.raises(NotExact, match="to-spoiled wrote"):
        ToSpoiled(way)(source_of(shipped), path)
    assert [p.name for p in tmp_path.iterdir()] == ["spoiled.onnx"]
    assert path.read_text() == "as it was"


@dataclass(frozen=True)
class ToTwins(ToOnnx):
    """A form of two files."""

    def write(self, source: Source, path: Path) -> None:
        super().write(source, path)
        path.with_suffix(".bin").write_text("beside it")


def test_files_of_one_form_take_their_place_together(shipped: Shipped, tmp_path: Path) -> None:
    ToTwins()(source_of(shipped), tmp_path / "model.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.onnx"]


@dataclass(frozen=True)
class ToGated(ToOnnx):
    needs: ClassVar[frozenset[str]] = frozenset({"folded"})


def test_facts_are_asked_for(shipped: Shipped, tmp_path: Path) -> None:
    with pytest.raises(NeedsNotMet, match="to-gated needs a network that is folded"):
        ToGated()(source_of(shipped), tmp_path / "model.onnx")


@pytest.mark.slow
def test_another_runner_proves_the_same_file(shipped: Shipped) -> None:
    report = gate(shipped.path, shipped, ToOnnx(), Reference())
    assert report.passed, report.failures
    assert report.details.runner == Identity("onnx reference", onnx.__version__, "numpy")
    loaded = Reference().open(shipped.path)
    assert loaded.time(loaded, rounds=1).ratio > 0


class Exhausted(LoadedFile):
    """A device that ends before the last batch."""

    input_shapes: ClassVar[Any] = []

    def run(self, batches: Any) -> Any:
        return iter(())


@dataclass(frozen=True)
class Ending(Onnxruntime):
    def open(self, path: Path) -> LoadedFile:
        return Exhausted()


def test_a_runner_that_ends_early_proves_nothing(shipped: Shipped) -> None:
    report = gate(shipped.path, shipped, ToOnnx(), Ending())
    failed = {check.name: check.message for check in report.failures}
    assert "ended before the last batch" in failed["outputs, random"]
    assert "ended before the last batch" in failed["outputs, test split"]


def test_python_takes_a_runner(shipped: Shipped) -> None:
    report = prunec.verify(
        shipped.module,
        shipped.path,
        example_inputs=shipped.example,
        random_batches=1,
        runner=Reference(),
    )
    assert report.passed, report.failures
    with pytest.raises(PrunecError, match="there is no runner 'abacus'"):
        prunec.verify(shipped.module, "x", example_inputs=shipped.example, runner="abacus")


def test_a_lossy_form_says_its_kind() -> None:
    assert issubclass(ToHalf, Lossy)
    assert not issubclass(ToHalf, Exact)
