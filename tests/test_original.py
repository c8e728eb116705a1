"""A file is proven against the original network, the one before anything was cut."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from masks import channel_masks, masked
from onnx import numpy_helper
from sampling import sampled, slow_but
from torch import Tensor, nn
from zoo import ZOO

import prunec
from prunec.errors import DataError

CLASSES = 10


def network(*, features: bool = True) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3)]
    tail = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES)]
    made = nn.Sequential(*layers, *(tail if features else [nn.Conv2d(12, CLASSES, 1)]))
    with torch.no_grad():
        made[0].weight[3:] = 0
        made[1].bias[3:] = 0
        made[3].weight[5:9] = 0
    return made.eval()


EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def original() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compact = prunec.compile(network(), EXAMPLE).module
    return prunec.export_onnx(compact, EXAMPLE, tmp_path_factory.mktemp("exported") / "cut.onnx")


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    """A copy of the file, which may be damaged."""
    return Path(shutil.copy(exported, tmp_path))


def named(report: prunec.Report) -> set[str]:
    return {check.name for check in report.checks}


@pytest.mark.parametrize("rewritten", sampled(["cut and folded", "cut", "folded"], 3))
def test_what_was_cut_or_folded_passes(original: nn.Module, tmp_path: Path, rewritten: str) -> None:
    made = prunec.compile(original, EXAMPLE).module if "cut" in rewritten else original
    made = prunec.fold_batch_norms(made, EXAMPLE).module if "folded" in rewritten else made
    path = prunec.export_onnx(made, EXAMPLE, tmp_path / "net.onnx")
    report = prunec.verify(original, path, example_inputs=EXAMPLE)
    assert report.passed, report.failures
    assert "outputs, random" in named(report)
    assert "weights equal" not in named(report)


@pytest.mark.slow
def test_the_very_network_is_compared_whole(original: nn.Module, tmp_path: Path) -> None:
    path = prunec.export_onnx(original, EXAMPLE, tmp_path / "net.onnx")
    assert "weights equal" in named(prunec.verify(original, path, example_inputs=EXAMPLE))


@pytest.mark.slow
def test_another_network_of_the_same_shapes_is_compared_whole(
    original: nn.Module, file: Path
) -> None:
    compact = prunec.compile(original, EXAMPLE).module
    with torch.no_grad():
        compact.get_parameter("0.weight").add_(1e-9)  # rounding hides it from every output
    failures = prunec.verify(compact, file, example_inputs=EXAMPLE).failures
    assert {"weights digest", "weights equal"} <= {check.name for check in failures}


@pytest.mark.parametrize("name", slow_but(["two-inputs", "two-heads", "dict-output"]))
def test_networks_of_several_inputs_and_outputs(name: str, tmp_path: Path) -> None:
    module, example = ZOO[name]()
    module = masked(module, channel_masks(module, prunec.groups(module, example), 0.5, "both", 1))
    module, example = module.float(), tuple(x.float() for x in example)
    compact = prunec.compile(module, example).module
    path = prunec.export_onnx(compact, example, tmp_path / "net.onnx")
    report = prunec.verify(module, path, example_inputs=example)
    assert report.passed, report.failures


def test_a_weight_one_percent_off_fails(original: nn.Module, file: Path) -> None:
    model = onnx.load(file)
    tensor = next(t for t in model.graph.initializer if t.name == "3.weight")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[abs(values).argmax()] *= 1.01
    tensor.raw_data = values.tobytes()
    onnx.save(model, file)
    failures = prunec.verify(original, file, example_inputs=EXAMPLE).failures
    assert [check.name for check in failures] == ["outputs, random"]


def test_what_a_file_says_of_itself_must_hold(original: nn.Module, file: Path) -> None:
    model = onnx.load(file)
    for entry in model.metadata_props:
        if entry.key == "prunec.macs":
            entry.value = "7"
    onnx.save(model, file)
    failures = prunec.verify(original, file, example_inputs=EXAMPLE).failures
    assert [check.name for check in failures] == ["MACs in metadata"]


@pytest.mark.slow
def test_a_file_with_more_macs_is_no_cut_one(original: nn.Module, tmp_path: Path) -> None:
    wider = copy.deepcopy(original)
    wider[3] = nn.Conv2d(8, 24, 3)
    wider[7] = nn.Linear(24, CLASSES)
    with torch.no_grad():
        wider[3].weight[:12], wider[3].bias[:12] = original[3].weight, original[3].bias
        wider[7].weight.zero_()
        wider[7].weight[:, :12], wider[7].bias[:] = original[7].weight, original[7].bias
    path = prunec.export_onnx(wider.eval(), EXAMPLE, tmp_path / "net.onnx")
    failures = prunec.verify(original, path, example_inputs=EXAMPLE).failures
    assert [check.name for check in failures] == ["MACs / original's"]


# -- data -----------------------------------------------------------------------------------------


def batches(original: nn.Module, *, pixels: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Three batches of different sizes whose labels are the network's own answers, bar one."""
    for size in (4, 3, 1):
        images = torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            labels = original(images).argmax(1)
        if size == 4:
            labels[0] = (labels[0] + 1) % CLASSES
        yield (images, labels.to(torch.uint8)) if pixels else (images, labels)


def test_accuracy_is_compared_on_labelled_data(original: nn.Module, file: Path) -> None:
    report = prunec.verify(original, file, example_inputs=EXAMPLE, data=batches(original))
    assert report.passed, report.failures
    assert {"top-1 agreement", "accuracy, percent", "outputs, test split"} <= named(report)
    assert report.details.figures == {"accuracy": 87.5}


@pytest.mark.slow
def test_pixels_are_compared_by_miou(tmp_path: Path) -> None:
    original = network(features=False)
    file = prunec.export_onnx(
        prunec.compile(original, EXAMPLE).module, EXAMPLE, tmp_path / "s.onnx"
    )
    given = batches(original, pixels=True)
    report = prunec.verify(original, file, example_inputs=EXAMPLE, data=given)
    assert report.passed, report.failures
    assert {"per-pixel agreement", "mIoU, percent"} <= named(report)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "holds no batch"),
        ([torch.zeros(2, 3, 8, 8)], "is not a pair"),
        ([(torch.zeros(2, 3, 8, 8), torch.zeros(2))], "labels of type torch.float32"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([0, 10]))], "labels from 0 to 10"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([0]))], "2 inputs and 1 labels"),
    ],
)
def test_data_of_another_kind_are_refused(
    original: nn.Module, file: Path, data: list[object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prunec.verify(original, file, example_inputs=EXAMPLE, data=data)  # type: ignore[arg-type]


# -- what is printed ------------------------------------------------------------------------------


def test_reports_and_costs_print_as_tables(
    original: nn.Module, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report = str(prunec.verify(original, file, example_inputs=EXAMPLE))
    cost = prunec.count(original, EXAMPLE)
    for text in (report, str(cost), str(prunec.count_onnx(file))):
        assert max(map(len, text.splitlines())) <= 80
    assert "All 7 checks passed, on random inputs." in report
    assert "Not proven on real samples" in report
    assert f"{cost.macs:,}" in str(cost)


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert prunec.__version__ == version("prunec")
