"""Segmentation: mIoU and loss against brute force; training, networks and recipes."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fake_voc import VOID
from safetensors.torch import load_file
from segmentation_worker import segment
from small_segmentation import net, segmentation_recipe, small_context, without_dropout
from small_training import CPU
from torch import Tensor, nn
from torchrun import torchrun

from prunec.errors import DataError, RecipeError
from prunec.models.building import build_auxiliary, build_model
from prunec.processes import Processes
from prunec.recipe import loads
from prunec.tasks.segmentation import Overlap, Segmentation
from prunec.tasks.task import Outputs
from prunec.training.evaluation import evaluate
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective, make_objective
from prunec.training.settings import Settings

CLASSES = 4


def answers(seed: int, classes: int = CLASSES, count: int = 3) -> tuple[Tensor, Tensor]:
    """Answers and labels of some masks, some pixels without label."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(classes, (count, 5, 7), generator=generator)
    labels = torch.randint(classes, (count, 5, 7), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = VOID
    return found, labels


def brute_miou(found: Tensor, labels: Tensor, classes: int) -> float:
    """By sets of pixels, as VOC defines it: over the classes that occur."""
    ious = []
    for label in range(classes):
        valid = [i for i, y in enumerate(labels.flatten().tolist()) if y != VOID]
        wanted = {i for i in valid if labels.flatten()[i] == label}
        given = {i for i in valid if found.flatten()[i] == label}
        if wanted | given:
            ious.append(len(wanted & given) / len(wanted | given))
    return 100 * sum(ious) / len(ious)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 4, 21])
def test_miou_is_that_of_sets_of_pixels(seed: int, classes: int) -> None:
    found, labels = answers(seed, classes)
    task = Segmentation(classes)
    score = task.score(task.counts(found, labels).tolist())
    assert score.percent == pytest.approx(brute_miou(found, labels, classes))
    valid = labels != VOID
    right = (found == labels)[valid].double().mean()
    assert score.pixel_accuracy == pytest.approx(100 * float(right))


def test_miou_by_hand() -> None:
    """Labels 0 0 1 1 and a void pixel, answers 0 1 1 1 2: IoU ½ and ⅔; class 2 does not occur."""
    labels, found = torch.tensor([[0, 0, 1, 1, VOID]]), torch.tensor([[0, 1, 1, 1, 2]])
    task = Segmentation(3)
    score = task.score(task.counts(found, labels).tolist())
    assert score.rows == ((1, 1, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0))
    assert score.ious == (1 / 2, 2 / 3, None)
    assert score.percent == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert score.pixel_accuracy == 75
    assert task.score([0] * task.counted).percent == 0


def test_a_class_that_is_only_answered_counts_and_no_answer_is_wrong() -> None:
    labels, found = torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 1, 2]])
    task = Segmentation(2)  # an answer of 2 is none
    score = task.score(task.counts(found, labels).tolist())
    assert score.ious == (2 / 4, 0 / 1)
    assert score.pixel_accuracy == 50


