"""Settings by measurement: the fastest that agrees, written down, used again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import CPU, Recorder, small_context, small_net, small_recipe
from torch import nn

from prunec.processes import ALONE, Processes
from prunec.tasks.task import Classification, Outputs
from prunec.training import measured_settings, tuning
from prunec.training.loop import fit
from prunec.training.method import Method
from prunec.training.objective import Objective
from prunec.training.remembered import Remembered
from prunec.training.settings import Settings, cores
from prunec.training.stopwatch import Stopwatch
from prunec.training.tuning import Trial, candidates, choose, fastest

OPEN = {"precision": "auto", "channels_last": "auto", "threads": "auto"}
FIRST = Settings("fp32", False, 4)


def trial(seconds: float, agrees: bool = True, **settings: object) -> Trial:
    return Trial(Settings(**{"threads": 4, **settings}), seconds, 1.0, agrees)  # type: ignore[arg-type]


def test_the_fastest_that_agrees_is_taken_and_noise_is_no_reason() -> None:
    plain, last = trial(1.0), trial(0.98, channels_last=True)
    wrong = trial(0.1, agrees=False, precision="bf16")
    assert fastest([plain, last, wrong]) == plain.settings
    better = trial(0.5, precision="bf16", channels_last=True)
    assert fastest([plain, last, wrong, better]) == better.settings


def test_threads_are_tried_with_the_best_of_the_rest() -> None:
    best = Settings("bf16", True, 4)
    train = small_recipe(**OPEN).train
    tried = list(candidates(train, FIRST, CPU, lambda: best))
    assert tried[0] == FIRST
    assert {(s.precision, s.channels_last) for s in tried[:4]} == {
        (p, c) for p in ("fp32", "bf16") for c in (False, True)
    }
    assert tried[4:] == [Settings("bf16", True, 2)]  # two were not better than four: not one
    assert [s.threads for s in candidates(train, FIRST, torch.device("cuda"), lambda: best)] == (
        [4] * 4
    )


@pytest.mark.parametrize(
    ("closed", "count"),
    [({"precision": "fp32", "threads": 2}, 2), ({"precision": "bf16", "channels_last": True}, 2)],
)
def test_what_a_recipe_names_is_not_tried(closed: dict[str, object], count: int) -> None:
    train = small_recipe(**{**OPEN, **closed}).train
    first = tuning.default_settings(train, ALONE)
    first = Settings(first.precision, first.channels_last, 2)
    tried = list(candidates(train, first, CPU, lambda: first))
    assert len(tried) == count
    for key, value in closed.items():
        assert {getattr(s, key) for s in tried} == ({value} if key != "threads" else {2})


def test_choosing_leaves_the_network_and_the_generator_as_they_were() -> None:
    net = small_net().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    batch = next(small_context(Path()).data.train_batches(0, 16))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    train, objective = small_recipe(**OPEN).train, Objective(Classification(3))
    chosen, trials = choose(net, batch, train, objective, ALONE)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
    assert chosen in [t.settings for t in trials if t.agrees]
    assert all(t.seconds > 0 for t in trials)
    assert next(iter(trials)).agrees


def test_another_loss_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(self: Objective, outputs: Outputs, *_: torch.Tensor) -> torch.Tensor:
        wrong = 2.0 if torch.is_autocast_enabled("cpu") else 1.0
        return outputs.logits.float().square().mean() * wrong

    monkeypatch.setattr(Objective, "__call__", loss)
    batch = next(small_context(Path()).data.train_batches(0, 16))
    train, objective = small_recipe(**OPEN).train, Objective(Classification(3))
    _, trials = choose(small_net().train(), batch, train, objective, ALONE)
    agreed = {t.settings.precision: t.agrees for t in trials}
    assert agreed == {"fp32": True, "bf16": False}


def test_the_choice_is_written_down_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = small_context(tmp_path, epochs=1, **OPEN)
    fit(small_net(), Method(), context)
    assert isinstance(context.progress, Recorder)
    assert context.progress.notes[0].startswith(
        ("Fastest step: ", "Step, as fast as any within 3 %: ")
    )
    record = json.loads((tmp_path / "settings.json").read_text())["train-dense"]
    assert record["device"] == "cpu"
    assert record["chosen"] in [
        {k: t[k] for k in record["chosen"]} for t in record["measured"] if t["agrees"]
    ]
    monkeypatch.setattr(tuning, "choose", pytest.fail)
    monkeypatch.setattr("prunec.training.measured_settings.choose", pytest.fail)
    fit(small_net(), Method(), small_context(tmp_path, epochs=2, resume=True, **OPEN))


def test_a_variable_bounds_the_cores_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores(ALONE) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    whole = cores(ALONE)
    assert cores(Processes(0, 2, 0, 2)) == max(1, whole // 2)


class Clock:
    """Time that passes as it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowSteps:
    """Steps that take as long as is said: the first of each kind of settings longer."""

    def __init__(self, clock: Clock, first: float, step: float) -> None:
        self.clock, self.first, self.step = clock, first, step
        self.taken: list[int] = []

    def __call__(self, bench: object, own: nn.Module, settings: Settings) -> object:
        self.taken.append(0)

        def learn(*given: object) -> tuple[torch.Tensor, None]:
            self.clock.now += self.first if self.taken[-1] == 0 else self.step
            self.taken[-1] += 1
            return torch.tensor(1.0), None

        return learn


