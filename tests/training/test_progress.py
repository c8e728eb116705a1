"""Progress: one aligned line per epoch in a file, a live bar on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from prunec.training.progress import (
    LiveProgress,
    PlainProgress,
    Progress,
    epoch_line,
    make_progress,
)

METRICS = {
    "epoch": 3,
    "loss": 0.4321,
    "train_accuracy": 84.2,
    "test_accuracy": 85.1,
    "learning_rate": 0.08,
    "images_per_second": 1812.0,
    "seconds": 14.23,
}


def told(terminal: bool) -> str:
    out = io.StringIO()
    progress = make_progress(Console(file=out, force_terminal=terminal, width=160))
    progress.stage("train-gdp")
    with progress.training(2, 12, 90):
        progress.step(2, 40, 0.5, 1800.0)
        progress.epoch({**METRICS, "macs_ratio": 0.612, "gates_open": 812.0, "seconds_left": 75.0})
    progress.note("done [not markup] in 3 s")
    return out.getvalue()


def test_the_kind_follows_the_console() -> None:
    kinds: dict[bool, type[Progress]] = {True: LiveProgress, False: PlainProgress}
    for terminal, kind in kinds.items():
        console = Console(file=io.StringIO(), force_terminal=terminal)
        assert type(make_progress(console)) is kind


def test_plain_lines() -> None:
    assert told(terminal=False).splitlines() == [
        "train-gdp",
        "epoch  3/12  loss 0.4321  train  84.20 %  test  85.10 %  lr 0.08000  MACs  61.2 %  "
        "gates    812    1,812 img/s    14.2 s   1:15 left",
        "done [not markup] in 3 s",
    ]


def test_plain_lines_are_not_broken_in_a_narrow_pipe() -> None:
    out = io.StringIO()
    progress = PlainProgress(Console(file=out, width=40))
    with progress.training(0, 12, 1):
        progress.epoch(METRICS)
    assert len(out.getvalue().splitlines()) == 1


def test_columns_stand_under_each_other() -> None:
    later = {**METRICS, "epoch": 12, "test_accuracy": 9.5, "seconds": 114.2}
    one, other = epoch_line(METRICS, 12), epoch_line(later, 12)
    assert len(one) == len(other)
    assert [k for k, c in enumerate(one) if c == "%"] == [
        k for k, c in enumerate(other) if c == "%"
    ]


def test_the_live_bar_tells_the_same_and_moves() -> None:
    out = told(terminal=True)
    for part in ("epoch  3/12", "61.2 %", "gates    812", "1:15 left", "1,800 img/s", "loss 0.500"):
        assert part in out
    assert "done [not markup] in 3 s" in out