def test_counts_of_parts_add_up() -> None:
    found, labels = answers(5, count=6)
    task = Segmentation(CLASSES)
    parts = [task.counts(found[i::2], labels[i::2]) for i in range(2)]
    assert torch.equal(sum(parts), task.counts(found, labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_labelled_pixels(smoothing: float) -> None:
    _, labels = answers(0)
    logits = torch.randn(3, CLASSES, 5, 7, generator=torch.Generator().manual_seed(1))
    log = torch.log_softmax(logits.double(), 1)
    places = product(*map(range, labels.shape))
    losses = []
    for n, i, j in places:
        y = int(labels[n, i, j])
        if y != VOID:
            target = torch.full((CLASSES,), smoothing / CLASSES).double()
            target[y] += 1 - smoothing
            losses.append(float(-(target * log[n, :, i, j]).sum()))
    found = Objective(Segmentation(CLASSES), smoothing)(Outputs(logits), labels, torch.empty(0))
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_without_any_label_the_loss_is_zero_and_so_is_its_gradient() -> None:
    logits = torch.randn(2, CLASSES, 3, 3, requires_grad=True)
    labels = torch.full((2, 3, 3), VOID)
    loss = Objective(Segmentation(CLASSES))(Outputs(logits), labels, torch.empty(0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


class Two(Processes):
    """Rank 0 of two; the other's numbers are known."""

    other: float = 0.0

    def sum(self, values: Tensor) -> Tensor:
        return values + self.other


def test_the_mean_of_ranks_is_the_mean_over_all_pixels() -> None:
    """Two halves of a batch with other numbers of labelled pixels."""
    _, labels = answers(3, count=4)
    labels[:2, :3] = VOID
    logits = torch.randn(4, CLASSES, 5, 7)
    task = Segmentation(CLASSES)
    halves = []
    for part, rest in ((slice(0, 2), slice(2, 4)), (slice(2, 4), slice(0, 2))):
        processes = Two(0, 2)
        object.__setattr__(processes, "other", int((labels[rest] != VOID).sum()))
        halves.append(task.cross_entropy(logits[part], labels[part], 0.0, processes))
    whole = F.cross_entropy(logits, labels, ignore_index=VOID)
    assert float(sum(halves)) / 2 == pytest.approx(float(whole), rel=1e-6)


def test_a_teacher_teaches_every_labelled_pixel() -> None:
    _, labels = answers(0)
    teacher = nn.Conv2d(1, CLASSES, 1).eval()
    images, logits = torch.randn(3, 1, 5, 7), torch.randn(3, CLASSES, 5, 7)
    objective = Objective(Segmentation(CLASSES), teacher=teacher, share=0.3, temperature=2.0)
    p, q = (torch.softmax(x.detach().double() / 2, 1) for x in (teacher(images), logits))
    divergence = (p * (p.log() - q.log())).sum(1)[labels != VOID].mean()
    hard = F.cross_entropy(logits, labels, ignore_index=VOID)
    expected = 0.7 * float(hard) + 0.3 * 4 * float(divergence)
    assert float(objective(Outputs(logits), labels, images)) == pytest.approx(expected, rel=1e-5)


def test_the_second_heads_loss_is_added_by_its_weight() -> None:
    _, labels = answers(0)
    one, two = torch.randn(3, CLASSES, 5, 7), torch.randn(3, CLASSES, 5, 7)
    recipe = segmentation_recipe(auxiliary=0.4)
    objective = make_objective(recipe.train, Segmentation(CLASSES), None)
    expected = sum(
        weight * F.cross_entropy(x, labels, ignore_index=VOID)
        for weight, x in ((1, one), (0.4, two))
    )
    found = objective(Outputs(one, two), labels, torch.empty(0))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    "outputs",
    [torch.zeros(2, CLASSES), torch.zeros(2, CLASSES, 4, 4), {"aux": torch.zeros(2, 4, 8, 8)}, 3],
)
def test_outputs_that_do_not_answer_every_pixel_are_refused(outputs: object) -> None:
    with pytest.raises(DataError, match="for every pixel"):
        Segmentation(CLASSES).read(outputs, torch.zeros(2, 1, 8, 8))


def test_what_else_a_network_returns_is_its_own_business() -> None:
    """Of a dict, only the logits of both heads are looked at."""
    out, aux = torch.zeros(2, 2, CLASSES, 8, 8)
    outputs = {"out": out, "aux": aux, "features": torch.zeros(2, 3)}
    found = Segmentation(CLASSES).read(outputs, torch.zeros(2, 1, 8, 8))
    assert found.logits is out
    assert found.auxiliary is aux
    with pytest.raises(DataError, match="for every pixel"):
        Segmentation(CLASSES).read({**outputs, "aux": None}, torch.zeros(2, 1, 8, 8))


# -- training --------------------------------------------------------------------------------------


def test_it_learns_and_its_metrics_are_named(tmp_path: Path) -> None:
    context = small_context(tmp_path, epochs=9)
    model = net()
    history = fit(model, Method(), context)
    last = history[-1]
    assert last["test_miou"] > 70 > history[0]["test_miou"]
    assert {"train_miou", "train_pixel_accuracy", "test_pixel_accuracy"} <= last.keys()
    assert "test_accuracy" not in last
    images, labels = next(iter(context.data.test_batches(10)))
    with torch.no_grad():
        found = model.eval()(images).argmax(1)
    assert last["test_miou"] == pytest.approx(brute_miou(found, labels, 3))
    assert "mIoU" in json.dumps(context.progress.notes)  # type: ignore[attr-defined]


def test_miou_decides_when_to_stop(tmp_path: Path) -> None:
    context = small_context(tmp_path, epochs=9, stop={"miou": 60})
    history = fit(net(), Method(), context)
    assert history[-1]["test_miou"] >= 60 > history[-2]["test_miou"]
    assert len(history) < 9
    assert "train.stop.miou = 60" in context.progress.notes[-1]  # type: ignore[attr-defined]


class Stopping(Method):
    def after_step(self, moment: Moment) -> None:
        if moment.number == 5:
            raise KeyboardInterrupt


def test_a_resumed_training_ends_with_the_same_bits_and_metrics(tmp_path: Path) -> None:
    whole, cut, resumed = net(), net(), net()
    options: dict[str, Any] = {"checkpoint_minutes": 1e-9}
    expected = fit(whole, Method(), small_context(tmp_path / "whole", **options))
    with pytest.raises(KeyboardInterrupt):
        fit(cut, Stopping(), small_context(tmp_path / "cut", **options))
    found = fit(resumed, Method(), small_context(tmp_path / "cut", resume=True, **options))
    assert found[0]["epoch"] == 1
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
    for key in ("loss", "train_miou", "train_pixel_accuracy", "test_miou"):
        assert [line[key] for line in found] == [line[key] for line in expected]


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path: Path) -> None:
    """Their parts of a batch have other numbers of labelled pixels: the mean is over all."""
    answer = torchrun(segment, tmp_path / "two")
    assert answer.returncode == 0, answer.stderr
    context = small_context(tmp_path / "one")
    model = without_dropout()
    expected = fit(model, Method(), context)[-1]
    found = json.loads((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for key in ("train_miou", "test_miou", "test_pixel_accuracy"):
        assert found[key] == pytest.approx(expected[key], abs=0.2), key
    weights = load_file(tmp_path / "two" / "final.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_evaluation_restores_the_mode_and_takes_dicts() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = torch.cat([1 - x, x], 1)
            return {"out": logits, "aux": -logits}

    model = Two().train()
    images, labels = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[0, 1]]])
    score = evaluate(model, [(images, labels)], Segmentation(2), CPU, Settings())
    assert score == Overlap(((1, 0, 0), (0, 1, 0)))
    assert model.training


# -- networks --------------------------------------------------------------------------------------


def spec_of(name: str, **given: Any) -> Any:
    from prunec.recipe import ModelSpec

    return ModelSpec(name=name, **given)


@pytest.mark.slow
def test_the_second_head_trains_and_is_gone_afterwards(tmp_path: Path) -> None:
    spec = spec_of("fcn_resnet50", options={"aux_loss": True})
    model = build_model(spec, 3, seed=0)
    head = build_auxiliary(spec, 3, seed=0)
    assert head is not None
    assert not [name for name in model.state_dict() if name.startswith("aux")]
    other = build_model(spec_of("fcn_resnet50"), 3, seed=0)
    assert build_auxiliary(spec_of("fcn_resnet50"), 3, seed=0) is None
    assert model.state_dict().keys() == other.state_dict().keys()

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.top = net(), nn.Conv2d(3, 3, 1)
            self.aux_classifier: nn.Module | None = None

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            middle = self.body(x)
            second = {"aux": self.aux_classifier(middle)} if self.aux_classifier else {}
            return {"out": self.top(middle), **second}

    torch.manual_seed(0)
    second = nn.Conv2d(3, 3, 1)
    before = second.weight.detach().clone()
    found = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        small, context = Small(), small_context(tmp_path / str(weight), auxiliary=weight)
        object.__setattr__(context, "auxiliary", second)
        fit(small, Method(), context)
        assert small.aux_classifier is None
        found[weight] = small.body.state_dict()
    assert torch.equal(second.weight, before)  # each training begins with the same one
    assert not torch.equal(found[0.0]["0.weight"], found[0.5]["0.weight"])


def test_a_backbone_starts_with_the_classifiers_weights(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    classifier = mobilenet_v2(width_mult=0.25)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    spec = spec_of(
        "prunec.models.deeplab_mobilenet_v2:deeplabv3_mobilenet_v2",
        options={"width_mult": 0.25, "head_channels": 8},
        backbone_weights=str(tmp_path / "classifier.pth"),
    )
    model = build_model(spec, 5, seed=0)
    given = classifier.state_dict()
    backbone = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    assert len(backbone) > 100
    for name, value in backbone.items():
        assert torch.equal(value, given[name.replace("backbone.", "features.")])
    wide = spec.model_copy(update={"options": {"width_mult": 0.5, "head_channels": 8}})
    with pytest.raises(DataError, match=r"model\.backbone_weights = .* do not fit the backbone"):
        build_model(wide, 5, seed=0)
    with pytest.raises(DataError, match="no module 'backbone'"):
        build_model(spec_of("mobilenet_v2", backbone_weights="resnet50:DEFAULT"), 5, seed=0)


@pytest.mark.parametrize(
    ("name", "extra", "missing"),
    [
        ("deeplabv3_resnet50", {"weights_backbone": "DEFAULT"}, "model.backbone_weights"),
        ("lraspp_mobilenet_v3_large", {"weights": "DEFAULT"}, "model.weights"),
    ],
)
def test_weights_are_no_option(name: str, extra: dict[str, str], missing: str) -> None:
    with pytest.raises(RecipeError) as refused:
        build_model(spec_of(name, options=extra), 5, seed=0)
    assert missing in refused.value.remedy


def test_unknown_backbones_are_told() -> None:
    spec = spec_of("lraspp_mobilenet_v3_large", backbone_weights="mobilenet_v9:DEFAULT")
    with pytest.raises(DataError, match=r"model\.backbone_weights") as refused:
        build_model(spec, 5, seed=0)
    assert "NETWORK:NAME" in refused.value.remedy


@pytest.mark.parametrize(("stride", "side"), [(8, 8), (16, 4), (32, 2)])
def test_strides_become_dilation(stride: int, side: int) -> None:
    """The output stride is what is asked for, and dilation leaves the pretrained kernels' reach."""
    from prunec.models.deeplab_mobilenet_v2 import deeplabv3_mobilenet_v2

    model: Any = deeplabv3_mobilenet_v2(4, 0.25, stride, head_channels=8).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert model.backbone(images)["out"].shape[-2:] == (side, side)
        assert model(images)["out"].shape == (1, 4, 64, 64)
    plain: Any = deeplabv3_mobilenet_v2(4, 0.25, 32, head_channels=8).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():  # every other place of the dilated network is the plain one's
        step = side // 2
        found, expected = model.backbone(images)["out"], plain.backbone(images)["out"]
    torch.testing.assert_close(found[..., ::step, ::step], expected, rtol=1e-4, atol=1e-5)


# -- recipes ---------------------------------------------------------------------------------------

TEXT = """
name = "x"
model = {{ name = "x:y" }}
data = {{ name = "{data}" }}
pass = [{{ name = "train-dense" }}]
[train]
epochs = 3
{line}
"""


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        ("voc-segmentation", "mixup = 0.2", "masks"),
        ("embedded-segmentation", "cutmix = 1.0", "masks"),
        ("voc-segmentation", "stop = { accuracy = 90.0 }", "must be train.stop.miou"),
        ("voc-segmentation", "[verify.budget]\naccuracy = 90.0", "must be verify.budget.miou"),
        ("embedded", "[verify.budget]\nmiou = 50.0", "must be verify.budget.accuracy"),
    ],
)
def test_a_recipe_asks_for_what_its_data_have(data: str, line: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        loads(TEXT.format(data=data, line=line))
    assert said in refused.value.message


def test_a_recipe_with_the_right_keys_is_taken() -> None:
    recipe = loads(TEXT.format(data="voc-segmentation", line="stop = { miou = 70.0 }"))
    assert recipe.train.stop.miou == 70
    assert math.isclose(recipe.train.auxiliary, 0.5)


def test_one_image_is_too_few_for_deeplabs_mean(tmp_path: Path) -> None:
    from prunec.models.deeplab_resnet_cifar import deeplabv3_resnet8

    context = small_context(tmp_path, batch_size=1)
    with pytest.raises(DataError, match="one value a channel") as refused:
        fit(deeplabv3_resnet8(3, in_channels=1, head_channels=8), Method(), context)
    assert "train.batch_size" in refused.value.remedy
