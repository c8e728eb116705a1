"""What a person sees while a network trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from prunec.tasks.quality import ACCURACY, decisive
from prunec.wording import duration, percent

Metrics = Mapping[str, Any]


class Progress(ABC):
    """Where the training tells how far it is."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def stage(self, name: str) -> None:
        """Say what begins now."""
        self.console.print(Text(name, style="bold"))

    def note(self, text: str) -> None:
        """Say something in one line."""
        self.console.print(Text(text), soft_wrap=True)

    @contextmanager
    def training(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> Iterator[None]:
        """Frame the training of ``epochs`` epochs, of which ``first_epoch`` are done already."""
        self._open(first_epoch, epochs, steps_per_epoch)
        try:
            yield
        finally:
            self._close()

    @abstractmethod
    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Tell, now and then, how far ``epoch`` (from 0) is."""

    @abstractmethod
    def epoch(self, metrics: Metrics) -> None:
        """Tell the metrics of a finished epoch."""

    @abstractmethod
    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class PlainProgress(Progress):
    """One line an epoch, for files and pipes."""

    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Say nothing: an epoch's line is enough."""

    def epoch(self, metrics: Metrics) -> None:
        """Print the line of a finished epoch."""
        self.note(epoch_line(metrics, self._epochs))

    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        self._epochs = epochs

    def _close(self) -> None:
        pass


class SilentProgress(Progress):
    """Says nothing: another rank speaks."""

    def stage(self, name: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Say nothing."""

    def epoch(self, metrics: Metrics) -> None:
        """Say nothing."""

    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        pass

    def _close(self) -> None:
        pass


class LiveProgress(Progress):
    """The lines of finished epochs above a bar that moves."""

    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Move the bar."""
        self._live.update(
            self._task,
            completed=epoch * self._steps + step,
            description=f"epoch {epoch + 1}/{self._epochs}",
            numbers=f"loss {loss:.3f}  {images_per_second:,.0f} img/s",
        )

    def epoch(self, metrics: Metrics) -> None:
        """Print the line of a finished epoch above the bar; the bar keeps its last figures."""
        self.note(epoch_line(metrics, self._epochs))
        self._live.update(
            self._task,
            completed=int(metrics["epoch"]) * self._steps,
            last="  ".join([*_qualities(metrics), *_extras(metrics), *_time_left(metrics)]),
        )

    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("{task.fields[last]}", style="dim"),
            console=self.console,
            transient=True,
        )
        self._task: TaskID = self._live.add_task(
            f"epoch {first_epoch + 1}/{epochs}",
            total=epochs * steps_per_epoch,
            completed=first_epoch * steps_per_epoch,
            numbers="",
            last="",
        )
        self._live.start()

    def _close(self) -> None:
        self._live.stop()


def make_progress(console: Console) -> Progress:
    """Return live progress where ``console`` is a terminal, none where it is quiet, else lines."""
    if console.quiet:
        return SilentProgress(console)
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def epoch_line(metrics: Metrics, epochs: int) -> str:
    """Return the metrics of an epoch as one line whose columns stand under each other.

    Args:
        metrics: ``epoch`` (from 1), ``loss``, ``train_accuracy``, ``test_accuracy`` (percent; or
            ``train_miou``, ``test_miou``), ``learning_rate``, ``images_per_second``, ``seconds``;
            and, where a method gives them, ``macs_ratio``, ``gates_open``; ``seconds_left``.
        epochs: how many there will be.
    """
    width = len(str(epochs))
    parts = [
        f"epoch {metrics['epoch']:>{width}}/{epochs}",
        f"loss {metrics['loss']:6.4f}",
        *_qualities(metrics),
        f"lr {metrics['learning_rate']:7.5f}",
        *_extras(metrics),
        f"{metrics['images_per_second']:7,.0f} img/s",
        f"{metrics['seconds']:6.1f} s",
        *_time_left(metrics),
    ]
    return "  ".join(parts)


def _qualities(metrics: Metrics) -> list[str]:
    quality = decisive(metrics, "test_")
    named = "" if quality is ACCURACY else f"{quality.name} "
    return [
        f"{split} {named}{metrics[key]:6.2f} %"
        for split in ("train", "test")
        if (key := f"{split}_{quality.key}") in metrics
    ]


def _extras(metrics: Metrics) -> list[str]:
    parts = []
    if "macs_ratio" in metrics:
        parts.append(f"MACs {percent(float(metrics['macs_ratio'])):>7}")
    if "gates_open" in metrics:
        parts.append(f"gates {metrics['gates_open']:6.0f}")
    return parts


def _time_left(metrics: Metrics) -> list[str]:
    if "seconds_left" not in metrics:
        return []
    return [f"{duration(float(metrics['seconds_left'])):>5} left"]
