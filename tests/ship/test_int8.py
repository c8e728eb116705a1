"""Int8: integers as they run, bounds kept by leaving layers in float, no bias lost, losses told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from prunec.artifact import Artifact, Step
from prunec.catalogue import other_runners, runner_for
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import NeedsNotMet, PassError
from prunec.exporters._int8_filters import integer_layers, keep_float
from prunec.exporters._int8_sums import cut_off
from prunec.exporters.to_int8 import ToInt8
from prunec.exporters.to_onnx import ToOnnx
from prunec.recipe import VerifySpec
from prunec.tasks.task import Classification

FACTS = ("compact", "folded")


def net() -> nn.Sequential:
    """Every class is some noise's: its logits have mean 0 and deviation 1."""
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()
    last = module[7]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        logits = module(torch.randn(64, 3, 12, 12))
        size = logits.std(0)
        last.weight.div_(size[:, None])
        last.bias.sub_(logits.mean(0)).div_(size)
    return module


def artifact_of(module: nn.Module, facts: tuple[str, ...] = FACTS) -> Artifact:
    step = Step("made", {}, facts, (1, 1), (1, 1), None, 0.0, "digest")
    return Artifact(module, (torch.randn(2, 3, 12, 12),), history=(step,))


def images(count: int, seed: int = 0) -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(16, 3, 12, 12, generator=generator),) for _ in range(count)]


class Split:
    task = Classification(4)

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        with torch.no_grad():
            for (batch,) in images(3, seed=7):
                yield batch, self._module(batch).argmax(1)


def exported(module: nn.Module, folder: Path, **options: Any) -> tuple[Artifact, Path, Exported]:
    artifact = artifact_of(module)
    ToOnnx()(Source(artifact), folder / "onnx" / "model.onnx")
    source = Source(artifact, {}, {"onnx": folder / "onnx" / "model.onnx"})
    path = folder / "int8" / "model.onnx"
    writer = ToInt8(**{"agreement": 0.8, **options})
    return artifact, path, writer(source, path, images(4))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path, Exported]:
    return exported(net(), tmp_path_factory.mktemp("int8"), accuracy_drop=20.0)


def verified(artifact: Artifact, path: Path) -> Report:
    return verify_file(
        path,
        artifact.module,
        artifact.example,
        exporter=ToInt8(agreement=0.8, accuracy_drop=20.0),
        runner=Onnxruntime(),
        spec=VerifySpec(),
        torch_cost=artifact.cost,
        data=Split(artifact.module),  # type: ignore[arg-type]
    )


def test_every_layer_runs_in_integers(made: tuple[Artifact, Path, Exported]) -> None:
    artifact, path, _ = made
    report = verified(artifact, path)
    assert report.passed, report.failures
    check = next(c for c in report.checks if c.name == "integer layers, as run")
    assert check.found == "4 of 4"
    assert Onnxruntime().open(path).layers == {"integer": 4}


def test_a_layer_that_the_runtime_takes_back_is_seen(
    made: tuple[Artifact, Path, Exported], tmp_path: Path
) -> None:
    """The file says int8, and nothing rounds what the layer makes: it runs in float."""
    artifact, path, _ = made
    model = onnx.load(path)
    layer = next(n for n in model.graph.node if n.op_type == "Conv")
    keep_float(model, [layer.name])
    spoiled = tmp_path / "model.onnx"
    onnx.save(model, spoiled)
    failures = {check.name: check for check in verified(artifact, spoiled).failures}
    message = failures["integer layers, as run"].message
    assert "runs 1 of them in float" in message


def test_losses_are_reported(made: tuple[Artifact, Path, Exported]) -> None:
    artifact, _, told = made
    losses = {loss["tensor"]: loss for loss in told.told["losses"]}  # type: ignore[attr-defined]
    state = artifact.module.state_dict()
    assert set(losses) == set(state)
    assert all(loss["moved"] == 0 for loss in losses.values())
    norms = state["0.weight"].flatten(1).norm(dim=1)
    assert losses["0.weight"]["ratio"] == pytest.approx(float(norms.max() / norms.min()))
    assert losses["0.bias"]["ratio"] is None


@pytest.mark.parametrize(("bias", "scale"), [(0.4, 100.0), (-3e-6, 1.0), (0.0, 1.0)])
def test_the_bias_of_a_filter_of_zeros_is_kept(tmp_path: Path, bias: float, scale: float) -> None:
    module = net()
    with torch.no_grad():
        module[0].weight.div_(scale)
        module[0].weight[5] = 0
        module[0].bias[5] = bias
    artifact = artifact_of(module)
    ToOnnx()(Source(artifact), tmp_path / "a" / "model.onnx")
    source = Source(artifact, {}, {"onnx": tmp_path / "a" / "model.onnx"})
    path = tmp_path / "int8.onnx"
    given = [(scale * batch,) for (batch,) in images(2)]
    told = ToInt8(agreement=0.0, accuracy_drop=100.0)(source, path, given).told
    assert told["zero filters"] == 1
    model = onnx.load(path)
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    layer = next(iter(integer_layers(model)))
    assert layer.bias is not None
    stored, step = held[layer.bias.input[0]][5], held[layer.bias.input[1]][5]
    assert float(stored) * float(step) == pytest.approx(bias, rel=1e-6)
    assert held[layer.kernel.input[1]][5] != 1.0
    assert step == pytest.approx(held[layer.kernel.input[1]][5] * layer.input_scale, rel=1e-5)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = (onnxruntime.InferenceSession(path, o) for o in (None, plain))
    fused, apart = (s.run(None, {"input": given[0][0].numpy()})[0] for s in sessions)
    assert np.abs(fused - apart).max() < 0.2  # integers as they run, and what they stand for


