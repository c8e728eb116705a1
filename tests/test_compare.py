"""`prunec compare`: its grid, its terms, its tables and pictures, and that it goes on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from comparison_stub import DENSE
from forked import Forked
from sampling import slow_case
from test_end_to_end import prunec, write_images

from prunec.cli.commands import main
from prunec.comparison import job, machine_shares
from prunec.comparison.folder import ComparisonFolder, default_folder, failure_of
from prunec.comparison.grid import Grid, expand, parse_sparsities
from prunec.comparison.plot import plot_file
from prunec.comparison.results import Result, Row, aggregated, read_results
from prunec.comparison.tables import accuracy_text, to_csv, to_markdown
from prunec.errors import RecipeError

TESTS = Path(__file__).parent
EPOCHS = 40  # of a training that is stopped twice: it must not end before
HEAD = """
name = "NAME"
device = "cpu"
[model]
name = "end_to_end_net:Tiny"
[data]
name = "imagefolder"
root = "ROOT"
[train]
epochs = 2
batch_size = 16
learning_rate = 0.05
precision = "fp32"
channels_last = false
threads = 1
[verify.budget]
latency_ratio = false
"""
PASSES = {
    "dense": 'name = "train-dense"',
    "gmp": 'name = "train-gmp"\nsparsity = 0.5',
    "rigl": 'name = "train-rigl"\nsparsity = 0.5',
}
CUT = """
[[pass]]
name = "compact-masks"
[[pass]]
name = "fold-batchnorm"
"""


def write_recipe(folder: Path, name: str, **changes: str) -> str:
    """Write a recipe; return its path."""
    text = f"{HEAD}[[pass]]\n{PASSES[name]}\n{CUT}".replace("NAME", name)
    text = text.replace("ROOT", str(folder / "images"))
    for old, new in changes.items():
        text = re.sub(rf"^{old} = .*$", f"{old} = {new}", text, flags=re.MULTILINE)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    return [write_recipe(tmp_path, name) for name in PASSES]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are no trainings: they leave what one leaves."""
    monkeypatch.setattr(job, "PROGRAM", (sys.executable, str(TESTS / "comparison_stub.py")))
    monkeypatch.setattr("prunec.comparison.pool.PAUSE", 0.01)
    monkeypatch.setattr("prunec.comparison.compare.require_ready", lambda cells: None)


def compare(*arguments: object, code: int = 0) -> str:
    answer = prunec("compare", *map(str, arguments), code=code)
    return answer.text + answer.errors


# -- the grid --------------------------------------------------------------------------------------


def test_a_grid_is_every_recipe_at_every_sparsity_and_seed(recipes: list[str]) -> None:
    grid = expand(recipes, sparsities=(0.5, 0.99), seeds=3, changes=["train.epochs=4"])
    found = [(cell.method, cell.sparsity, cell.seed) for cell in grid.cells]
    wanted = {(m, s, k) for m in ("gmp", "rigl") for s in (0.5, 0.99) for k in range(3)}
    assert sorted(map(str, found)) == sorted(map(str, wanted | {("dense", None, k) for k in
                                                                range(3)}))  # fmt: skip
    assert len({cell.name for cell in grid.cells}) == len({c.digest for c in grid.cells}) == 15
    for cell in grid.cells:
        assert cell.recipe.train.epochs == 4
        assert cell.recipe.seed == cell.seed
        assert cell.recipe.passes[0].get("sparsity") == cell.sparsity
    assert [cell.seed for cell in grid.cells] == sorted(cell.seed for cell in grid.cells)
    assert "dense" in grid.notes[0]


def test_without_sparsities_each_recipe_has_its_own(recipes: list[str]) -> None:
    own, asked = expand(recipes), expand(recipes, sparsities=(0.5,))
    assert own.cells == asked.cells
    assert not own.notes


