"""Recorded training steps: a GPU starts all kernels of a step at one call.

A replay repeats the recorded operations on the same memory. It does not see changed Python numbers,
reallocated memory or branches on device values, and would silently train on stale values. Therefore
the first replays of every recording are compared with the same steps, computed operation by
operation from the same state. If they differ, or a step cannot be recorded, the training continues
without recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.recipe import TrainSpec
from prunec.training.averaging import Average
from prunec.training.held_state import HeldState
from prunec.training.method import Method, Moment
from prunec.training.optimisation import number_rates, set_learning_rate, tensor_rates
from prunec.training.recording import Backend, backend_of
from prunec.training.step import Stepper

WARM = 3  # steps of a kind before one is recorded: cuDNN tries its kernels in them
RATES = (1.0, 0.5, 2.0)  # factors of the learning rate in the steps that prove a recording
LOSS = 0.01  # of the first loss, allowed: other algorithms differ by less in three steps
MOST = 12  # recordings of one training: phases are few, and each holds memory of its own

Tell = Callable[[str], None]
Inputs = tuple[Tensor, Tensor, Tensor]
"""Images and targets that a step learns, and labels that it counts correct answers with."""


@dataclass
class Recording:
    """A recorded step.

    Attributes:
        inputs: memory into which a batch is copied.
        answers: memory of the loss and of the counts.
        replay: function that executes the step.
    """

    inputs: Inputs
    answers: tuple[Tensor, Tensor]
    replay: Callable[[], None]


class Steps:
    """Training steps, computed operation by operation; each also moves the average of weights."""

    def __init__(self, take: Stepper, average: Average) -> None:
        self.take, self.average = take, average

    def __call__(self, images: Tensor, labels: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Learn a batch and move the average; see :meth:`Stepper.__call__`."""
        answers = self.take(images, labels, moment)
        self.average.update(moment.number)
        return answers

    def forget(self) -> None:
        """Drop recordings, because tensors may have been replaced; there are none here."""