def test_layers_stay_float_until_the_bounds_hold(tmp_path: Path) -> None:
    """A channel a thousand times as large as the others takes all steps of its tensor."""
    module = net()
    with torch.no_grad():
        module[4].weight[0] *= 3000
        module[4].bias[0] *= 3000
        module[7].weight[:, 0] /= 3000
    artifact, path, told = exported(module, tmp_path, agreement=0.95)
    left = told.told["float layers"]
    assert isinstance(left, dict)
    assert left
    assert any("is float: integers in it alone move" in str(r) for r in told.told["remarks"])  # type: ignore[attr-defined]
    layers = Onnxruntime().open(path).layers
    assert layers == {"integer": 4 - len(left), "float": len(left)}
    assert verified(artifact, path).passed


def large(module: nn.Sequential) -> nn.Sequential:
    """Weights of one sign and about one size: the sums of all filters are as large as they get."""
    with torch.no_grad():
        for layer in (module[0], module[2], module[4]):
            assert isinstance(layer, nn.Conv2d)
            layer.weight.abs_().add_(layer.weight.max())
    return module


@pytest.mark.parametrize("bits", [7, 8])
def test_large_weights_answer_alike_on_any_processor_or_the_report_says_so(
    tmp_path: Path, bits: int
) -> None:
    """The file means its integers: summed exactly, they are what every runner must answer."""
    free = {"agreement": 0.0, "accuracy_drop": 100.0, "weight_bits": bits}
    _, path, told = exported(large(net()), tmp_path, **free)
    remarks = [r for r in told.told["remarks"] if "may exceed 16 bits" in r]  # type: ignore[attr-defined]
    check = ToInt8(**free).as_run(path, Onnxruntime().open(path))[-1]
    assert (check.name, check.passed) == ("integer sums, any processor", True)
    if bits == 8:
        assert (len(remarks), check.found) == (1, "in some layers on VNNI alone")
        strict = ToInt8(agreement=0.0).as_run(path, Onnxruntime().open(path))[-1]
        assert not strict.passed
        assert "weight_bits = 7 fits everywhere" in strict.message
        return
    assert (remarks, check.found) == ([], "within 16 bits")
    exact = onnxruntime.SessionOptions()
    exact.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (x,) = images(4, seed=7)[0]
    right = onnxruntime.InferenceSession(path, exact).run(None, {"input": x.numpy()})[0]
    for runner in (runner_for(".onnx"), *other_runners(".onnx")):
        (outputs,) = next(iter(runner.open(path).run([[x.numpy()]])))
        assert (outputs.argmax(1) == right.argmax(1)).all(), runner.identity


def test_two_weights_are_cut_off_from_129_on(tmp_path: Path) -> None:
    """255 · 128 fits 16 bits, 255 · 129 does not; weights of two signs take no part together."""
    path = exported(net(), tmp_path, agreement=0.0, accuracy_drop=100.0)[1]
    model = onnx.load(path)
    layer = next(iter(integer_layers(model)))
    stored = next(t for t in model.graph.initializer if t.name == layer.kernel.input[0])
    kernel = np.zeros(numpy_helper.to_array(stored).shape, np.int8)
    pairs = [(64, 64), (64, 65), (127, -127), (-65, -64), (127, 1), (127, 2)]
    for place, pair in enumerate(pairs):
        kernel[place].reshape(-1)[[3, 17]] = pair
    stored.CopyFrom(numpy_helper.from_array(kernel, stored.name))
    assert cut_off(model) == {layer.node.name: 3}


def test_the_same_bytes_every_time(made: tuple[Artifact, Path, Exported], tmp_path: Path) -> None:
    _, path, _ = made
    again = exported(net(), tmp_path, accuracy_drop=20.0)[1]
    torch.manual_seed(99)
    assert again.read_bytes() == path.read_bytes()


def test_only_a_compact_network_is_written(tmp_path: Path) -> None:
    source = Source(artifact_of(net(), ("compact",)), {}, {})
    with pytest.raises(NeedsNotMet, match="to-int8 needs a network that is folded"):
        ToInt8()(source, tmp_path / "model.onnx", images(1))


def test_an_opset_without_a_scale_a_channel_is_refused(tmp_path: Path) -> None:
    artifact = artifact_of(copy.deepcopy(net()))
    ToOnnx(opset=12)(Source(artifact), tmp_path / "model.onnx")
    source = Source(artifact, {}, {"onnx": tmp_path / "model.onnx"})
    with pytest.raises(PassError, match="needs opset 13, the ONNX file has 12"):
        ToInt8()(source, tmp_path / "int8.onnx", images(1))
