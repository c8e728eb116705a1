"""Segmentation: mIoU and loss against brute force, outputs that are read."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from fake_voc import VOID
from mask_answers import CLASSES, answers, brute_miou
from small_segmentation import segmentation_recipe
from torch import Tensor, nn

from prunec.errors import DataError
from prunec.processes import Processes
from prunec.tasks.segmentation import Segmentation
from prunec.tasks.task import Outputs
from prunec.training.objective import Objective, make_objective


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 4, 21])
def test_miou_is_that_of_sets_of_pixels(seed: int, classes: int) -> None:
    actual, labels = answers(seed, classes)
    task = Segmentation(classes)
    score = task.score(task.counts(actual, labels).tolist())
    assert score.percent == pytest.approx(brute_miou(actual, labels, classes))
    valid = labels != VOID
    right = (actual == labels)[valid].double().mean()
    assert score.pixel_accuracy == pytest.approx(100 * float(right))


def test_miou_by_hand() -> None:
    """Labels 0 0 1 1 and a void pixel, answers 0 1 1 1 2: IoU ½ and ⅔; class 2 does not occur."""
    labels, actual = torch.tensor([[0, 0, 1, 1, VOID]]), torch.tensor([[0, 1, 1, 1, 2]])
    task = Segmentation(3)
    score = task.score(task.counts(actual, labels).tolist())
    assert score.rows == ((1, 1, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0))
    assert score.ious == (1 / 2, 2 / 3, None)
    assert score.percent == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert score.pixel_accuracy == 75
    assert task.score([0] * task.counted).percent == 0


def test_a_class_that_is_only_answered_counts_and_no_answer_is_wrong() -> None:
    labels, actual = torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 1, 2]])
    task = Segmentation(2)  # an answer of 2 is none
    score = task.score(task.counts(actual, labels).tolist())
    assert score.ious == (2 / 4, 0 / 1)
    assert score.pixel_accuracy == 50


def test_counts_of_parts_add_up() -> None:
    actual, labels = answers(5, count=6)
    task = Segmentation(CLASSES)
    parts = [task.counts(actual[i::2], labels[i::2]) for i in range(2)]
    assert torch.equal(sum(parts), task.counts(actual, labels))


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
    actual = Objective(Segmentation(CLASSES), smoothing)(Outputs(logits), labels, torch.empty(0))
    assert float(actual) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


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
    actual = objective(Outputs(one, two), labels, torch.empty(0))
    assert float(actual) == pytest.approx(float(expected), rel=1e-6)


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
    actual = Segmentation(CLASSES).read(outputs, torch.zeros(2, 1, 8, 8))
    assert actual.logits is out
    assert actual.auxiliary is aux
    with pytest.raises(DataError, match="for every pixel"):
        Segmentation(CLASSES).read({**outputs, "aux": None}, torch.zeros(2, 1, 8, 8))