@pytest.mark.parametrize(
    ("first", "step", "limit", "trials"),
    [
        (0.1, 0.01, 5.0, 4),  # a warm GPU, a small network: all settings
        (1.0, 0.3, 5.0, 2),  # a warm one, a large network
        (6.0, 0.05, 15.0, 2),  # a cold one
        (14.0, 2.0, 17.0, 1),  # cold, and large: what there was time for
    ],
)
def test_trials_on_a_gpu_end_in_time(
    first: float, step: float, limit: float, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    steps = SlowSteps(clock, first, step)
    monkeypatch.setattr(tuning, "is_bounded", lambda device: True)
    monkeypatch.setattr(tuning._Bench, "_steps", lambda *given: steps(*given))
    batch = next(small_context(Path()).data.train_batches(0, 16))
    train = small_recipe(**{**OPEN, "threads": 1}).train
    told: list[Settings] = []
    objective = Objective(Classification(3))
    chosen, measured = choose(
        small_net().train(), batch, train, objective, ALONE, tell=told.append, clock=clock
    )
    assert clock.now <= limit
    assert len(measured) == trials
    assert told == [trial.settings for trial in measured]
    assert chosen == fastest(measured)


def test_a_recording_is_not_taken_for_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth step records: it is slow once, and the time may be over right after it."""
    clock, record = Clock(), [1.0, 4.9, 1.0]

    def steps(bench: object, own: nn.Module, settings: Settings) -> object:
        slow, taken = record.pop(0), []

        def learn(*given: object) -> tuple[torch.Tensor, None]:
            taken.append(0)
            clock.now += slow if len(taken) == 4 else 0.01
            return torch.tensor(1.0), None

        return learn

    monkeypatch.setattr(tuning, "is_bounded", lambda device: True)
    monkeypatch.setattr(tuning, "backend_of", lambda device: object())
    monkeypatch.setattr(tuning._Bench, "_steps", steps)
    batch = next(small_context(Path()).data.train_batches(0, 16))
    train = small_recipe(**{**OPEN, "threads": 1}).train
    _, measured = choose(
        small_net().train(), batch, train, Objective(Classification(3)), ALONE, clock=clock
    )
    assert [trial.seconds for trial in measured] == pytest.approx([0.01, 0.01])


def test_the_likeliest_settings_of_a_gpu_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_short_precision", lambda device: "bf16")
    train = small_recipe(**OPEN).train
    tried = list(candidates(train, FIRST, torch.device("cuda"), lambda: FIRST))
    assert [(s.precision, s.channels_last) for s in tried[:2]] == [("fp32", False), ("bf16", True)]
    named = small_recipe(**{**OPEN, "precision": "bf16", "channels_last": True}).train
    first = Settings("bf16", True, 4)
    assert list(candidates(named, first, torch.device("cuda"), lambda: first)) == [first]


def test_what_was_measured_is_remembered_and_measured_again_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measured_settings, "remembers", lambda device: True)

    def notes(name: str, *, retune: bool = False, **train: object) -> str:
        context = small_context(tmp_path / name, epochs=1, **{**OPEN, **train})
        fit(small_net(), Method(), replace(context, retune=retune))
        assert isinstance(context.progress, Recorder)
        return context.progress.notes[0]

    assert notes("a").startswith(("Fastest step", "Step, as fast"))
    (file,) = (tmp_path / "cache" / "prunec" / "settings").iterdir()
    record = json.loads(file.read_text())
    assert record["of"]["batch"] == [[16, 1, 8, 8], [16]]
    assert [trial["seconds"] > 0 for trial in record["measured"]]
    assert notes("b").startswith("Step as measured before: ")
    assert notes("b").endswith("(--retune measures again)")
    assert notes("c", retune=True).startswith(("Fastest step", "Step, as fast"))
    assert notes("d", batch_size=32).startswith(("Fastest step", "Step, as fast"))
    file.write_text("{")
    assert notes("e").startswith(("Fastest step", "Step, as fast"))


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = Remembered({"a": 1}, tmp_path / "file" / "folder")
    memory.keep(FIRST, [])
    assert memory.settings() is None


def test_the_time_to_the_first_step_is_reported_in_parts(tmp_path: Path) -> None:
    clock, told = Clock(), []
    watch = Stopwatch(told.append, clock)
    clock.now = 1.25
    watch.mark("imports")
    fit(small_net(), Method(), replace(small_context(tmp_path, epochs=1), watch=watch))
    assert told == [
        "First step after 1.2 s: imports 1.2 s, network and device 0.0 s, settings 0.0 s, "
        "first step 0.0 s"
    ]
