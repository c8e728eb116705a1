"""Recorded steps learn what computed ones do; what a recording cannot see is noticed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from every_method import SHIPPED, artifact
from sampling import slow_but
from small_training import Stopped, small_context, small_net, stopping_after
from tape import Tape
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from prunec.artifact import Artifact
from prunec.sparsity.dyrelu import Phasing
from prunec.sparsity.flat import Flat
from prunec.tasks.task import Classification
from prunec.training import capture, pace
from prunec.training.averaging import Average
from prunec.training.capture import WARM, Capturing
from prunec.training.context import Context
from prunec.training.held_state import HeldState
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import make_optimizer
from prunec.training.settings import Settings
from prunec.training.step import Stepper

FUSED = {"name": "SGD", "momentum": 0.9, "fused": True}  # on the CPU the one that reads a tensor


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """Record steps on the CPU, where methods work on all kernels at once as on a GPU."""
    own = Flat.__init__

    def together(self: Flat, given: Any, *, together: bool | None = None) -> None:
        own(self, given, together=True)

    tape = Tape()
    monkeypatch.setattr(Flat, "__init__", together)
    monkeypatch.setattr(capture, "backend_of", lambda device: tape)
    return tape


@dataclass
class Taken:
    """Steps of a small network, as the loop takes them."""

    net: nn.Module
    take: Stepper
    average: Average
    learn: Any
    told: list[str]
    batch: tuple[Tensor, Tensor]

    def steps(self, count: int, rate: float = 0.05, first: int = 0) -> list[float]:
        return [
            float(self.learn(*self.batch, Moment(0, first + i, 1000, 1, rate))[0])
            for i in range(count)
        ]


def taken(
    method: Method | None = None, *, recorded: bool = True, precision: str = "fp32",
    ema: float = 0.9, net: nn.Module | None = None, **train: Any,
) -> Taken:  # fmt: skip
    context = small_context(Path(), **{"optimizer": FUSED, **train})
    net = (net or small_net()).train()
    optimizer = make_optimizer(net, context.recipe.train)
    objective, settings = Objective(Classification(3)), Settings(precision, False, 1)
    method = method or Method()
    clip = context.recipe.train.clip_norm
    take = Stepper(net, net, optimizer, method, objective, settings, clip_norm=clip)
    average, told = Average(net, ema), []
    method.begin(optimizer, average.values)
    learn = (
        Capturing(take, average, Tape(), told.append) if recorded else capture.Steps(take, average)
    )
    batch = next(iter(context.data.train_batches(0, 16)))
    return Taken(net, take, average, learn, told, batch)


def values(one: Taken) -> dict[str, Tensor]:
    return dict(HeldState(one.take, one.average).before)


def agree(one: Taken, other: Taken, bound: float = 1e-5) -> None:
    assert not one.told
    for (key, a), (_, b) in zip(values(one).items(), values(other).items(), strict=True):
        torch.testing.assert_close(a, b, rtol=bound, atol=bound, msg=key)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_recorded_steps_learn_what_computed_ones_do(precision: str, clip: float) -> None:
    pair = [taken(recorded=r, precision=precision, clip_norm=clip) for r in (True, False)]
    torch.manual_seed(0)
    a = pair[0].steps(30)
    torch.manual_seed(0)
    b = pair[1].steps(30)
    bound = 1e-4 if precision == "fp32" else 2e-2
    assert a == pytest.approx(b, rel=bound)
    agree(*pair, bound=bound)
    learn = pair[0].learn
    assert (learn.backend.recorded, learn.replays) == (1, 30 - WARM)
    assert learn.backend.replayed == learn.replays + len(capture.RATES)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_optimizers_that_read_tensors_are_recorded(name: str) -> None:
    """Steps that Adam counts go on in replays; a rate that was a number would stay."""
    optimizer = {"name": name, "fused": True}
    pair = [taken(recorded=r, optimizer=optimizer) for r in (True, False)]
    losses = []
    for one in pair:
        torch.manual_seed(0)
        losses.append(one.steps(WARM + 2, rate=0.01) + one.steps(12, rate=0.002, first=WARM + 2))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert pair[0].learn.replays == 14
    agree(*pair, bound=1e-3)


def test_optimizers_that_read_numbers_are_computed() -> None:
    one = taken(optimizer={"name": "SGD", "momentum": 0.9, "foreach": True})
    one.steps(WARM + 2)
    assert one.learn.replays == 0
    assert len(one.told) == 1
    assert all(isinstance(group["lr"], float) for group in one.take.optimizer.param_groups)


def test_each_replay_draws_the_random_numbers_of_its_step() -> None:
    """Dropout in replays follows seeds that are set between them, as the loop sets them."""
    pair = [taken(recorded=r) for r in (True, False)]
    losses: list[list[float]] = [[], []]
    for one, own in zip(pair, losses, strict=True):
        for number in range(12):
            torch.manual_seed(number % 5)
            own += one.steps(1, rate=0.0, first=number)
    assert pair[0].learn.replays == 12 - WARM
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][5:10] != pytest.approx(losses[0][6:11], rel=1e-3)  # seeds differ


def test_losses_that_are_scaled_by_the_host_are_told() -> None:
    one = taken(precision="fp16")
    assert one.told == [
        "Steps are computed one operation after the other: the loss scaler of fp16 looks at every "
        'step; train.precision = "bf16" needs none.'
    ]


def test_a_learning_rate_that_changes_has_its_effect() -> None:
    one = taken()
    one.steps(WARM + 2)
    still = {k: v for k, v in values(one).items() if k.startswith("weights/")}
    one.steps(3, rate=0.0, first=WARM + 2)
    assert one.learn.replays == 5
    now = values(one)
    assert all(torch.equal(now[key], value) for key, value in still.items())
    one.steps(1, rate=0.1, first=WARM + 5)
    assert not all(torch.equal(values(one)[key], value) for key, value in still.items())


class Bakes(Method):
    """Pulls weights by a number of Python, which a recording keeps."""

    def __init__(self, net: nn.Module) -> None:
        self.own = list(net.parameters())

    def kind(self, moment: Moment) -> Any:
        return ()

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        torch._foreach_mul_(self.own, 1 - 5 * moment.learning_rate)


class Looks(Bakes):
    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        if float(self.own[0].sum()) > 1e9:
            raise AssertionError


class Fails(Bakes):
    """Cannot be recorded for another reason than CUDA's, as where a compiler is missing."""

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        if _get_current_dispatch_mode() is not None:
            raise AssertionError("no compiler")


