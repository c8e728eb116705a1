"""The loop: resumed is uninterrupted bit for bit, divergence keeps the last state."""

from __future__ import annotations

import dataclasses
import itertools
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import (
    CPU,
    Stopped,
    small_context,
    small_data,
    small_net,
    small_recipe,
    stopping_after,
)
from torch import Tensor, nn

from prunec.errors import DataError, Diverged, Interrupted
from prunec.store.metrics import read_metrics
from prunec.tasks.task import Accuracy, Classification
from prunec.training.evaluation import Evaluation, evaluate
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.optimisation import make_optimizer
from prunec.training.schedule import learning_rate
from prunec.training.settings import Settings


class Counter(Method):
    """A method with state of its own that random numbers and every step go into."""

    def __init__(self) -> None:
        self.total = torch.zeros(3)

    def after_step(self, moment: Moment) -> None:
        self.total += torch.rand(3) * moment.learning_rate

    def after_epoch(self, moment: Moment) -> dict[str, float]:
        return {"total": float(self.total.sum())}

    def tensors(self) -> dict[str, Tensor]:
        return {"total": self.total}

    def load_tensors(self, tensors: Any) -> None:
        self.total = tensors["total"].clone()


class Stopping(Counter):
    """Raises in the middle of the third epoch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def before_forward(self, moment: Moment) -> None:
        if moment.epoch == 2 and moment.step == 3:
            raise self.error


class Asking(Method):
    """Is asked to stop at the end of the fifth epoch."""

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        if moment.epoch == 4:
            signal.raise_signal(signal.SIGTERM)
        return {}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in history]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [line.said or {} for line in read_metrics(folder / "metrics.jsonl", "") if line.fits]


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    history = fit(small_net(), Method(), small_context(tmp_path))
    assert history[-1]["test_accuracy"] > 90
    assert history[-1]["loss"] < history[0]["loss"]
    assert metrics_of(tmp_path) == history


@pytest.mark.parametrize("channels_last", [True, False])
def test_resumed_is_bit_identical_to_uninterrupted(tmp_path: Path, channels_last: bool) -> None:
    settings = {
        "channels_last": channels_last,
        "optimizer": {"name": "SGD", "momentum": 0.9, "nesterov": True},
        "warmup_epochs": 1.0,
    }
    whole, straight = small_net(), Counter()
    expected = fit(whole, straight, small_context(tmp_path / "whole", **settings))

    with pytest.raises(KeyboardInterrupt):
        fit(
            small_net(),
            Stopping(KeyboardInterrupt()),
            small_context(tmp_path / "cut", **settings),
        )
    resumed, method = small_net(), Counter()
    torch.rand(7)  # the caller's random numbers must not matter
    history = fit(resumed, method, small_context(tmp_path / "cut", resume=True, **settings))

    assert same(whole, resumed)
    assert torch.equal(straight.total, method.total)
    assert without_times(history) == without_times(expected)
    assert [line["epoch"] for line in metrics_of(tmp_path / "cut")] == [1, 2, 3, 4]


def folders(folder: Path) -> set[str]:
    return {place.name for place in (folder / "checkpoint").iterdir()} - {"best"}


@pytest.mark.parametrize("way", ["killed", "asked"])
def test_a_training_with_few_checkpoints_resumes_bit_for_bit(way: str, tmp_path: Path) -> None:
    """After every third epoch and the last; one more where a signal asks to stop."""
    settings = {"epochs": 7, "checkpoint_epochs": 3, "keep": 9}
    whole = small_net()
    expected = fit(whole, Method(), small_context(tmp_path / "whole", **settings))
    assert folders(tmp_path / "whole") == {"epoch-003", "epoch-006", "epoch-007"}
    cut = tmp_path / "cut"
    if way == "killed":
        with pytest.raises(Stopped):
            fit(small_net(), Method(), stopping_after(small_context(cut, **settings), 5))
        assert folders(cut) == {"epoch-003"}
    else:
        with pytest.raises(Interrupted, match="after epoch 5"):
            fit(small_net(), Asking(), small_context(cut, **settings))
        assert folders(cut) == {"epoch-003", "epoch-005"}
    assert [line["epoch"] for line in metrics_of(cut)] == [1, 2, 3, 4, 5]
    resumed = small_net()
    history = fit(resumed, Method(), small_context(cut, resume=True, **settings))
    assert same(whole, resumed)
    assert without_times(history) == without_times(expected)
    assert [line["epoch"] for line in metrics_of(cut)] == [1, 2, 3, 4, 5, 6, 7]


def test_the_best_epoch_has_its_checkpoint(tmp_path: Path) -> None:
    context = small_context(tmp_path, epochs=6, checkpoint_epochs=9, ship="best")
    fit(small_net(), Method(), context)
    assert not [note for note in context.progress.notes if "lost" in note]  # type: ignore[attr-defined]
    assert [note for note in context.progress.notes if "best weights" in note]  # type: ignore[attr-defined]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    nets = []
    for seed in (0, 0, 1):
        context = small_context(tmp_path / str(len(nets)), epochs=1)
        recipe = context.recipe.model_copy(update={"seed": seed})
        nets.append(small_net())
        fit(nets[-1], Method(), dataclasses.replace(context, recipe=recipe))
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


def test_the_callers_generator_and_threads_are_left_alone(tmp_path: Path) -> None:
    net, before = small_net(), torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(net, Method(), small_context(tmp_path, epochs=1, threads=before + 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == before


def test_a_fresh_training_forgets_the_checkpoints_of_an_older_one(tmp_path: Path) -> None:
    fit(small_net(), Counter(), small_context(tmp_path))
    fresh, again = small_net(), small_net()
    fit(fresh, Counter(), small_context(tmp_path, epochs=1))
    assert [line["epoch"] for line in metrics_of(tmp_path)] == [1]
    assert sorted(p.name for p in (tmp_path / "checkpoint").glob("epoch*")) == ["epoch-001"]
    fit(again, Counter(), small_context(tmp_path, epochs=1, resume=True))
    assert same(fresh, again)  # all epochs were done: the state is only restored


def test_metrics_of_other_passes_stay(tmp_path: Path) -> None:
    fit(small_net(), Method(), small_context(tmp_path, epochs=2))
    other = small_context(tmp_path, epochs=1, resume=True)
    fit(small_net(), Counter(), dataclasses.replace(other, pass_name="count"))
    assert [(line["pass"], line["epoch"]) for line in metrics_of(tmp_path)] == [
        ("train-dense", 1),
        ("train-dense", 2),
        ("count", 1),
    ]


def test_divergence_names_the_cause_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    class Breaking(Method):
        def __init__(self, net: nn.Module) -> None:
            self.weight = next(net.parameters())

        def after_step(self, moment: Moment) -> None:
            if moment.epoch == 1 and moment.step == 2:
                self.weight.data[0] = math.nan

    net = small_net()
    with pytest.raises(Diverged) as caught:
        fit(net, Breaking(net), small_context(tmp_path))
    assert "the loss became nan in epoch 2" in caught.value.message
    assert "learning rate 0.0" in caught.value.message
    assert "after epoch 1 is kept" in caught.value.remedy
    assert "train.learning_rate" in caught.value.remedy
    assert [line["epoch"] for line in metrics_of(tmp_path)] == [1]
    restored = small_net()
    with pytest.raises(Diverged):
        fit(restored, Breaking(restored), small_context(tmp_path, resume=True))


def test_weights_that_break_in_the_last_step_are_not_saved(tmp_path: Path) -> None:
    class BreakingLast(Method):
        def __init__(self, net: nn.Module) -> None:
            self.weight = next(net.parameters())

        def after_step(self, moment: Moment) -> None:
            if moment.epoch == 1 and moment.step == moment.steps_per_epoch - 1:
                self.weight.data[0] = math.inf

    net = small_net()
    with pytest.raises(Diverged, match="a weight left the finite numbers in epoch 2"):
        fit(net, BreakingLast(net), small_context(tmp_path))
    assert [p.name for p in (tmp_path / "checkpoint").glob("epoch*")] == ["epoch-001"]


def test_hooks_come_in_their_order_with_the_right_moments(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Spy(Method):
        def __init__(self, net: nn.Module) -> None:
            self.weight = next(net.parameters())

        def before_forward(self, moment: Moment) -> None:
            assert self.weight.grad is None
            self.before = self.weight.detach().clone()
            seen.append(("before", moment.progress))

        def gradient(self, moment: Moment) -> None:
            assert self.weight.grad is not None
            assert torch.equal(self.weight, self.before)
            self.weight.grad.zero_()  # in place: the first step must then leave the weight
            seen.append(("gradient", moment.progress))

        def after_step(self, moment: Moment) -> None:
            decay = 5e-4 * moment.learning_rate
            if moment.progress == 0:
                torch.testing.assert_close(self.weight, self.before * (1 - decay))
            seen.append(("after", moment.progress))

        def after_epoch(self, moment: Moment) -> dict[str, float]:
            seen.append(("epoch", moment.progress))
            return {"extra": 7.0}

        @contextmanager
        def shipping(self) -> Iterator[None]:
            seen.append(("shipping", None))
            yield
            seen.append(("shipped", None))

    net = small_net()
    history = fit(net, Spy(net), small_context(tmp_path, epochs=1, batch_size=48))
    step = ("before", "gradient", "after")
    assert seen == [
        *((hook, 0.0) for hook in step),
        *((hook, 0.5) for hook in step),
        ("epoch", 1.0),
        ("shipping", None),
        ("shipped", None),
    ]
    assert history[0]["extra"] == 7.0


def test_the_test_accuracy_is_that_of_the_shipping_weights(tmp_path: Path) -> None:
    class Negated(Method):
        def __init__(self, net: nn.Module) -> None:
            self.last = net[-1]  # type: ignore[index]

        @contextmanager
        def shipping(self) -> Iterator[None]:
            self.last.weight.data.neg_()
            yield
            self.last.weight.data.neg_()

    net = small_net()
    history = fit(net, Negated(net), small_context(tmp_path))
    assert history[-1]["train_accuracy"] > 90
    assert history[-1]["test_accuracy"] < 30


def test_the_rate_rises_linearly_then_falls_as_a_cosine_to_zero() -> None:
    train = small_recipe(epochs=10, learning_rate=0.4, warmup_epochs=2.0).train
    rates = [learning_rate(train, step, 5) for step in range(51)]
    assert rates[:10] == pytest.approx([0.04 * (k + 1) for k in range(10)])
    assert rates[10] == pytest.approx(0.4)
    assert rates[30] == pytest.approx(0.2)
    assert rates[50] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_only_kernels_decay() -> None:
    net = small_net()
    groups = make_optimizer(net, small_recipe().train).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(net.named_parameters())
    assert {name: decays[id(p)] for name, p in named.items()} == {
        "0.weight": 5e-4,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "5.weight": 5e-4,
        "5.bias": 0.0,
    }


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), r"\(16, 5\), the data has 3"),
        (lambda: nn.Conv2d(1, 3, 1), r"\(16, 3, 8, 8\), the data has 3 classes"),
        (lambda: nn.MultiheadAttention(8, 1), "returns tuple"),
    ],
)
def test_outputs_that_do_not_fit_the_classes_are_refused(
    tmp_path: Path, net: Callable[[], nn.Module], message: str
) -> None:
    model = net()
    if isinstance(model, nn.MultiheadAttention):
        model.forward = lambda x: (x, x)  # type: ignore[method-assign,assignment]
    with pytest.raises(DataError, match=message):
        fit(model, Method(), small_context(tmp_path))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_learns_too(tmp_path: Path, precision: str) -> None:
    history = fit(small_net(), Method(), small_context(tmp_path, precision=precision))
    assert history[-1]["test_accuracy"] > 90


def test_a_resumed_fp16_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, resumed = small_net(), small_net()
    fit(whole, Counter(), small_context(tmp_path / "whole", precision="fp16"))
    with pytest.raises(KeyboardInterrupt):
        fit(
            small_net(),
            Stopping(KeyboardInterrupt()),
            small_context(tmp_path / "cut", precision="fp16"),
        )
    fit(resumed, Counter(), small_context(tmp_path / "cut", precision="fp16", resume=True))
    assert same(whole, resumed)


def test_evaluate_counts_and_restores_the_mode() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(2))
    images = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1], [3, 2]]).view(5, 2, 1, 1)
    labels = torch.tensor([0, 1, 1, 1, 0])
    net.train()
    batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    actual = evaluate(net, batches, Classification(2), CPU, Settings(channels_last=True))
    assert actual == Evaluation(Accuracy(4, 5), ((2, 2), (3, 2)))
    assert Accuracy(4, 5).percent == 80
    assert net.training


def test_steps_drop_an_incomplete_batch_unless_it_is_the_only_one() -> None:
    data = small_data(train=50)
    assert [len(labels) for _, labels in data.train_batches(0, 16)] == [16, 16, 16]
    assert [len(labels) for _, labels in data.train_batches(0, 64)] == [50]
    assert [len(labels) for _, labels in data.test_batches(16)] == [16, 14]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_learns_on_cuda(tmp_path: Path, precision: str) -> None:
    context = small_context(tmp_path, precision=precision)
    context = dataclasses.replace(context, device=torch.device("cuda"))
    assert fit(small_net(), Counter(), context)[-1]["test_accuracy"] > 90
