"""The whole road of a segmentation: VOC's files, a small DeepLabV3, gates, cut, proof, pages."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fake_voc import VOID, write_voc
from onnx import numpy_helper
from oracles import worst
from sampling import slow_case
from test_end_to_end import Answer, prunec
from test_packaged_recipes import quick_cost
from torch import Tensor

from prunec.artifact import Artifact
from prunec.batches.data import load_data
from prunec.catalogue import build_passes
from prunec.comparison.results import Result, aggregated
from prunec.comparison.tables import to_csv, to_markdown
from prunec.contract import Rewrite
from prunec.models.building import build_auxiliary, build_model, unweighted
from prunec.models.gates import gates_of
from prunec.passes.train_gdp import TrainGdp
from prunec.recipe import DataSpec, Recipe, load_recipe, packaged_recipes
from prunec.recipe.network_and_data import PER_PIXEL
from prunec.store.runs import RunFolder
from prunec.tasks.segmentation import Segmentation
from prunec.training import state
from prunec.training.context import Context
from prunec.training.progress import make_progress

RECIPE = """
name = "seg"
device = "cpu"

[model]
name = "segmentation_net:deeplab"
options = { aux_loss = true }

[data]
name = "voc-segmentation"
root = "ROOT"
augment = [
    { name = "ScaleJitter", target_size = [32, 32], scale_range = [0.8, 1.5] },
    { name = "RandomCrop", size = 32, pad_if_needed = true, fill = [124, 116, 104] },
]
prepare = [{ name = "CenterCrop", size = 32 }]

[train]
epochs = 5
batch_size = 4
learning_rate = 0.05
precision = "fp32"
channels_last = true
threads = 1

[[pass]]
name = "train-gdp"
dense_epochs = 1
select_epochs = 2
macs_ratio = 0.5
round_to = 8

[[pass]]
name = "absorb-gates"

[[pass]]
name = "remove-channels"
round_to = 8

[[pass]]
name = "compact-masks"

[[pass]]
name = "fold-batchnorm"

[verify]
agreement = 0.9999

[verify.budget]
macs_ratio = 0.5
miou = 1.0
latency_ratio = false
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation")
    write_voc(folder / "images", train=16, val=5, classes=4)
    (folder / "seg.toml").write_text(RECIPE.replace("ROOT", str(folder / "images")))
    return folder


@pytest.fixture(scope="module")
def shipped(work: Path) -> tuple[RunFolder, Answer]:
    prunec("train", work / "seg.toml", "--runs", work / "runs")
    run = RunFolder(work / "runs" / "seg-001")
    return run, prunec("export", run.path, "--onnx")


def checks_of(report: dict[str, Any]) -> dict[str, Any]:
    return {check["name"]: check for check in report["checks"]}


@pytest.mark.slow
def test_the_file_is_proven_by_miou_and_by_pixels(
    shipped: tuple[RunFolder, Answer], work: Path
) -> None:
    run, answer = shipped
    report = json.loads(run.export.report.read_text())["forms"]["onnx"]
    checks = checks_of(report)
    assert report["passed"], answer.text
    assert {"per-pixel agreement", "mIoU, percent", "pixel accuracy, percent", "budget: mIoU"} <= (
        checks.keys()
    )
    assert not {"accuracy, percent", "top-1 agreement"} & checks.keys()
    session = onnxruntime.InferenceSession(run.export.shipped("onnx", ".onnx"))
    data = load_data(run.recipe.data, seed=0)
    task, counts = Segmentation(21), torch.zeros(21 * 22, dtype=torch.int64)
    for images, labels in data.test_batches(2):
        outputs = session.run(None, {"input": images.numpy()})
        assert len(outputs) == 1  # the head that only trains did not ship
        counts += task.counts(torch.from_numpy(outputs[0].argmax(1)), labels)
    score = task.score(counts.tolist())
    for key, name in (("miou", "mIoU"), ("pixel_accuracy", "pixel accuracy")):
        assert checks[f"{name}, percent"]["found"] == pytest.approx(score.figures[key])
        assert report["details"][key] == pytest.approx(score.figures[key])
    assert report["details"]["test samples"] == 5
    padded = next(iter(data.test_batches(5)))[1]
    assert bool((padded == VOID).any())


@pytest.mark.slow
def test_pages_and_tables_call_it_miou(shipped: tuple[RunFolder, Answer]) -> None:
    run, answer = shipped
    page = (run.path / "report.html").read_text()
    assert "mIoU by epoch" in page
    assert "Pixel accuracy by epoch" in page
    assert "mIoU, percent" in answer.text
    assert ">Accuracy<" not in page
    step = json.loads((run.step(0, "train-gdp") / "artifact.json").read_text())["history"][-1]
    assert any(note.startswith("test mIoU ") for note in step["notes"])
    assert {"test_miou", "dense_phase_miou"} <= step["details"].keys()
    results = [
        Result("seg", None, seed, "done", True, accuracy=40.0 + seed, quality="mIoU")
        for seed in range(2)
    ]
    rows = aggregated(results)
    assert "| mIoU |" in to_markdown(rows)
    assert "miou" in to_csv(rows, type(rows[0])).splitlines()[0].split(",")


