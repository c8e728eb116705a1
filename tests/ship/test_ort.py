"""onnxruntime's own format: proven as it was written, of no processor's own layout."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from ship_nets import METADATA, TINY_COST, FakeData, Shipped

from prunec.artifact import Artifact
from prunec.cost.lifetimes import peak
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.onnx_file import onnx_activations
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.timing import Latency
from prunec.errors import PrunecError
from prunec.exporters.to_ort import ToOrt
from prunec.recipe import VerifySpec
from prunec.recipe.schema import Budget


@pytest.fixture
def path(shipped: Shipped, tmp_path: Path) -> Path:
    artifact = Artifact(shipped.module, shipped.example)
    source = Source(artifact, METADATA, {"onnx": shipped.path})
    return ToOrt()(source, tmp_path / "model.ort").path


def test_it_is_proven_as_it_was_written(shipped: Shipped, path: Path) -> None:
    report = verify_file(
        path,
        shipped.module,
        shipped.example,
        exporter=ToOrt(),
        runner=Onnxruntime(),
        spec=VerifySpec(),
        torch_cost=TINY_COST,
        data=FakeData(),  # type: ignore[arg-type]
    )
    assert report.passed, report.failures
    assert {"inputs", "outputs", "outputs, test split"} <= {c.name for c in report.checks}


def test_no_kernel_is_laid_out_for_this_processor(path: Path) -> None:
    data = path.read_bytes()
    assert b"ORTM" in data[:16]
    assert b"Reorder" not in data  # what stands around blocked layouts


def test_its_activations_are_those_of_the_optimised_graph(shipped: Shipped, path: Path) -> None:
    """Nodes read what earlier ones made, although the file stores fused ones first."""
    flow = ToOrt().flow(path)
    made = set(flow.inputs)
    for operation in flow.operations:
        assert {read for read in operation.reads if read in flow.bytes} <= made
        made |= set(operation.writes)
    assert set(flow.outputs) <= made
    own = onnx_activations(shipped.path)
    assert peak(flow).bytes <= peak(own).bytes
    assert flow.bytes[flow.inputs[0]] == own.bytes[own.inputs[0]]
    kinds = {operator for _, operator in ToOrt().operators(path)}
    assert kinds >= {"com.microsoft.FusedConv"}


@pytest.mark.slow
def test_its_dense_twin_has_no_layouts_of_this_processor_either(
    shipped: Shipped, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: dict[str, list[object]] = {".ort": [], ".onnx": []}
    session = onnxruntime.InferenceSession

    def noted(path: str, options: onnxruntime.SessionOptions, **given: object) -> object:
        levels[Path(path).suffix].append(options.graph_optimization_level)
        return session(path, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    dense = Onnxruntime().open(shipped.path)
    Onnxruntime().open(path).time(dense, rounds=3)
    level = onnxruntime.GraphOptimizationLevel
    assert levels[".onnx"] == [level.ORT_ENABLE_ALL, level.ORT_ENABLE_EXTENDED]
    dense.time(Onnxruntime().open(shipped.path), rounds=3)
    assert levels[".onnx"][2:] == [level.ORT_ENABLE_ALL]


def test_one_that_is_slower_than_its_dense_twin_is_reported(shipped: Shipped, path: Path) -> None:
    report = verify_file(
        path,
        shipped.module,
        shipped.example,
        exporter=ToOrt(),
        runner=Onnxruntime(),
        spec=VerifySpec(budget=Budget(latency_ratio=1.0)),
        torch_cost=TINY_COST,
        latency=Latency(3.0, 1.0, 3.0, 2.9, 3.1),
    )
    (failure,) = report.failures
    assert "latency" in failure.name
    assert "compare with it" in failure.message


def test_half_a_file_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(PrunecError, match="cannot be read"):
        ToOrt().read_back(path)