def test_densities_of_a_run_leave_no_sparsity_to_ask_for(tmp_path: Path) -> None:
    path = Path(write_recipe(tmp_path, "gmp"))
    asked = f'sparsity = 0.5\nspread = "densities"\ndensities = "{tmp_path}/b.json"'
    path.write_text(path.read_text().replace("sparsity = 0.5", asked))
    digests = set()
    for density in (0.5, 0.25):
        (tmp_path / "b.json").write_text(json.dumps({"density": {"layer1.0.conv": density}}))
        (cell,) = expand([str(path)], sparsities=(0.9, 0.99)).cells
        assert cell.sparsity is None
        assert cell.recipe.passes[0]["densities"] == {"layer1.0.conv": density}
        digests.add(cell.digest)
    assert len(digests) == 2


@pytest.mark.parametrize("text", ["", " ", "1", "-0.1", "0.9,,0.99", "much", "nan", "0.9;0.99"])
def test_what_is_no_sparsity_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="no share of zeros"):
        parse_sparsities(text)


def test_sparsities_are_read_in_order_each_once() -> None:
    assert parse_sparsities("0.99, 0.9,0.90") == (0.9, 0.99)


def test_different_sparsities_have_different_names(tmp_path: Path) -> None:
    """The short ones are those of folders that are there already."""
    text = "0.9,0.90000000001,0.995,0.99999999999,0.00001,0"
    cells = expand([write_recipe(tmp_path, "rigl")], sparsities=parse_sparsities(text)).cells
    assert [cell.name.removesuffix("-seed0") for cell in cells] == [
        "rigl-s0", "rigl-s1e-05", "rigl-s0.9", "rigl-s0.90000000001", "rigl-s0.995",
        "rigl-s0.99999999999",
    ]  # fmt: skip


def test_a_name_that_leaves_a_cells_no_room_is_refused(tmp_path: Path) -> None:
    path = Path(write_recipe(tmp_path, "gmp"))
    name = "g" * (80 - len("-s0.5-seed9"))
    path.write_text(path.read_text().replace('name = "gmp"', f'name = "{name}"', 1))
    assert len(expand([str(path)], seeds=10).cells[-1].name) == 80
    with pytest.raises(RecipeError, match="too long for the runs of a comparison") as error:
        expand([str(path)], seeds=11)
    assert "68 characters" in error.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("epochs", "3", "train.epochs"),
        ("batch_size", "8", "train.batch_size"),
        ("root", '"elsewhere"', "data.root"),
        ("precision", '"bf16"', "train.precision"),
    ],
)
def test_unequal_terms_are_refused_by_key(tmp_path: Path, key: str, value: str, told: str) -> None:
    one, other = write_recipe(tmp_path, "gmp"), write_recipe(tmp_path, "rigl", **{key: value})
    with pytest.raises(RecipeError) as error:
        expand([one, other])
    assert f"{told}:" in error.value.message
    assert "gmp" in error.value.message
    assert "rigl" in error.value.message
    assert error.value.remedy == f"Make them equal for all recipes: --set {told}=…"
    assert len(expand([one, other], changes=[f"{told}={value}"]).cells) == 2


def test_what_a_method_chooses_may_differ(tmp_path: Path) -> None:
    one = write_recipe(tmp_path, "gmp")
    other = write_recipe(tmp_path, "rigl", learning_rate="0.3", threads="2")
    assert len(expand([one, other]).cells) == 2


def test_more_training_passes_are_a_larger_budget(tmp_path: Path) -> None:
    one, other = write_recipe(tmp_path, "gmp"), write_recipe(tmp_path, "rigl")
    text = Path(other).read_text()
    Path(other).write_text(text.replace("[[pass]]", '[[pass]]\nname = "train-dense"\n[[pass]]', 1))
    with pytest.raises(RecipeError, match=r"training passes: 1 \(gmp\), 2 \(rigl\)"):
        expand([one, other])


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "gmp")
    with pytest.raises(RecipeError, match="two recipes are called 'gmp'"):
        expand([path, path])


def test_what_asks_for_nothing_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    assert "--seeds 0: nothing runs" in compare(recipe, "--seeds", 0, code=1)
    assert "is no share of zeros" in compare(recipe, "--sparsity", "", code=1)


