from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from prunec.cli.selection import find_run, resumed_run
from prunec.errors import DamagedRecord, RecipeError, RunError
from prunec.pipeline.counting import count
from prunec.pipeline.inspecting import inspect
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.shipping import export
from prunec.recipe import Recipe, digest, dumps, loads
from prunec.store.environment import environment, prunec_version
from prunec.store.finding import latest_run, open_run, run_folders, runs_root
from prunec.store.new_runs import create_run
from prunec.store.records import beginning_digest, record_digest, record_text
from prunec.store.runs import RunFolder


def recipe(name: str = "small", seed: int = 0) -> Recipe:
    return loads(
        f'name = "{name}"\nseed = {seed}\n[model]\nname = "resnet18"\n[train]\nepochs = 2\n'
        '[[pass]]\nname = "train-dense"\n'
    )


def edit(run: RunFolder, **keys: object) -> None:
    (run.path / "run.json").write_text(record_text({**run.record, **keys}))


def test_a_run_folder_says_everything(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path / "runs", ["prunec", "train", "small"])
    assert run.path == tmp_path / "runs" / "small-001"
    assert run.recipe == recipe()
    assert (run.path / "recipe.toml").read_text() == dumps(recipe())
    assert run.record["digest"] == digest(recipe())
    assert run.record["command"] == ["prunec", "train", "small"]
    assert run.record["prunec"] == prunec_version()
    assert run.status == "new"
    machine = json.loads((run.path / "environment.json").read_text())
    actual = machine.pop("record_digest")
    assert actual == record_digest(machine)
    assert machine.pop("began") == beginning_digest(run.record)
    assert machine == json.loads(json.dumps(environment()))
    assert {"python", "torch", "torchvision", "onnx", "onnxruntime", "cpu", "cuda"} <= set(machine)


def test_its_places_lie_inside_it(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path)
    for place in (
        run.metrics,
        run.checkpoint,
        run.steps,
        run.export.path,
        run.step(3, "absorb-gates"),
    ):
        assert place.is_relative_to(run.path)
    assert run.step(3, "absorb-gates").name == "03-absorb-gates"


def test_numbers_rise_for_each_recipe_and_are_not_reused(tmp_path: Path) -> None:
    runs = [create_run(recipe(name), tmp_path) for name in ("a", "b", "a", "a")]
    assert [run.name for run in runs] == ["a-001", "b-001", "a-002", "a-003"]
    (tmp_path / "a-004").mkdir()  # a folder of somebody else
    assert create_run(recipe("a"), tmp_path).name == "a-005"


def test_a_name_that_begins_with_another_has_its_own_numbers(tmp_path: Path) -> None:
    create_run(recipe("a-7"), tmp_path)
    assert create_run(recipe("a"), tmp_path).name == "a-001"


def test_marking_keeps_the_rest(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path)
    before = run.record
    run.mark("interrupted")
    assert run.record == {**before, "status": "interrupted"}


def test_only_one_process_trains_a_run(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path)
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RunError, match="another process is working on"), run.held():
            pass
        holder.kill()
    with run.held():
        assert run.status == "new"