class Silent(Method):
    """Does not say which of its steps are alike."""

    def gradient(self, moment: Moment) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Bakes, "replayed steps move the (average|weights) otherwise"),
        (Looks, "operation not permitted when stream is capturing"),
        (Fails, "no compiler"),
        (Silent, "Silent does not say which of its steps are alike"),
    ],
)
def test_what_a_recording_does_not_see_is_noticed_and_told_once(kind: Any, reason: str) -> None:
    nets = small_net(), small_net()
    make = [kind(net) if kind is not Silent else kind() for net in nets]
    one = taken(make[0], net=nets[0])
    other = taken(make[1], net=nets[1], recorded=False)
    torch.manual_seed(0)
    a = one.steps(12)
    torch.manual_seed(0)
    assert a == pytest.approx(other.steps(12), rel=1e-5)
    (told,) = one.told
    assert told.startswith("Steps are computed one operation after the other: ")
    assert one.learn.replays == 0
    import re

    assert re.search(reason, told)
    one.told.clear()
    agree(one, other)


def test_a_step_whose_state_does_not_fit_twice_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> HeldState:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(capture, "HeldState", full)
    one, other = taken(), taken(recorded=False)
    losses = []
    for each in (one, other):
        torch.manual_seed(0)
        losses.append(each.steps(8))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert one.told == ["Steps are computed one operation after the other: CUDA out of memory."]


def test_recording_and_its_proof_leave_everything_as_it_was() -> None:
    """Batch norms' statistics, momentum, averages, random numbers: as if nothing was tried."""
    one = taken()
    one.steps(WARM)
    before = values(one)
    random = torch.get_rng_state()
    inputs = one.take.given(*one.batch)
    one.learn._record((), inputs, Moment(0, WARM, 1000, 1, 0.05))
    assert list(one.learn.recordings) == [()]
    after = values(one)
    assert before.keys() == after.keys()
    assert any("running_mean" in key for key in before)
    assert any("momentum_buffer" in key for key in before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in one.net.parameters())


class Kinds(Method):
    """Steps of two kinds, in turns of ten."""

    def kind(self, moment: Moment) -> Any:
        return moment.number // 10 % 2