@pytest.mark.slow
def test_a_spoiled_file_does_not_pass(shipped: tuple[RunFolder, Answer], work: Path) -> None:
    run, _ = shipped
    model = onnx.load(run.export.shipped("onnx", ".onnx"))
    last = next(t for t in model.graph.initializer if t.name == "classifier.4.bias")
    values = numpy_helper.to_array(last).copy()
    values[1:] += np.float32(5.0)  # whatever is background no more
    last.raw_data = values.tobytes()
    onnx.save(model, work / "spoiled.onnx")
    answer = prunec("verify", run.path, "--onnx", work / "spoiled.onnx", "--json", code=2)
    checks = checks_of(json.loads(answer.text)["forms"]["onnx"])
    failed = {name for name, check in checks.items() if not check["passed"]}
    assert {
        "weights equal",
        "outputs, test split",
        "per-pixel agreement",
        "mIoU, percent",
    } <= failed
    assert "pixels get another top-1 answer" in checks["per-pixel agreement"]["message"]


# -- the packaged recipes --------------------------------------------------------------------------

VOC = tuple(n for n in packaged_recipes() if load_recipe(n).data.name == "voc-segmentation")
SMALL = 33


def shrunk(value: Any) -> Any:
    """The same transforms for images of 33×33."""
    if isinstance(value, dict):
        sizes = {key: shrunk(item) for key, item in value.items()}
        return {key: SMALL if item == 513 else item for key, item in sizes.items()}
    if isinstance(value, list | tuple):
        return [SMALL if item == 513 else shrunk(item) for item in value]
    return value


def small(recipe: Recipe, root: Path) -> Recipe:
    """Four steps of two images of 33×33 from ``root``, and no pretrained weights."""
    data = recipe.data.model_dump(mode="json") | {"root": str(root), "workers": 0}
    data |= {key: shrunk(data[key]) for key in ("augment", "prepare")}
    train = recipe.train.model_copy(
        update={"epochs": 1, "batch_size": 2, "precision": "fp32", "threads": 1}
    )
    return recipe.model_copy(
        update={
            "data": DataSpec.model_validate_json(json.dumps(data)),
            "train": train,
            "model": unweighted(recipe.model),
        }
    )


def test_the_promised_recipes_are_there() -> None:
    assert set(VOC) == {"gdp_deeplabv3_voc", "gdp_deeplab_mbv2_voc"}
    assert load_recipe("gdp_segmentation").data.name == "embedded-segmentation"
    assert set(PER_PIXEL) == {load_recipe(n).data.name for n in (*VOC, "gdp_segmentation")}


@pytest.mark.parametrize("name", VOC)
def test_a_recipes_own_transforms_suit_vocs_files(name: str, tmp_path: Path) -> None:
    write_voc(tmp_path, train=1, val=1, more=("2009_000001",))
    spec = load_recipe(name).data.model_copy(update={"root": str(tmp_path), "workers": 0})
    data = load_data(spec, seed=0)
    assert data.shape == (3, 513, 513)
    assert data.train_size == 2
    images, labels = next(iter(data.test_batches(1)))
    assert images.shape[2:] == labels.shape[1:] == (513, 513)
    there = labels != VOID
    assert int(there.sum()) == 50 * 40 - (24 * 28 - 20 * 24)  # the photograph without the border


# The first has a ResNet-50; the road above trains, cuts and ships a small DeepLabV3 of its making.
@pytest.mark.parametrize("name", [slow_case(n, nightly=True) for n in VOC])
def test_a_recipe_trains_in_every_phase_and_its_rewrites_are_exact(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr(state, "save_checkpoint", lambda *_, **__: None)
    monkeypatch.setattr("prunec.artifact.Artifact.cost", property(quick_cost))
    write_voc(tmp_path / "data", train=2, val=2, more=[f"2009_{i:06d}" for i in range(6)])
    recipe = small(load_recipe(name), tmp_path / "data")
    data = load_data(recipe.data, seed=0)
    module = build_model(recipe.model, data.classes, seed=0).eval()
    second = build_auxiliary(recipe.model, data.classes, seed=0)
    assert (second is not None) == (name == "gdp_deeplabv3_voc")
    example: Tensor = next(iter(data.test_batches(2)))[0]
    context = Context(
        recipe, data, torch.device("cpu"), RunFolder(tmp_path), make_progress(Console(quiet=True)),
        resume=False, auxiliary=second,
    )  # fmt: skip
    gdp, *rewrites = build_passes(recipe, name)
    assert isinstance(gdp, TrainGdp)
    quarter = replace(gdp, dense=0.25, select=0.5)
    trained = quarter(Artifact(module, (example,)), context)
    assert gates_of(trained.module)
    assert not [key for key in trained.module.state_dict() if key.startswith("aux")]
    wide = replace(
        trained, module=copy.deepcopy(trained.module).double(), example=(example.double(),)
    )
    artifact = wide
    for step in rewrites:
        assert isinstance(step, Rewrite)
        artifact = step(artifact)
    assert worst(wide.module, artifact.module, (example.roll(1, 0).double(),)) < 1e-9
    macs = artifact.history
    assert macs[-1].macs[1] < 0.8 * macs[0].macs[0]
    assert macs[-1].macs[1] == round(macs[0].details["macs_ratio"] * macs[0].macs[0])
