"""Display of a training's progress: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.status import Status
from rich.text import Text

from prunec.tables import show
from prunec.tasks.quality import ACCURACY, decisive
from prunec.wording import duration, percent

Metrics = Mapping[str, Any]
EVERY = 15.0  # seconds between two lines within an epoch, where there is no bar
BAR = 20  # characters of the bar
GAP = "  "  # between two figures


class Progress(ABC):
    """Display of a training's progress."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def stage(self, name: str) -> None:
        """Show the name of a stage that begins."""
        self.console.print(Text(name, style="bold"))

    def note(self, text: str) -> None:
        """Show one line."""
        show(self.console, text)

    at_work = ""
    """What is measured now."""

    def trying(self, text: str) -> None:
        """Show what is at work until the next call; empty: nothing any more."""
        self.at_work = text

    @contextmanager
    def training(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> Iterator[None]:
        """Frame a training of ``epochs`` epochs, the first ``first_epoch`` of them done."""
        self._open(first_epoch, epochs, steps_per_epoch)
        try:
            yield
        finally:
            self._close()

    @abstractmethod
    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Show the position in ``epoch`` (from 0), now and then."""

    @abstractmethod
    def epoch(self, metrics: Metrics) -> None:
        """Show the metrics of a finished epoch."""

    @abstractmethod
    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class PlainProgress(Progress):
    """One line per epoch, and within long ones one every EVERY seconds: for files and pipes."""

    _printed_at = 0.0

    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Print the position in the epoch if the last line is older than EVERY seconds."""
        if time.monotonic() - self._printed_at < EVERY:
            return
        figures = _figures(loss, images_per_second)
        self.note(GAP.join([_place(epoch, self._epochs), f"step {step}/{self._steps}", *figures]))
        self._printed_at = time.monotonic()

    def epoch(self, metrics: Metrics) -> None:
        """Print the line of a finished epoch."""
        self.note(epoch_line(metrics, self._epochs))
        self._printed_at = time.monotonic()

    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._printed_at = time.monotonic()

    def _close(self) -> None:
        pass


class SilentProgress(Progress):
    """No output: another rank prints."""

    def stage(self, name: str) -> None:
        """Print nothing."""

    def note(self, text: str) -> None:
        """Print nothing."""

    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Print nothing."""

    def epoch(self, metrics: Metrics) -> None:
        """Print nothing."""

    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        pass

    def _close(self) -> None:
        pass


class LiveProgress(Progress):
    """Lines of finished epochs above a live bar; figures that do not fit are left out."""

    _last: Sequence[str] = ()
    _status: Status | None = None

    def trying(self, text: str) -> None:
        """Show it on a line of its own, which moves and goes."""
        super().trying(text)
        if self._status is not None:
            self._status.stop()
        self._status = self.console.status(text) if text else None
        if self._status is not None:
            self._status.start()

    def step(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Move the bar."""
        self._live.update(
            self._task,
            completed=epoch * self._steps + step,
            description=_place(epoch, self._epochs),
            figures=self._that_fit(epoch, [*_figures(loss, images_per_second), *self._last]),
        )

    def epoch(self, metrics: Metrics) -> None:
        """Print the line of a finished epoch above the bar; the bar keeps its last figures."""
        self.note(epoch_line(metrics, self._epochs, self.console.width))
        self._last = [*_time_left(metrics), *_qualities(metrics), *_extras(metrics)]
        self._live.update(self._task, completed=int(metrics["epoch"]) * self._steps)

    def _open(self, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._last = ()
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            # The bar goes when the training ends; the lines of epochs stay.
            transient=True,
        )
        self._task: TaskID = self._live.add_task(
            _place(first_epoch, epochs),
            total=epochs * steps_per_epoch,
            completed=first_epoch * steps_per_epoch,
            figures="",
        )
        self._live.start()

    def _that_fit(self, epoch: int, figures: Sequence[str]) -> str:
        taken = len(_place(epoch, self._epochs)) + BAR + len("100%") + 3  # a blank before each
        return _that_fit(figures, self.console.width - taken)

    def _close(self) -> None:
        self._live.stop()


def make_progress(console: Console) -> Progress:
    """Return live progress on a terminal, none on a quiet console, else plain lines."""
    if console.quiet:
        return SilentProgress(console)
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def epoch_line(metrics: Metrics, epochs: int, width: int | None = None) -> str:
    """Return the metrics of an epoch as one line whose columns stand under each other.

    Args:
        metrics: ``epoch`` (from 1), ``loss``, ``train_accuracy``, ``test_accuracy`` (percent; or
            ``train_miou``, ``test_miou``), ``learning_rate``, ``images_per_second``, ``seconds``;
            and, where a method gives them, ``macs_ratio``, ``gates_open``; ``seconds_left``.
        epochs: how many there will be.
        width: characters that the line may have: rates, times and seconds are left out for it.
    """
    place = _place(int(metrics["epoch"]) - 1, epochs)
    rate, extras = f"lr {metrics['learning_rate']:7.5f}", _extras(metrics)
    speed = f"{metrics['images_per_second']:7,.0f} img/s"
    parts = [place, f"loss {metrics['loss']:6.4f}", *_qualities(metrics), rate, *extras, speed]
    parts += [f"{metrics['seconds']:6.1f} s", *_time_left(metrics)]
    for least in (rate, speed, f"{metrics['seconds']:6.1f} s", *reversed(extras)):
        if width is None or len(GAP.join(parts)) <= width:
            break
        parts.remove(least)
    return GAP.join(parts)


def _place(epoch: int, epochs: int) -> str:
    """Return the epoch, given from 0, and the number of epochs as text."""
    return f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"


def _figures(loss: float, images_per_second: float) -> list[str]:
    return [f"loss {loss:.3f}", f"{images_per_second:,.0f} img/s"]


def _that_fit(figures: Sequence[str], room: int) -> str:
    """Return as many of the first figures as fit into ``room`` characters, joined."""
    line = ""
    for figure in figures:
        longer = f"{line}{GAP}{figure.strip()}" if line else figure
        if len(longer) > room:
            break
        line = longer
    return line


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
