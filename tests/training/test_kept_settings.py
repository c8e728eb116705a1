"""Settings of computation: reused as recorded, measured again if the record was changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_training import Recorder, Stopped, small_context, small_net, small_recipe, stopping_after

from prunec.store.new_runs import create_run
from prunec.store.records import parse_record, record_text
from prunec.training.loop import fit
from prunec.training.method import Method


def stopped(root: Path) -> Path:
    """A run that was stopped after its second epoch."""
    folder = create_run(small_recipe(), root).path
    with pytest.raises(Stopped):
        fit(small_net(), Method(), stopping_after(small_context(folder), 2))
    return folder


def resumed(folder: Path) -> list[str]:
    """Messages of a training that continues there."""
    context = small_context(folder, resume=True)
    fit(small_net(), Method(), context)
    assert isinstance(context.progress, Recorder)
    return context.progress.notes


def another(path: Path, text: Callable[[dict[str, object]], str]) -> None:
    said = parse_record(path)
    said["train-dense"]["chosen"]["threads"] = 7
    path.write_text(text(said))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_text(path.read_text().replace("1", "2", 1)),
    "digest forged": lambda path: another(path, record_text),
    "missing": Path.unlink,
    "emptied": lambda path: path.write_text(""),
    "a list": lambda path: path.write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_settings_that_were_changed_are_measured_again_and_told(
    tmp_path: Path, damage: str
) -> None:
    folder = stopped(tmp_path)
    path = folder / "settings.json"
    before = path.read_text()
    DAMAGE[damage](path)
    notes = resumed(folder)
    assert any("settings.json" in note and "measured again" in note for note in notes)
    assert path.read_text() == before


def test_settings_as_they_were_are_taken_without_a_word(tmp_path: Path) -> None:
    notes = resumed(stopped(tmp_path))
    assert notes[0] == "Continuing after epoch 2."
    assert not any("settings.json" in note for note in notes)