def test_the_seed_is_the_grids_own(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a seed of its own"):
        expand([write_recipe(tmp_path, "gmp")], changes=["seed=5"])


def test_the_folder_is_the_same_for_the_same_recipes(recipes: list[str]) -> None:
    assert default_folder(expand(recipes)) == Path("comparisons/dense-gmp-rigl")
    assert default_folder(expand(recipes, seeds=3)) == default_folder(expand(recipes))


def test_the_cores_are_shared_out(recipes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine_shares, "cores", lambda: 8)
    grid = expand(recipes, sparsities=(0.5, 0.9), seeds=4)
    for jobs, threads in ((None, 1), (1, 8), (2, 4), (3, 2), (16, 1)):
        found = machine_shares.shares(grid.cells, jobs)
        assert len(found) == (jobs or 8)
        assert {share["OMP_NUM_THREADS"] for share in found} == {str(threads)}
    assert len(machine_shares.shares(grid.cells[:2], None)) == 2


def test_no_process_has_more_threads_than_the_user_allows(
    recipes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_shares, "cores", lambda: 8)
    cells = expand(recipes, seeds=4).cells
    for allowed, threads in (("1", 1), ("3,2", 3), ("64", 4), ("", 4), ("many", 4), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", allowed)
        assert machine_shares.shares(cells, 2)[0]["OMP_NUM_THREADS"] == str(threads)


def test_on_cuda_each_share_has_a_gpu(recipes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine_shares, "cores", lambda: 8)
    monkeypatch.setattr(machine_shares, "_gpus", lambda: ["2", "5"])
    cells = expand(recipes, seeds=2, changes=["device=auto"]).cells
    found = [share["CUDA_VISIBLE_DEVICES"] for share in machine_shares.shares(cells, 3)]
    assert found == ["2", "5", "2"]
    assert (
        machine_shares.described_shares(machine_shares.shares(cells, None))
        == "2 at once on 2 GPUs, 4 threads each"
    )
    on_cpu = expand(recipes, seeds=2).cells
    assert "CUDA_VISIBLE_DEVICES" not in machine_shares.shares(on_cpu, None)[0]


# -- results ---------------------------------------------------------------------------------------


def results_of(folder: Path, grid: Grid) -> tuple[Result, ...]:
    return read_results(grid.cells, ComparisonFolder(folder))


def test_a_comparison_gives_every_file(recipes: list[str], tmp_path: Path, stub: None) -> None:
    """Cells run once; the same command only writes anew; a mean is the mean of its seeds."""
    folder = tmp_path / "out"
    command = (*recipes, "--sparsity", "0.5,0.9", "--seeds", 3, "-o", folder, "--jobs", 2)
    told = compare(*command)
    assert "15 cells, 0 done, 15 left" in told
    assert "dense: no sparsity is asked" in told
    results = results_of(folder, expand(recipes, sparsities=(0.5, 0.9), seeds=3))
    assert all(result.state == "done" and result.proven for result in results)
    assert {r.sparsity for r in results} == {0.0, 0.5, 0.9}
    assert {r.seconds for r in results} == {3.0}
    check_aggregation(results)
    check_csv(folder, results)
    check_pictures(folder)
    check_page(folder, results)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "15 done, 0 left" in compare(*command)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == files
    for run in (folder / "runs").iterdir():
        assert (run / "calls.txt").read_text().split() == ["train", "export", "verify"]


def check_aggregation(results: tuple[Result, ...]) -> None:
    rows = aggregated(results)
    assert [(r.method, r.asked) for r in rows] == [
        ("dense", None), ("gmp", 0.5), ("gmp", 0.9), ("rigl", 0.5), ("rigl", 0.9)]  # fmt: skip
    for row in rows:
        own = [r for r in results if (r.method, r.asked) == (row.method, row.asked)]
        accuracies = [r.accuracy for r in own if r.accuracy is not None]
        assert row.n == row.cells == row.proven == len(accuracies) == 3
        mean = sum(accuracies) / 3
        assert row.accuracy == pytest.approx(mean)
        variance = sum((a - mean) ** 2 for a in accuracies) / 2
        assert row.deviation == pytest.approx(variance**0.5)
        assert row.nonzero_macs == pytest.approx(1000 * (1 - (row.asked or 0)))


def check_csv(folder: Path, results: tuple[Result, ...]) -> None:
    with open(folder / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(results)
    for line, result in zip(lines, results, strict=True):
        assert {k: v or None for k, v in line.items()} == {
            k: None if v in (None, "") else str(v) for k, v in vars(result).items()
        }
        assert float(line["accuracy"]) == result.accuracy
    with open(folder / "table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(r["deviation"]) for r in table] == [r.deviation for r in aggregated(results)]
    assert (folder / "table.md").read_text() == to_markdown(aggregated(results))


def check_pictures(folder: Path) -> None:
    root = ET.fromstring((folder / "plot.svg").read_text())
    texts = [node.text for node in root.iter() if node.tag.endswith("}text")]
    for name in ("dense", "gmp", "rigl", "Pareto front", "90"):
        assert name in texts


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {value or "" for key, value in attrs if key == "id"}
        self.references += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href")]


def check_page(folder: Path, results: tuple[Result, ...]) -> None:
    """Nothing outside the folder is referred to; within the page every reference has its end."""
    text = (folder / "report.html").read_text()
    links = Links(text)
    local = [name for name in links.references if name.startswith("#")]
    assert {name[1:] for name in local} <= links.names
    others = [name for name in links.references if not name.startswith("#")]
    assert len(others) == len(results)
    assert all((folder / name).is_file() for name in others)
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    assert "Reproduce" in text
    for panel in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(panel)


def test_a_failed_cell_is_told_and_the_others_go_on(tmp_path: Path, stub: None) -> None:
    good = write_recipe(tmp_path, "gmp")
    bad = write_recipe(tmp_path, "rigl", learning_rate="1e9")
    folder = tmp_path / "out"
    told = compare(bad, good, "--seeds", 2, "-o", folder, code=1)
    assert told.count("failed, training diverged") == 2
    results = {(r.method, r.seed): r for r in results_of(folder, expand([bad, good], seeds=2))}
    assert results["gmp", 1].state == "done"
    assert results["rigl", 0].state == "failed"
    assert "training diverged" in results["rigl", 0].message
    assert "0 of 2, 2 failed" in (folder / "table.md").read_text()
    page = (folder / "report.html").read_text()
    assert "2 of 4 cells failed" in page
    run = ComparisonFolder(folder).found(expand([bad]).cells)["rigl-s0.5-seed0"]
    failure = failure_of(run)
    assert failure is not None
    assert (failure.step, failure.remedy) == ("train", "lower train.learning_rate")
    # Again: what failed is tried again, what is done is not; the cure begins a new run.
    compare(bad, good, "--seeds", 2, "-o", folder, code=1)
    assert (run.path / "calls.txt").read_text().split() == ["train", "train"]
    write_recipe(tmp_path, "rigl", learning_rate="0.1")
    told = compare(bad, good, "--seeds", 2, "-o", folder)
    assert "rigl-s0.5-seed0-001: its recipe has changed since" in told
    assert "4 cells, 2 done, 2 left" in told
    assert (folder / "runs" / "rigl-s0.5-seed0-002").is_dir()


def test_a_file_that_is_not_proven_is_said(tmp_path: Path, stub: None) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    folder = tmp_path / "out"
    told = compare(recipe, "--seeds", 4, "-o", folder, code=1)
    assert "1 of 5 checks failed: weights" in told
    last = results_of(folder, expand([recipe], seeds=4))[-1]
    assert (last.state, last.proven) == ("failed", False)
    assert last.accuracy is not None
    assert "3 of 4, 1 failed" in (folder / "table.md").read_text()


def test_two_commands_on_one_folder_are_refused(tmp_path: Path, stub: None) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    with ComparisonFolder(tmp_path / "out").held():
        told = compare(recipe, "-o", tmp_path / "out", code=1)
    assert "another process is working on" in told


def test_missing_data_are_said_before_anything_runs(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    told = compare(recipe, "-o", tmp_path / "out", code=1)
    assert str(tmp_path / "images") in told
    assert not (tmp_path / "out" / "runs").exists()


def test_a_run_that_somebody_else_trains_is_waited_for(tmp_path: Path, stub: None) -> None:
    """A child that outlived its comparison goes on; its run is taken over when it has ended."""
    (cell,) = expand([write_recipe(tmp_path, "gmp")]).cells
    folder = ComparisonFolder(tmp_path / "out")
    run = folder.begun(cell)
    waiting = job.Job(cell, run, 0, {})
    with run.held():
        assert not waiting.advance()
        assert waiting.step == "wait"
    wait_for(waiting.advance)
    assert waiting.failure is None
    assert folder.begun(cell) == run


def test_an_empty_comparison_has_tables_and_pictures() -> None:
    rows = aggregated([Result("gmp", 0.5, 0, "waiting", False)])
    assert rows[0].accuracy is rows[0].deviation is None
    assert accuracy_text(rows[0]) == "—"
    ET.fromstring(plot_file(rows))
    assert to_csv(rows, Row).count("\n") == 2


# -- what goes on ----------------------------------------------------------------------------------


def started(options: list[str], folder: Path) -> Forked:
    """The command as a process of its own."""

    def command() -> None:
        sys.argv = ["prunec", "compare", *options]
        main()

    return Forked(command, folder)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(holds: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


SHORTER = f"""
import runpy
import sys
if sys.argv[1] == "train":
    runpy.run_module("prunec", run_name="__main__")
else:
    runpy.run_path({str(TESTS / "comparison_stub.py")!r}, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("whole", [False, slow_case(True, nightly=True)], ids=["shorter", "whole"])
def test_a_stopped_and_a_killed_comparison_go_on(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it saves; killed with its child, the same command ends what they began.

    The shorter way trains, and leaves what an export would.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.getenv("PYTHONPATH", "")]))
    if not whole:
        (tmp_path / "shorter.py").write_text(SHORTER)
        monkeypatch.setattr(job, "PROGRAM", (sys.executable, str(tmp_path / "shorter.py")))
    write_images(tmp_path / "images")
    recipe = write_recipe(tmp_path, "gmp", epochs=str(EPOCHS))
    folder, run = tmp_path / "out", tmp_path / "out" / "runs" / "gmp-s0.5-seed0-001"
    options = [recipe, "--seeds", "1", "-o", str(folder)]

    process = started(options, tmp_path)
    wait_for(lambda: len(lines_of(run)) >= 2)
    (child,) = children_of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    told = process.ended()
    assert told.returncode == 128 + signal.SIGTERM
    assert "The same command goes on." in told.stdout + told.stderr
    assert not alive(child)
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert (folder / "report.html").is_file()

    begun = len(lines_of(run))
    process = started(options, tmp_path)
    wait_for(lambda: len(lines_of(run)) > begun)
    (child,) = children_of(process.pid)
    for victim in (process.pid, child):
        os.kill(victim, signal.SIGKILL)
    assert process.ended().returncode == -signal.SIGKILL
    assert len(lines_of(run)) < EPOCHS

    assert "[1/1]" in compare(*options)
    assert (run / "log.txt").read_text().count("Continuing after") == 2
    (result,) = results_of(folder, expand([recipe]))
    assert result.proven
    assert [line["epoch"] for line in lines_of(run)] == list(range(1, EPOCHS + 1))
    report = json.loads((run / "export" / "report.json").read_text())["forms"]["onnx"]
    assert result.accuracy == report["details"]["accuracy"]
    assert result.macs == report["details"].get("macs", DENSE)
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    assert [path.name for path in (folder / "runs").iterdir()] == [run.name]


def lines_of(run: Path) -> list[Any]:
    path = run / "metrics.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def children_of(parent: int) -> list[int]:
    listed = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]
