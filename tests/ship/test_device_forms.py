"""Forms of other runtimes, each run by its own; skipped where that is not installed."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ship_nets import METADATA, TINY_COST, FakeData, tiny
from torch import Tensor, nn

from prunec import catalogue
from prunec.artifact import Artifact
from prunec.cost.lifetimes import peak
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.memory import memory_of
from prunec.deploy.operator_sets import operator_set, sets_for
from prunec.errors import PassError, PrunecError
from prunec.exporters.to_onnx import ToOnnx
from prunec.plugins import EXPORTERS, RUNNERS
from prunec.recipe import VerifySpec

pytestmark = [  # what the runtimes' own code is warned of when it is imported
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
]


@dataclass(frozen=True)
class Form:
    """A form, and the packages that write and run it."""

    name: str
    packages: tuple[str, ...]
    weights: str = ""  # suffix of the file in which they are

    def required(self) -> Form:
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed: pip install 'prunec[{self.name}]'")
        return self


FORMS = [
    Form("openvino", ("openvino",), ".bin"),
    Form("ncnn", ("ncnn", "pnnx"), ".bin"),
    Form("litert", ("litert_torch", "ai_edge_litert")),
    Form("executorch", ("executorch",)),
]
slow_ones = [pytest.param(f, id=f.name, marks=pytest.mark.slow) for f in FORMS[2:]]
every = pytest.mark.parametrize(
    "form", [*(pytest.param(f, id=f.name) for f in FORMS[:2]), *slow_ones]
)
quick = pytest.mark.parametrize("form", [pytest.param(f, id=f.name) for f in FORMS[:2]])


def exported(module: nn.Module, form: Form, folder: Path) -> tuple[Exported, Artifact]:
    artifact = Artifact(module, (torch.randn(2, 3, 16, 16),))
    ToOnnx()(Source(artifact, METADATA), folder / "onnx" / "model.onnx")
    writer = catalogue.exporter(f"to-{form.name}")()
    source = Source(artifact, METADATA, {"onnx": folder / "onnx" / "model.onnx"})
    return writer(source, folder / form.name / f"model{writer.suffix}"), artifact


def verified(path: Path, artifact: Artifact, form: Form, **recorded: object) -> Report:
    writer = catalogue.exporter(f"to-{form.name}")()
    return verify_file(
        path,
        artifact.module,
        artifact.example,
        exporter=writer,
        runner=catalogue.runner_for(writer.suffix),
        spec=VerifySpec(),
        torch_cost=TINY_COST,
        data=FakeData(),  # type: ignore[arg-type]
        manifest=recorded,
    )


@every
def test_a_form_is_proven_by_its_own_runtime(form: Form, tmp_path: Path) -> None:
    """With channels that fill no block; and a change of one weight is seen."""
    made, artifact = exported(tiny(seed=0), form.required(), tmp_path)
    report = verified(made.path, artifact, form, graph_digest=made.graph_digest)
    assert report.passed, report.failures
    assert {"outputs, test split", "top-1 agreement", "graph digest"} <= {
        check.name for check in report.checks
    }
    kernels = sum(p.numel() for p in artifact.module.parameters() if p.dim() > 1)
    assert made.bytes == report.details.bytes
    assert made.bytes > 4 * kernels, "the weights beside it belong to the file"
    runner = report.details.runner
    assert runner is not None
    assert runner.name == form.name
    assert "f32" in runner.device
    held = made.path.with_suffix(form.weights) if form.weights else made.path
    kernel = artifact.module.get_parameter("6.weight").detach().numpy().tobytes()
    data = bytearray(held.read_bytes())
    place = data.find(kernel[:8])
    assert place > 0 or form.name != "openvino"  # others pack kernels in their own order
    place = place if place > 0 else len(data) // 2
    data[place + 2 : place + 4] = b"\x00\x42"
    held.write_bytes(data)
    spoiled = verified(made.path, artifact, form, graph_digest=made.graph_digest)
    assert not spoiled.passed


@every
def test_activations_are_those_that_the_network_makes(form: Form, tmp_path: Path) -> None:
    """Every kernel's output of one sample is a value of the file, with its size in bytes."""
    made, artifact = exported(tiny(seed=0), form.required(), tmp_path)
    flow = catalogue.exporter(f"to-{form.name}")().flow(made.path)
    assert flow is not None
    sizes: list[int] = []
    for part in artifact.module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.register_forward_hook(lambda _m, _x, y: sizes.append(4 * y[:1].numel()))
    artifact.module(*artifact.example)
    held = Counter(flow.bytes.values())
    assert len(sizes) > 3
    assert all(held[size] >= sizes.count(size) for size in sizes), (sizes, held)
    most = peak(flow)
    assert max(sizes) <= most.bytes == sum(size for _, size in most.held)
    known = catalogue.exporter(f"to-{form.name}")().operators(made.path)
    assert known is None or len(known) >= len(sizes)
    if known and (names := sets_for(made.path.suffix)):
        lacking = {name: operator_set(name).missing(known, made.path.suffix) for name in names}
        assert {} in lacking.values(), lacking


