"""Optimizers, schedules, averages and objectives: against torch's own, formulas and brute force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_training import small_context, small_net, small_recipe
from torch import Tensor, nn
from torch.optim import lr_scheduler

from prunec.errors import DataError, RecipeError
from prunec.tasks.task import Classification, Outputs
from prunec.training.averaging import Average
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective, make_objective
from prunec.training.optimisation import begin_momentum, make_optimizer
from prunec.training.schedule import learning_rate

STEPS, EPOCHS = 7, 10
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "SGD"},
    {"name": "SGD", "momentum": 0.9, "nesterov": True},
    {"name": "AdamW", "betas": [0.8, 0.99], "amsgrad": True},
    {"name": "RMSprop", "momentum": 0.5, "centered": True},
    {"name": "NAdam"},
    {"name": "Adagrad"},
]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


class Steep(nn.Module):
    """Logits whose gradients overflow half precision while the loss's scale is large."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x) * 30
        return result


class Skipping(Method):
    """Knows whether the first step was one that gradients allowed."""

    first = True

    def after_step(self, moment: Moment) -> None:
        self.first = self.first and moment.number > 0


class StopAt(Method):
    """Ctrl-C, as it were, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, moment: Moment) -> None:
        if moment.number == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_optimizer_resumes_bit_for_bit(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 0.01, "clip_norm": 1.0, "ema": 0.9}
    whole, resumed = small_net(), small_net()
    fit(whole, Method(), small_context(tmp_path / "whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        fit(small_net(), StopAt(15), small_context(tmp_path / "cut", **settings))
    fit(resumed, Method(), small_context(tmp_path / "cut", resume=True, **settings))
    assert same(whole, resumed)


@pytest.fixture
def _unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_unwritten_memory_is_nan")
@pytest.mark.parametrize("optimizer", [{"name": "SGD", "momentum": 0.9}, {"name": "AdamW"}])
def test_a_fused_optimizer_survives_a_first_step_that_overflows(
    tmp_path: Path, optimizer: dict[str, Any]
) -> None:
    """The loss's first scale of 65,536 overflows half precision wherever the loss is steep."""
    steep, method = Steep(), Skipping()
    settings = {"precision": "fp16", "learning_rate": 1e-4}
    context = small_context(tmp_path, optimizer={**optimizer, "fused": True}, **settings)
    fit(steep, method, context)
    assert method.first
    assert all(parameter.isfinite().all() for parameter in steep.parameters())


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_fused_optimizer_takes_parameters_that_learn_later(nesterov: bool) -> None:
    """As on a GPU, whose optimizers are fused: units of DyReLU that act as it begins to fade."""
    ends = []
    for way in ("fused", "foreach"):
        values = [nn.Parameter(torch.arange(1.0, 4.0)) for _ in range(2)]
        optimizer = torch.optim.SGD(
            values, lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.1, **{way: True}
        )
        for step in range(5):
            optimizer.zero_grad()
            for value in values if step > 1 else values[:1]:
                value.grad = value.detach() * (step + 1)
            begin_momentum(optimizer)
            optimizer.step()
        ends.append(torch.stack([v.detach() for v in values]))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("optimizer", "message", "remedy"),
    [
        ({"name": "SDG"}, "'SDG' is not an optimizer of torch.optim", "Did you mean 'SGD'?"),
        ({"name": "SGD", "momentun": 0.9}, "momentun is no argument of SGD", "'momentum'"),
        ({"name": "SGD", "momentum": -1.0}, "SGD refuses its arguments", "documentation"),
        ({"name": "SGD", "nesterov": True}, "Nesterov momentum requires", "documentation"),
    ],
)
def test_an_optimizer_that_is_none_is_reported(
    optimizer: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        make_optimizer(small_net(), small_recipe(optimizer=optimizer).train)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_groups_take_parameters_by_name_in_their_order() -> None:
    groups = (
        {"match": "5.*", "weight_decay": 0.125, "learning_rate": 0.5},
        {"match": "*.weight", "learning_rate": 2.0},
    )
    net = small_net()
    optimizer = make_optimizer(net, small_recipe(group=groups).train)
    actual = {
        name: (group["weight_decay"], group["rate"])
        for name, p in net.named_parameters()
        for group in optimizer.param_groups
        if any(p is q for q in group["params"])
    }
    assert actual == {
        "5.weight": (0.125, 0.5),
        "5.bias": (0.125, 0.5),
        "0.weight": (5e-4, 2.0),
        "1.weight": (5e-4, 2.0),
        "1.bias": (0.0, 1.0),
    }


def test_a_group_that_matches_nothing_is_reported() -> None:
    with pytest.raises(RecipeError, match=r"train\.group\[0\]\.match = '9\.\*' matches no"):
        make_optimizer(small_net(), small_recipe(group=({"match": "9.*"},)).train)


SCHEDULES: dict[str, tuple[dict[str, Any], Any]] = {
    "cosine": (
        {"name": "cosine", "end": 0.25, "per": "epoch"},
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.25 * 0.4),
    ),
    "linear": (
        {"name": "linear", "end": 0.5, "per": "epoch"},
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.5, EPOCHS),
    ),
    "multistep": (
        {"name": "multistep", "milestones": (0.3, 0.6), "factor": 0.3, "per": "epoch"},
        lambda o: lr_scheduler.MultiStepLR(o, [3, 6], gamma=0.3),
    ),
    "exponential": (
        {"name": "exponential", "factor": 0.7, "per": "epoch"},
        lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    ),
    "exponential to its end": (
        {"name": "exponential", "end": 0.7**EPOCHS, "per": "epoch"},
        lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    ),
    "constant": (
        {"name": "constant"},
        lambda o: lr_scheduler.ConstantLR(o, 1.0),
    ),
}


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_per_epoch_are_torchs(name: str) -> None:
    schedule, scheduler_for = SCHEDULES[name]
    train = small_recipe(epochs=EPOCHS, learning_rate=0.4, schedule=schedule).train
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = scheduler_for(optimizer)
    for epoch in range(EPOCHS):
        rates = {learning_rate(train, epoch * STEPS + step, STEPS) for step in range(STEPS)}
        assert len(rates) == 1
        assert rates.pop() == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        scheduler.step()


