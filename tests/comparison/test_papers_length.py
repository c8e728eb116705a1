"""The script for the papers' length: stopped by its clock, the next call goes on, cell by cell."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from forked import Forked

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import papers_length

from prunec.catalogue import build_passes
from prunec.recipe import load_recipe


@pytest.mark.parametrize("name", [*papers_length.RECIPES, *papers_length.PUBLISHED])
def test_its_recipes_are_the_papers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(papers_length.recipe(name))
    recipe = load_recipe(str(path))
    step = build_passes(recipe, name)[0]
    assert recipe.name == name
    assert recipe.train.schedule.name == "multistep"
    if step.pass_name() == "train-east":
        assert (step.cycle_steps, step.update_steps) == (100, 4000)
        told = papers_length.PUBLISHED.get(name, "").splitlines()
        assert all(str(getattr(step, line.split(" = ")[0])) in line for line in told)
    else:
        assert step.update_steps == 100


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.nightly  # by the clock: a busy machine may not begin within its minutes
def test_it_is_stopped_and_goes_on_to_whole_cells(tmp_path: Path, stub: None) -> None:
    """Its trainings are stubs of 0.03 s an epoch; the first is stopped in the middle."""
    folder = tmp_path / "out"
    words = ["--folder", str(folder), "--device", "cpu", "--tiny", "--seeds", "1", "--only", "set"]
    given = papers_length.asked([*words, "--minutes", "0.1"])
    grid = papers_length.cells(given)
    epochs = 400
    papers_length.TINY.append(f"train.epochs={epochs}")
    try:
        told = Forked(lambda: papers_length.run(given), tmp_path).ended()
        assert told.returncode == 0
        assert "the same command goes on" in told.stdout
        (run,) = (folder / "runs").iterdir()
        assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
        begun = len((run / "metrics.jsonl").read_text().splitlines())
        assert 0 < begun < epochs
        papers_length.run(papers_length.asked([*words, "--jobs", "3"]))
    finally:
        papers_length.TINY.pop()
    assert len(list((folder / "runs").iterdir())) == len(grid.cells) == 3
    lines = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, epochs + 1))
    assert (run / "calls.txt").read_text().split() == ["train", "train", "export", "verify"]