def test_openvinos_operators_are_those_that_openvino_reads(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    made, _ = exported(tiny(seed=0), FORMS[0].required(), tmp_path)
    nodes = openvino.Core().read_model(made.path).get_ordered_ops()
    kinds = [f"{x.get_type_info().version_id}.{x.get_type_name()}" for x in nodes]
    left_out = {"Parameter", "Constant", "Result"}
    expected = Counter(kind.lower() for kind in kinds if kind.split(".")[1] not in left_out)
    actual = catalogue.exporter("to-openvino")().operators(made.path)
    # Files spell some names otherwise: ReLU, SoftMax.
    assert actual is not None
    assert Counter(operator.lower() for _, operator in actual) == expected


@quick
def test_small_and_large_weights_are_kept(form: Form, tmp_path: Path) -> None:
    """Kernel of 1e-5, 1e-9 and 1e5 in float32, compensated by the layer behind."""
    module = tiny(seed=0)
    with torch.no_grad():
        for channel, size in enumerate((1e-5, 1e-9, 1e5)):
            module[6].weight[channel] *= size
            module[6].bias[channel] *= size
            module[9].weight[:, channel] /= size
    made, artifact = exported(module, form.required(), tmp_path)
    report = verified(made.path, artifact, form)
    assert report.passed, report.failures


class Two(nn.Module):
    """Two outputs of unlike sizes, the larger first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 5, 3)
        self.wide, self.narrow = nn.Conv2d(5, 7, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.body(x))
        return self.wide(y), self.narrow(y)


@every
def test_outputs_keep_their_order(form: Form, tmp_path: Path) -> None:
    made, artifact = exported(Two().eval(), form.required(), tmp_path)
    loaded = catalogue.runner_for(made.path.suffix).open(made.path)
    given = artifact.example[0]
    (outputs,) = loaded.run([[given.numpy()]])
    with torch.no_grad():
        expected = artifact.module(given)
    for ours, theirs in zip(expected, outputs, strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-4


@quick
def test_what_is_no_such_file_is_named(form: Form, tmp_path: Path) -> None:
    writer = catalogue.exporter(f"to-{form.required().name}")()
    path = tmp_path / f"model{writer.suffix}"
    for text in ("", "7767517\n3 3\nnothing", "<xml>"):
        path.write_text(text)
        with pytest.raises(PrunecError):
            writer.read_back(path)


@pytest.mark.parametrize(
    "name", ["to-openvino", "to-litert", "to-executorch", "to-executorch-int8", "to-ncnn"]
)
def test_a_missing_package_is_reported_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = next(f for f in FORMS if f.name in name)
    import sys

    for module in list(sys.modules):
        ours = (f"{EXPORTERS}.to_{form.name}", f"{EXPORTERS}._{form.name}")
        if module.split(".")[0] in form.packages or module.startswith(ours):
            monkeypatch.delitem(sys.modules, module)
    for package in form.packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PassError, match="cannot be imported") as raised:
        catalogue.exporter(name)
    assert raised.value.remedy == f"Install it: pip install 'prunec[{form.name}]'"


def test_no_runtime_is_loaded_for_another_ones_file() -> None:
    assert catalogue.runner_for(".onnx").runner_name() == "onnxruntime"
    assert {"openvino", "litert", "executorch", "ncnn"} <= set(catalogue.runner_names())
    assert RUNNERS.endswith("runners")


@every
def test_resident_memory_is_that_of_a_process_of_its_own(form: Form, tmp_path: Path) -> None:
    """At least the weights of 8 MB are read, and nothing of the runtime's hundreds counts."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(1568, 1280)).eval()
    made, _ = exported(module, form.required(), tmp_path)
    memory = memory_of(made.path, catalogue.runner_for(made.path.suffix))
    assert memory.loaded <= memory.peak
    assert 6_000_000 < memory.peak < 150_000_000