def test_a_schedule_per_step_passes_through_the_one_per_epoch() -> None:
    for name in ("cosine", "linear", "exponential"):
        by_step, by_epoch = (
            small_recipe(epochs=EPOCHS, schedule={"name": name, "per": per}).train
            for per in ("step", "epoch")
        )
        for step in range(0, EPOCHS * STEPS, STEPS):
            expected = learning_rate(by_epoch, step, STEPS)
            assert learning_rate(by_step, step, STEPS) == pytest.approx(expected)
        assert learning_rate(by_step, 3, STEPS) != learning_rate(by_epoch, 3, STEPS)


def test_a_schedule_per_epoch_warms_up_by_epochs() -> None:
    """base·(e + 1)/W, and what is left of an epoch in which the warm-up ends has the base rate."""
    train = small_recipe(
        epochs=EPOCHS, learning_rate=0.4, warmup_epochs=2.5, schedule={"per": "epoch"}
    ).train
    rates = [learning_rate(train, step, 4) for step in range(16)]
    assert rates == pytest.approx([0.16] * 4 + [0.32] * 4 + [0.4] * 4 + [rates[-1]] * 4)
    assert rates[-1] < 0.4


def test_the_average_is_the_recursion() -> None:
    net = small_net()
    average, values = Average(net, 0.75), [net[0].weight.detach().clone()]  # type: ignore[index]
    expected = values[0].double()
    for step in range(30):
        with torch.no_grad():
            net[0].weight.add_(torch.randn_like(values[0]))  # type: ignore[index]
        average.update(step)
        decay = min(0.75, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * net[0].weight.detach().double()  # type: ignore[index]
    torch.testing.assert_close(average.values["0.weight"].double(), expected, rtol=1e-5, atol=1e-6)
    assert "1.num_batches_tracked" not in average.values
    raw = net[0].weight.detach().clone()  # type: ignore[index]
    with average.shipping():
        assert torch.equal(net[0].weight, average.values["0.weight"]) is False  # type: ignore[index]
        torch.testing.assert_close(net[0].weight.double(), expected, rtol=1e-5, atol=1e-6)  # type: ignore[index]
    assert torch.equal(net[0].weight, raw)  # type: ignore[index]


def test_the_average_ships_and_is_what_was_evaluated(tmp_path: Path) -> None:
    plain, averaged = small_net(), small_net()
    fit(plain, Method(), small_context(tmp_path / "a"))
    history = fit(averaged, Method(), small_context(tmp_path / "b", ema=0.99))
    assert not same(plain, averaged)
    data = small_context(tmp_path).data
    images, labels = next(data.test_batches(64))
    with torch.no_grad():
        right = (averaged.eval()(images).argmax(1) == labels).double().mean()
    assert 100 * float(right) == pytest.approx(history[-1]["test_accuracy"])


def test_the_teachers_term_is_hintons() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    images, labels, logits = (
        torch.randn(5, 1, 2, 2),
        torch.tensor([0, 1, 2, 0, 1]),
        torch.randn(5, 3),
    )
    objective = Objective(Classification(3), 0.1, None, teacher, share=0.3, temperature=2.5)
    actual = objective(Outputs(logits), labels, images)
    p, q = (torch.softmax(x.detach().double() / 2.5, 1) for x in (teacher(images), logits))
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    hard = F.cross_entropy(logits.double(), labels, label_smoothing=0.1)
    assert float(actual) == pytest.approx(float(0.7 * hard + 0.3 * 2.5**2 * divergence), rel=1e-5)


def mixed_labels(**train: float) -> Tensor:
    torch.manual_seed(0)
    objective = make_objective(small_recipe(**train).train, Classification(3), None)
    images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed, targets = objective.mixed(images, labels)
    assert mixed.shape == images.shape
    assert not torch.equal(mixed, images)
    return targets


@pytest.mark.parametrize("train", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_labels_are_shares_of_two_classes(train: dict[str, float], tmp_path: Path) -> None:
    targets = mixed_labels(**train)
    assert targets.shape == (6, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    assert int((targets > 0).sum(1).max()) == 2
    history = fit(small_net(), Method(), small_context(tmp_path, epochs=6, **train))
    assert history[-1]["test_accuracy"] > 80


def test_a_classifier_with_several_outputs_is_told_what_to_return() -> None:
    with pytest.raises(DataError, match="returns tuple in training") as error:
        Classification(3).read((torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 1, 8, 8))
    assert "a network of your own return one tensor (N, 3)" in error.value.remedy


def test_clipping_bounds_what_steps(tmp_path: Path) -> None:
    norms: list[float] = []

    class Spy(Method):
        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def after_step(self, moment: Moment) -> None:
            grads = [p.grad for p in self.net.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))

    for limit in (0.0, 0.01):
        net = small_net()
        fit(net, Spy(net), small_context(tmp_path / str(limit), epochs=1, clip_norm=limit))
    assert max(norms[:6]) > 0.02
    assert max(norms[6:]) <= 0.01 * 1.001
