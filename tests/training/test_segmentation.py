"""Trainings for segmentation: metrics, second head, resumed, on two processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_answers import brute_miou
from safetensors.torch import load_file
from segmentation_worker import segment
from small_segmentation import net, small_context, without_dropout
from small_training import CPU
from torch import Tensor, nn
from torchrun import torchrun

from prunec.errors import DataError
from prunec.models.building import build_auxiliary, build_model
from prunec.recipe import ModelSpec
from prunec.tasks.segmentation import Overlap, Segmentation
from prunec.training.evaluation import evaluate
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.settings import Settings


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
        actual = model.eval()(images).argmax(1)
    assert last["test_miou"] == pytest.approx(brute_miou(actual, labels, 3))
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
    actual = fit(resumed, Method(), small_context(tmp_path / "cut", resume=True, **options))
    assert actual[0]["epoch"] == 1
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
    for key in ("loss", "train_miou", "train_pixel_accuracy", "test_miou"):
        assert [line[key] for line in actual] == [line[key] for line in expected]


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path: Path) -> None:
    """Their parts of a batch have other numbers of labelled pixels: the mean is over all."""
    answer = torchrun(segment, tmp_path / "two")
    assert answer.returncode == 0, answer.stderr
    context = small_context(tmp_path / "one")
    model = without_dropout()
    expected = fit(model, Method(), context)[-1]
    content = json.loads((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[-1])
    assert content["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for key in ("train_miou", "test_miou", "test_pixel_accuracy"):
        assert content[key] == pytest.approx(expected[key], abs=0.2), key
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
    score = evaluate(model, [(images, labels)], Segmentation(2), CPU, Settings()).score
    assert score == Overlap(((1, 0, 0), (0, 1, 0)))
    assert model.training


@pytest.mark.slow
def test_the_second_head_trains_and_is_gone_afterwards(tmp_path: Path) -> None:
    spec = ModelSpec(name="fcn_resnet50", options={"aux_loss": True})
    model = build_model(spec, 3, seed=0)
    head = build_auxiliary(spec, 3, seed=0)
    assert head is not None
    assert not [name for name in model.state_dict() if name.startswith("aux")]
    other = build_model(ModelSpec(name="fcn_resnet50"), 3, seed=0)
    assert build_auxiliary(ModelSpec(name="fcn_resnet50"), 3, seed=0) is None
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
    collected = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        small, context = Small(), small_context(tmp_path / str(weight), auxiliary=weight)
        object.__setattr__(context, "auxiliary", second)
        fit(small, Method(), context)
        assert small.aux_classifier is None
        collected[weight] = small.body.state_dict()
    assert torch.equal(second.weight, before)  # each training begins with the same one
    assert not torch.equal(collected[0.0]["0.weight"], collected[0.5]["0.weight"])


def test_one_image_is_too_few_for_deeplabs_mean(tmp_path: Path) -> None:
    from prunec.models.deeplab_resnet_cifar import deeplabv3_resnet8

    context = small_context(tmp_path, batch_size=1)
    with pytest.raises(DataError, match="one value a channel") as refused:
        fit(deeplabv3_resnet8(3, in_channels=1, head_channels=8), Method(), context)
    assert "train.batch_size" in refused.value.remedy
