"""The one training loop: every method plugs into it, none has its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

from torch import Tensor, nn

from prunec.errors import Diverged
from prunec.models.second_head import training_head
from prunec.seeding import reproducible, seed_everything, seeds
from prunec.training.averaging import Average
from prunec.training.capture import stepping
from prunec.training.context import Context
from prunec.training.dense_phase import (
    dense_ends,
    dense_ends_within,
    from_tally,
    in_record,
    in_tally,
)
from prunec.training.evaluation import Evaluation, evaluate
from prunec.training.interruption import Interruption, listening
from prunec.training.measured_settings import chosen_settings
from prunec.training.method import Method, Moment
from prunec.training.objective import make_objective
from prunec.training.optimisation import make_optimizer
from prunec.training.parallel import parallel, synchronised, unused_parameters
from prunec.training.schedule import learning_rate
from prunec.training.settings import computing
from prunec.training.state import Keeper
from prunec.training.step import Stepper, all_finite
from prunec.training.step_failures import ShortOfMemory, explaining, is_out_of_memory, sizing
from prunec.training.stopping import reason_to_stop
from prunec.training.tally import Tally

__all__ = ["Method", "Moment", "evaluate", "fit"]

LOOP = 4  # what a seed is derived for
CHECK_EVERY = 20  # steps between two looks at the loss: each look waits for the device


def fit(model: nn.Module, method: Method, context: Context) -> list[dict[str, Any]]:
    """Train ``model`` in place as the recipe's ``[train]`` says; return the metrics of each epoch.

    The network is left on ``context.device``. After every epoch its metrics are appended to the
    run's file; a checkpoint is written after every ``checkpoint_epochs``-th, within long epochs,
    and when a signal asks to stop. With ``context.resume`` the training goes on after the last
    sound checkpoint of this method; on the CPU the weights become the same, bit for bit, as those
    of a training that was never stopped. Without it, older checkpoints are removed. Several
    processes share every batch.

    Raises:
        Diverged: the loss or the weights left the finite numbers; the last checkpoint is kept.
        DataError: the network's outputs do not fit the data.
        OutOfMemory: a batch does not fit.
        LostProcess: another process ended.
        Interrupted: SIGINT or SIGTERM came; the state at that step is saved.
        RunError: metrics or checkpoints cannot be written.
    """
    train, device, processes = context.recipe.train, context.device, context.processes
    with ExitStack() as stack:
        stack.enter_context(reproducible(device))
        keeper = stack.enter_context(closing(Keeper(context)))
        stack.enter_context(explaining(processes, keeper.kept))
        objective = make_objective(train, context.data.task, context.teacher)
        stack.enter_context(training_head(model, context.auxiliary))
        model.to(device).train()
        context.watch.mark("network and device")
        settings = chosen_settings(model, objective, context)
        context.watch.mark("settings")
        stack.enter_context(computing(settings, device))
        stack.enter_context(sizing(model, objective, settings, processes))
        if train.sync_batchnorm:
            stack.enter_context(synchronised(model, device, processes))
        model.to(memory_format=settings.layout)
        # DistributedDataParallel waits for every gradient unless told that some may be missing.
        unused = method.retires or unused_parameters(model, context)
        network = parallel(model, device, processes, unused=unused)
        optimizer = make_optimizer(model, train, method.parameters())
        take = Stepper(
            model, network, optimizer, method, objective.shared(processes), settings,
            clip_norm=train.clip_norm, processes=processes,
        )  # fmt: skip
        interruption = stack.enter_context(listening(processes))
        return _Fitting(take, keeper, context, interruption).run()


class _Fitting:
    def __init__(
        self, take: Stepper, keeper: Keeper, context: Context, interruption: Interruption
    ) -> None:
        self.take, self.keeper, self.context, self.interruption = (
            take,
            keeper,
            context,
            interruption,
        )
        self.train, self.processes, self.device = (
            context.recipe.train,
            context.processes,
            context.device,
        )
        self.model, self.method = take.model, take.method
        self.data = context.data.to(self.device, self.processes)
        self.steps = self.data.steps(self.train.batch_size)
        self.average = Average(self.model, self.train.ema)
        self.method.begin(take.optimizer, self.average.values)
        tell = context.progress.note
        self.learn = stepping(take, self.average, self.train, self.device, tell)
        self.tally = self._empty()
        self.dense: dict[str, float] = {}  # what the dense phase that this epoch ended was worth

    def run(self) -> list[dict[str, Any]]:
        epoch, step = self._start()
        history = self.keeper.history
        began, first = time.perf_counter(), epoch + step / self.steps
        with self.context.progress.training(epoch, self.train.epochs, self.steps):
            while epoch < self.train.epochs and not reason_to_stop(self.train, history):
                metrics = self._epoch(epoch, step)
                epoch, step = epoch + 1, 0
                self.keeper.end_epoch(metrics, self.take, self.average)
                if epoch < self.train.epochs:
                    self._stop_if_asked(epoch)
                pace = (time.perf_counter() - began) / (epoch - first)
                left = pace * (self.train.epochs - epoch)
                self.context.progress.epoch({**metrics, "seconds_left": left})
        reason = reason_to_stop(self.train, history)
        if reason and epoch < self.train.epochs:
            self.context.progress.note(f"Ended after epoch {epoch}: {reason}.")
        self._ship()
        return history

    def _empty(self, earlier: Mapping[str, float] | None = None) -> Tally:
        return Tally.empty(self.data.task, self.device, earlier)

    def _start(self) -> tuple[int, int]:
        """Return the number of epochs, and of steps of the next, that are done already."""
        checkpoint = self.keeper.resumed()
        if checkpoint is None:
            return 0, 0
        self.keeper.restore(checkpoint, self.take, self.average)
        self.learn.forget()
        self.tally = self._empty(checkpoint.tally)
        self.dense = from_tally(checkpoint.tally)
        return checkpoint.epoch, checkpoint.step

    def _ship(self) -> None:
        """Leave the network with the weights that go on."""
        if self.train.ship == "best":
            best = self.keeper.best()
            if best is not None:
                self.keeper.restore(best, self.take, self.average)
                self.context.progress.note(f"The best weights are those {best.place}.")
        self.average.ship()

    def _epoch(self, epoch: int, first: int) -> dict[str, Any]:
        began = time.perf_counter()
        self._pass_over(epoch, first)
        trained = time.perf_counter()
        total = self.tally.total(self.processes, trained - began)
        learned = self.tally.score(total)
        self.tally = self._empty()
        end = self._moment(epoch, self.steps)
        extra = self.method.after_epoch(end)
        self._require_finite_weights(end)
        test = self._test()
        if dense_ends(self.context.dense_epochs, end):
            self._take_dense(test, end)
        dense, self.dense = self.dense, {}
        metrics = {
            "pass": self.context.pass_name,
            "epoch": epoch + 1,
            "loss": total["loss"] / total["images"],
            **{f"train_{key}": value for key, value in learned.figures.items()},
            **{f"test_{key}": value for key, value in test.score.figures.items()},
            "learning_rate": self._moment(epoch, self.steps - 1).learning_rate,
            "images_per_second": total["images"] / total["seconds"],
            "seconds": total["seconds"] + time.perf_counter() - trained,
            "settled": self.method.settled(end),
            **({"dense_phase": dense} if dense else {}),
            **extra,
        }
        return self.processes.share(metrics)  # seconds differ, and decide when to stop

    def _take_dense(self, test: Evaluation, moment: Moment) -> None:
        self.dense = in_record(test, moment.progress)

    def _test(self) -> Evaluation:
        if not self.train.sync_batchnorm:
            self.processes.agree(dict(self.model.named_buffers()))
        data, batch_size = self.data, self.train.batch_size
        with self.average.shipping(), self.method.shipping():
            return evaluate(
                self.model,
                data.test_batches(batch_size),
                data.task,
                self.device,
                self.take.forward.settings,
                self.processes,
            )

    def _pass_over(self, epoch: int, first: int) -> None:
        """Train on the batches of ``epoch`` from step ``first`` on."""
        self.model.train()
        self.began = time.perf_counter()
        step_seeds = seeds(self.steps, self.context.recipe.seed, LOOP, epoch, self.processes.rank)
        batches = self.data.train_batches(epoch, self.train.batch_size, first)
        for step, (images, labels) in enumerate(batches, first):
            moment = self._moment(epoch, step)
            if dense_ends_within(self.context.dense_epochs, moment):
                self._take_dense(self._test(), moment)
            seed_everything(step_seeds[step], self.device)
            loss, counts = self._step(images, labels, moment)
            self.tally.add(loss, counts, len(labels))
            last = step + 1 == self.steps
            if last or (step + 1) % CHECK_EVERY == 0:
                self._look(moment)
            if not last and (not self.processes.several or (step + 1) % CHECK_EVERY == 0):
                self._save_if_due(epoch, step + 1)

    def _step(self, images: Tensor, labels: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        try:
            answers = self.learn(images, labels, moment)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            short = error.with_traceback(None)  # its frames hold the memory
        else:
            self._tell_first(answers[0])
            return answers
        # Outside of the handler, where the error being handled would hold its frames.
        raise ShortOfMemory(short, images, labels)

    def _tell_first(self, loss: Tensor) -> None:
        """Wait for the first step and print the time until it, if that was requested."""
        watch = self.context.watch
        if watch.note is not None:
            float(loss)
            watch.finish("first step")

    def _look(self, moment: Moment) -> None:
        """Wait for the device, check the loss, print the progress."""
        total = self.tally.total(self.processes, time.perf_counter() - self.began)
        loss, speed = total["loss"] / total["images"], total["images"] / total["seconds"]
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}", moment)
        self.context.progress.step(moment.epoch, moment.step + 1, loss, speed)

    def _save_if_due(self, epoch: int, step: int) -> None:
        """Write a checkpoint within an epoch when it is time, or when a signal asks to stop."""
        asked, due = self.keeper.wanted(bool(self.interruption.asked))
        if asked or due:
            spent = time.perf_counter() - self.began
            tally = self.tally.total(self.processes, spent)
            tally |= in_tally(self.dense)
            self.keeper.save(epoch, step, self.take, self.average, tally=tally)
        if asked:
            raise self.interruption.error(f"after step {step} of epoch {epoch + 1}")

    def _stop_if_asked(self, epoch: int) -> None:
        """Stop between two epochs, where a checkpoint is or is written now."""
        if self.keeper.wanted(bool(self.interruption.asked))[0]:
            raise self.interruption.error(self.keeper.stop_after(epoch, self.take, self.average))

    def _moment(self, epoch: int, step: int) -> Moment:
        rate = learning_rate(self.train, epoch * self.steps + step, self.steps)
        seed = self.context.recipe.seed
        return Moment(epoch, step, self.steps, self.train.epochs, rate, seed)

    def _require_finite_weights(self, moment: Moment) -> None:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if not all_finite([t.detach() for t in tensors if t.is_floating_point()]):
            raise self._diverged("a weight left the finite numbers", moment)

    def _diverged(self, what: str, moment: Moment) -> Diverged:
        half = self.take.forward.settings.precision == "fp16"
        precision = ' or set train.precision = "fp32"' if half else ""
        return Diverged(
            f"training diverged: {what} in epoch {moment.epoch + 1}, by step {moment.step + 1} of "
            f"{self.steps} (learning rate {moment.learning_rate:.3g})",
            remedy=f"{self.keeper.kept()}Train again with a lower train.learning_rate (half of "
            f"{self.train.learning_rate:g}, say) or a longer train.warmup{precision}.",
        )
