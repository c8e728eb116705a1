"""Ends of a training: last epoch, early stop, signal, out of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import Recorder, small_context, small_net
from torch import Tensor, nn

from prunec.errors import Interrupted, OutOfMemory, RunError
from prunec.recipe.training import Stop, TrainSpec
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.stopping import is_best, reason_to_stop


def epochs(*accuracies: float, unsettled: int = 0) -> list[dict[str, Any]]:
    return [
        {"test_accuracy": accuracy, "settled": place >= unsettled, "seconds": 30.0}
        for place, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("stop", "history", "reason"),
    [
        (Stop(), epochs(50, 40, 30, 20), ""),
        (Stop(accuracy=60), epochs(50, 59.9), ""),
        (Stop(accuracy=60), epochs(50, 60), "train.stop.accuracy = 60"),
        (Stop(accuracy=60), epochs(70, 61, 62, unsettled=3), ""),
        (Stop(patience_epochs=2), epochs(50, 60, 60), ""),
        (Stop(patience_epochs=2), epochs(50, 60, 60, 59), "train.stop.patience_epochs = 2"),
        (Stop(patience_epochs=2), epochs(90, 80, 50, 60, 60, unsettled=2), ""),
        (Stop(minutes=2), epochs(1, 2, 3), ""),
        (Stop(minutes=2), epochs(1, 2, 3, 4, unsettled=4), "train.stop.minutes = 2"),
    ],
)
def test_reasons_to_stop(stop: Stop, history: list[dict[str, Any]], reason: str) -> None:
    actual = reason_to_stop(TrainSpec(epochs=9, stop=stop), history)
    assert reason in actual
    assert bool(reason) == bool(actual)


def test_the_first_of_the_best_settled_epochs_is_the_best() -> None:
    history = epochs(99, 50, 60, 60, 70, 65, unsettled=1)
    bests = [is_best(history[: place + 1]) for place in range(len(history))]
    assert bests == [False, True, True, False, True, False]


def test_patience_ends_it_and_a_resumed_training_knows(tmp_path: Path) -> None:
    settings = {"epochs": 9, "stop": {"patience_epochs": 1}, "ship": "best"}
    net, again = small_net(), small_net()
    context = small_context(tmp_path, **settings)
    history = fit(net, Method(), context)
    assert len(history) < 9
    assert isinstance(context.progress, Recorder)
    assert "train.stop.patience_epochs" in context.progress.notes[-2]
    accuracies = [line["test_accuracy"] for line in history]
    best = accuracies.index(max(accuracies)) + 1
    assert context.progress.notes[-1] == f"The best weights are those after epoch {best}."
    assert fit(again, Method(), small_context(tmp_path, resume=True, **settings)) == history
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


class Signalled(Method):
    def __init__(self, number: signal.Signals, step: int) -> None:
        self.number, self.step = number, step

    def after_step(self, moment: Moment) -> None:
        if moment.number == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 9, 11], ids=["first", "within", "last of an epoch"])
def test_a_signal_saves_the_step_and_the_rest_is_the_same(
    tmp_path: Path, number: signal.Signals, step: int
) -> None:
    settings = {"epochs": 3, "optimizer": {"name": "AdamW"}, "learning_rate": 0.01}
    whole, resumed = small_net(), small_net()
    history = fit(whole, Method(), small_context(tmp_path / "whole", **settings))
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Interrupted) as caught:
        fit(small_net(), Signalled(number, step), small_context(tmp_path / "cut", **settings))
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert caught.value.exit_code == 128 + number
    place = "after epoch 2" if step == 11 else f"after step {step % 6 + 1} of epoch {step // 6 + 1}"
    assert place in caught.value.message
    taken: list[int] = []
    method = Method()
    method.before_forward = lambda moment: taken.append(moment.number)  # type: ignore[method-assign]
    actual = fit(resumed, method, small_context(tmp_path / "cut", resume=True, **settings))
    assert taken == list(range(step + 1, 18))
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value)
    for line, expected in zip(actual, history, strict=True):
        for key in ("loss", "train_accuracy", "test_accuracy", "learning_rate"):
            assert line[key] == expected[key]


class Hungry(nn.Module):
    """Has memory for five images."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.inner, self.error = small_net(), error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 5:
            raise self.error
        result: Tensor = self.inner(x)
        return result


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_out_of_memory_says_which_batch_fits(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(OutOfMemory) as caught:
        fit(Hungry(error), Method(), small_context(tmp_path))
    assert "train.batch_size = 16 on cpu" in caught.value.message
    assert "train.batch_size = 4 fits" in caught.value.remedy


def test_other_errors_of_torch_are_no_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        fit(Hungry(RuntimeError("a defect")), Method(), small_context(tmp_path))


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunec.training import checkpoint

    write = checkpoint.write_tensors

    def full(path: Path, tensors: Any) -> None:
        if "epoch-003" in str(path):
            raise RunError(f"{path} cannot be written: no space left", remedy="Free some space.")
        write(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(RunError, match="no space left"):
        fit(small_net(), Method(), small_context(tmp_path))
    kept = sorted(p.name for p in (tmp_path / "checkpoint").iterdir())
    assert kept == ["best", "epoch-001", "epoch-002"]
    monkeypatch.undo()
    whole, resumed = small_net(), small_net()
    fit(whole, Method(), small_context(tmp_path / "whole"))
    fit(resumed, Method(), small_context(tmp_path, resume=True))
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value)