HOLDER = """
import sys, time
from pathlib import Path
from prunec.store.runs import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_latest_run_is_the_one_created_last_whatever_its_name(tmp_path: Path) -> None:
    create_run(recipe("zebra"), tmp_path)
    last = create_run(recipe("ant"), tmp_path)
    create_run(recipe("bee"), tmp_path / "elsewhere")
    assert latest_run(tmp_path) == last
    assert latest_run(tmp_path, "zebra").name == "zebra-001"


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    whole = create_run(recipe(), tmp_path)
    (create_run(recipe(), tmp_path).path / "run.json").write_text("{")
    assert latest_run(tmp_path) == whole
    assert create_run(recipe(), tmp_path).name == "small-003"


def test_without_runs_the_remedy_is_to_train(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="prunec train"):
        latest_run(tmp_path / "none")


def test_another_folder_is_no_run(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(RunError, match="not a run folder") as caught:
        open_run(tmp_path / "photos")
    assert run.name in caught.value.remedy


def test_a_run_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path)
    major, minor, *_ = prunec_version().split(".")
    edit(run, prunec=f"{major}.{minor}.99")
    assert open_run(run.path) == run
    edit(run, prunec="99.1.0")
    with pytest.raises(RunError, match=r"was written by prunec 99\.1\.0") as caught:
        open_run(run.path)
    assert "git checkout v99.1.0 && pip install ." in caught.value.remedy
    with pytest.raises(RunError, match="99"):
        latest_run(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\0", '"run"', "[" * 9999])
def test_a_damaged_record_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    run = create_run(recipe(), tmp_path)
    (run.path / "run.json").write_text(text)
    with pytest.raises(RunError, match="damaged"):
        open_run(run.path)


def test_a_damaged_recipe_is_named(tmp_path: Path) -> None:
    run = create_run(recipe(), tmp_path)
    (run.path / "recipe.toml").write_text("name = 3")
    with pytest.raises(RecipeError, match=r"small-001/recipe\.toml"):
        assert run.recipe
    (run.path / "recipe.toml").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        assert run.recipe


def test_a_file_in_the_place_of_the_root_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="no run folder can be created") as caught:
        create_run(recipe(), tmp_path / "runs")
    assert "--runs" in caught.value.remedy


def test_the_root_is_an_option_a_variable_or_the_current_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("PRUNEC_RUNS", "/elsewhere")
    assert runs_root() == Path("/elsewhere")
    assert runs_root(Path("here")) == Path("here")


def test_a_run_is_found_by_path_name_recipe_or_none(tmp_path: Path) -> None:
    first, second = create_run(recipe(), tmp_path), create_run(recipe(), tmp_path)
    other = create_run(recipe("other"), tmp_path)
    assert find_run(str(first.path), tmp_path / "none") == first
    assert find_run("small-001", tmp_path) == first
    assert find_run("small", tmp_path) == second
    assert find_run(None, tmp_path) == other
    with pytest.raises(RunError, match="there is no run big") as caught:
        find_run("big", tmp_path)
    assert "small-002" in caught.value.remedy
    assert run_folders(tmp_path) == [other, first, second]


def test_a_run_continues_only_with_its_own_recipe(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(dumps(recipe()))
    run = create_run(recipe(), tmp_path)
    assert resumed_run(None, [], tmp_path) == run
    assert resumed_run("small-001", [], tmp_path) == run
    assert resumed_run(str(file), [], tmp_path) == run
    with pytest.raises(RunError, match="is not the recipe that"):
        resumed_run(str(file), ["seed=1"], tmp_path)
    with pytest.raises(RunError, match="continues with the recipe"):
        resumed_run(None, ["seed=1"], tmp_path)


def test_a_finished_run_is_continued_only_where_its_artifact_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(recipe(), tmp_path)
    run.mark("trained")
    assert resumed_run(None, [], tmp_path) == run
    monkeypatch.setattr(OpenedRun, "damaged", ())
    with pytest.raises(RunError, match="is fully trained") as caught:
        resumed_run(None, [], tmp_path)
    assert "prunec export" in caught.value.remedy


@pytest.mark.parametrize("command", [count, inspect, lambda run: export(run, None)])
def test_a_step_that_was_left_and_is_missing_is_named(
    tmp_path: Path, command: Callable[[RunFolder], object]
) -> None:
    run = create_run(recipe(), tmp_path)
    with pytest.raises(RunError, match=r"is not fully trained|has no finished pass"):
        command(run)
    run.keep({"steps/00-train-dense/artifact.json": "0" * 64})
    with pytest.raises(
        DamagedRecord, match=r"00-train-dense .*artifact\.json is missing"
    ) as caught:
        command(run)
    assert f"prunec train --resume {run.path}" in caught.value.remedy


def test_one_test_image_is_example_enough(tmp_path: Path) -> None:
    """The example has two samples: a batch of one is blamed on the network where it is captured."""
    for split in ("train", "val"):
        folder = tmp_path / "images" / split / "only"
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32), (10, 90, 200)).save(folder / "one.png")
    table = f'[data]\nname = "imagefolder"\nroot = "{tmp_path}/images"\n'
    model = '[model]\nname = "mobilenet_v2"\noptions = { width_mult = 0.1 }\n'
    recipe = loads(f'name = "one"\n{model}{table}[[pass]]\nname = "remove-channels"\n')
    (example,) = OpenedRun(create_run(recipe, tmp_path / "runs")).fresh().example
    assert example.shape == (2, 3, 32, 32)
    assert torch.equal(example[0], example[1])