def test_a_second_recording_and_the_first_work_on_the_same_memory() -> None:
    pair = [taken(Kinds(), recorded=r) for r in (True, False)]
    for one in pair:
        torch.manual_seed(0)
        one.steps(50)
    assert pair[0].learn.backend.recorded == 2
    assert pair[0].learn.replays == 50 - 2 * WARM
    agree(*pair)


def test_batches_of_other_shapes_are_computed() -> None:
    pair = [taken(recorded=r) for r in (True, False)]
    for one in pair:
        torch.manual_seed(0)
        one.steps(WARM + 3)
        whole, one.batch = one.batch, (one.batch[0][:7], one.batch[1][:7])
        one.steps(1, first=WARM + 3)
        one.batch = whole
        one.steps(3, first=WARM + 4)
    assert pair[0].learn.replays == 6
    agree(*pair)


def test_a_replay_inside_of_autocast_is_one_outside() -> None:
    pair = [taken(precision="bf16") for _ in range(2)]
    torch.manual_seed(0)
    pair[0].steps(10)
    torch.manual_seed(0)
    pair[1].steps(WARM + 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pair[1].steps(9 - WARM, first=WARM + 1)
    agree(*pair)


def test_averages_are_of_the_weights_that_replays_move() -> None:
    one = taken(ema=0.5)
    one.steps(WARM + 20)
    assert one.learn.replays == 20
    for name, value in one.average.values.items():
        now = dict(one.net.state_dict())[name]
        torch.testing.assert_close(value, now, rtol=0.2, atol=0.2)
        assert not torch.equal(value, now)


def context(folder: Path, **train: Any) -> Context:
    return small_context(folder, **{"epochs": 8, "optimizer": FUSED, "ema": 0.9, **train})


@pytest.mark.parametrize("name", slow_but(SHIPPED, "gdp", "str", "rigl"))
def test_every_method_recorded(
    name: str, tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedules, thresholds, ε and β reach replays: trainings end where computed ones do."""
    own_blend = Phasing.blend

    def blend(self: Phasing, beta: float) -> None:
        self.shown = torch.empty(()) if self.shown is None else self.shown
        own_blend(self, beta)

    monkeypatch.setattr(Phasing, "blend", blend)
    method = SHIPPED[name]
    plain: Artifact = method(artifact(), context(tmp_path / "plain", capture=False))
    assert tape.recorded == 0
    own = context(tmp_path / "recorded")
    recorded: Artifact = method(artifact(), own)
    told = [note for note in own.progress.notes if "computed one" in note]  # type: ignore[attr-defined]
    assert tape.recorded > 0, told
    assert tape.replayed > 0
    assert not told
    for key, value in plain.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(
                recorded.module.state_dict()[key], value, rtol=0.02, atol=0.02, msg=key
            )
    accuracy = [float(r.history[-1].details["test_accuracy"]) for r in (plain, recorded)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=7)  # two of thirty images


def test_the_pace_of_steps_is_that_of_recorded_ones(
    tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that are timed are replays alone, for a training's are."""
    monkeypatch.setattr(pace, "backend_of", lambda device: tape)
    monkeypatch.setattr(pace, "LONG", 0.0)
    told = pace.measure_pace(small_net(), context(tmp_path), workers=0)
    assert tape.recorded == 1
    assert tape.replayed == len(capture.RATES) + pace.WARM + pace.RECORDED - WARM + pace.LEAST
    assert told.steps > 0


@pytest.mark.parametrize("order", ["recorded first", "computed first"])
def test_a_stopped_training_goes_on_either_way(order: str, tmp_path: Path, tape: Tape) -> None:
    first, then = (True, False) if order == "recorded first" else (False, True)
    whole = fit(small_net(), Method(), context(tmp_path / "whole", capture=False))
    with pytest.raises(Stopped):
        fit(small_net(), Method(), stopping_after(context(tmp_path / "cut", capture=first), 3))
    net = small_net()
    own = replace(context(tmp_path / "cut", capture=then), resume=True)
    history = fit(net, Method(), own)
    assert tape.replayed > 0
    assert [m["epoch"] for m in own.progress.epochs] == [4, 5, 6, 7, 8]  # type: ignore[attr-defined]
    assert history[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-3)


def test_the_cpu_records_nothing_and_says_so_where_it_was_asked(tmp_path: Path) -> None:
    for asked in ("auto", True):
        own = small_context(tmp_path / str(asked), epochs=1, capture=asked)
        fit(small_net(), Method(), own)
        notes = [note for note in own.progress.notes if "train.capture" in note]  # type: ignore[attr-defined]
        assert len(notes) == (asked is True)