class Capturing(Steps):
    """Training steps, recorded and replayed where possible.

    Attributes:
        replays: number of replayed steps, not counting proofs.
        recordings: kind of step → recording.
        reason: reason for not recording; empty while steps are recorded.
    """

    def __init__(self, take: Stepper, average: Average, backend: Backend, tell: Tell) -> None:
        """Turn learning rates into tensors, which recordings read.

        Args:
            take: function that computes a step.
            average: average of the weights, moved with every step.
            backend: recorder of the device.
            tell: callback for one sentence, the reason, if steps are not recorded.
        """
        super().__init__(take, average)
        self.backend, self.tell = backend, tell
        self.replays = 0
        self.recordings: dict[Hashable, Recording] = {}
        self.seen: dict[Hashable, int] = {}
        self.reason = reason_against(take)
        if self.reason:
            self._tell()
        else:
            tensor_rates(take.optimizer)

    def __call__(self, images: Tensor, labels: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Learn a batch and move the average; see :meth:`Stepper.__call__`."""
        inputs = self.take.given(images, labels)
        kind = None if self.reason else self._kind(inputs, moment)
        if kind is not None and kind not in self.recordings and self._is_due(kind):
            self._record(kind, inputs, moment)
        recording = self.recordings.get(kind) if kind is not None else None
        if recording is None:
            return self._plainly(inputs, moment)
        self._prepare(moment)
        self.replays += 1
        return _replayed(recording, inputs)

    def forget(self) -> None:
        """Drop every recording: the memory that they read may have been replaced."""
        self.recordings.clear()
        self.seen.clear()

    def _kind(self, inputs: Inputs, moment: Moment) -> Hashable | None:
        """Return the properties that all steps of a recording share; None: the step has no kind."""
        kind = self.take.method.kind(moment)
        return None if kind is None else (kind, *((x.shape, x.dtype, x.stride()) for x in inputs))

    def _is_due(self, kind: Hashable) -> bool:
        self.seen[kind] = self.seen.get(kind, 0) + 1
        return self.seen[kind] > WARM

    def _prepare(self, moment: Moment) -> None:
        set_learning_rate(self.take.optimizer, moment.learning_rate)
        self.take.method.ready(moment)
        self.average.prepare(moment.number)

    def _plainly(self, inputs: Inputs, moment: Moment) -> tuple[Tensor, Tensor]:
        self._prepare(moment)
        answers = self.take.learn(*inputs, moment)
        self.average.update(moment.number)
        return answers

    def _record(self, kind: Hashable, inputs: Inputs, moment: Moment) -> None:
        """Record a step and prove the recording; the state is restored in any case."""
        if len(self.recordings) >= MOST:
            self._give_up(f"{MOST} kinds of steps are recorded, and there are more")
            return
        state = None
        try:
            state = HeldState(self.take, self.average)  # may not fit beside a large batch
            recording = self._recorded(inputs, moment)
            state.restore()
            fault = self._proven(recording, inputs, moment, state)
        except Exception as error:  # an error of CUDA or of a compiler must not end a training
            fault = str(error).partition("\n")[0] or type(error).__name__
        self.backend.wait()
        self.take.settle()
        if state is not None:
            state.restore()
        if fault:
            self._give_up(fault)
        else:
            self.recordings[kind] = recording

    def _recorded(self, inputs: Inputs, moment: Moment) -> Recording:
        """Return a recording of a step, which reads copies of the inputs."""
        own: Inputs = tuple(x.clone(memory_format=torch.preserve_format) for x in inputs)  # type: ignore[assignment]
        answers: list[tuple[Tensor, Tensor]] = []
        self._prepare(moment)

        def work() -> None:
            answers.append(self.take.learn(*own, moment))
            self.average.take_in()

        # Autocast keeps the weights that it has cast. Those cast earlier would be read in every
        # replay, instead of the current ones; those cast while recording lie in its memory.
        torch.clear_autocast_cache()
        self.backend.wait()
        replay = self.backend.record(work)
        torch.clear_autocast_cache()
        return Recording(own, answers[-1], replay)

    def _proven(
        self, recording: Recording, inputs: Inputs, moment: Moment, state: HeldState
    ) -> str:
        """Return why a recording is wrong; empty if it is right.

        A few steps, with different learning rates, are computed and then replayed from the same
        state with the same random numbers.
        """
        moments = [self._varied(moment, number) for number in range(len(RATES))]
        computed, losses = None, []
        for plain in (True, False):
            state.restore()
            run_losses = []
            for each in moments:
                if plain:
                    loss, _ = self._plainly(inputs, each)
                else:
                    self._prepare(each)
                    loss, _ = _replayed(recording, inputs)
                run_losses.append(loss.clone())
            losses.append(torch.stack(run_losses).double().cpu())
            computed = state.moved() if plain else computed
        assert computed is not None
        return state.difference(computed) or _differing(*losses)

    def _varied(self, moment: Moment, number: int) -> Moment:
        """Return a moment with another rate, and ``number`` steps later if the kind allows it."""
        rate = RATES[number] * moment.learning_rate
        later = replace(moment, step=moment.step + number, learning_rate=rate)
        same = self.take.method.kind(later) == self.take.method.kind(moment)
        return later if same else replace(moment, learning_rate=rate)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self.forget()
        number_rates(self.take.optimizer)
        self._tell()

    def _tell(self) -> None:
        self.tell(f"Steps are computed one operation after the other: {self.reason}.")


def stepping(
    take: Stepper, average: Average, train: TrainSpec, device: torch.device, tell: Tell
) -> Steps:
    """Return the steps of a training: recorded if requested and possible.

    Args:
        take: function that computes a step.
        average: average of the weights, updated with every step.
        train: settings of the recipe; ``capture = "auto"`` records where the device can.
        device: device of the steps.
        tell: callback for one sentence, if steps that should be recorded are not.
    """
    backend = backend_of(device)
    if backend is not None and train.capture is not False:
        return Capturing(take, average, backend, tell)
    if train.capture is True:
        tell(f"train.capture = true: {device.type} records no steps; each is computed anew.")
    return Steps(take, average)


def _replayed(recording: Recording, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Replay a step on a batch; return the loss and the counts."""
    torch._foreach_copy_(list(recording.inputs), list(inputs))
    recording.replay()
    return recording.answers


def _differing(computed: Tensor, replayed: Tensor) -> str:
    """Return how losses differ; empty if by no more than 1 % of the first loss."""
    difference = (computed - replayed).abs().max()
    if difference <= LOSS * computed[0].abs():
        return ""
    return f"a replayed step has the loss {replayed.tolist()}, a computed one {computed.tolist()}"


def reason_against(take: Stepper) -> str:
    """Return why no step of a training can be recorded; empty if steps may be."""
    if take.processes.several:
        return "several processes share every step"
    if take.scaler.is_enabled():
        return 'the loss scaler of fp16 looks at every step; train.precision = "bf16" needs none'
    method = type(take.method)
    if method is not Method and method.kind is Method.kind:
        return f"{method.__name__} does not say which of its steps are alike"
    return ""
