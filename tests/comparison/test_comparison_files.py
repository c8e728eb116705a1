"""`prunec compare`: its tables, pictures and page; what is told of cells that failed."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from compared import compare, results_of
from comparison_recipes import write_recipe

from prunec.comparison.folder import ComparisonFolder, failure_of
from prunec.comparison.grid import expand
from prunec.comparison.plot import plot_file
from prunec.comparison.results import Result, Row, aggregated
from prunec.comparison.tables import accuracy_text, to_csv, to_markdown

SEEDS = 2


@pytest.mark.slow
def test_a_comparison_gives_every_file(recipes: list[str], tmp_path: Path, stub: None) -> None:
    """Cells run once; the same command only writes anew; a mean is the mean of its seeds."""
    folder = tmp_path / "out"
    command = (*recipes, "--sparsity", "0.5,0.9", "--seeds", SEEDS, "-o", folder, "--jobs", 2)
    told = compare(*command)
    assert "10 cells, 0 done, 10 left" in told
    assert "dense: the training pass has no sparsity" in told
    results = results_of(folder, expand(recipes, sparsities=(0.5, 0.9), seeds=SEEDS))
    assert all(result.state == "done" and result.proven for result in results)
    assert {r.sparsity for r in results} == {0.0, 0.5, 0.9}
    assert {r.seconds for r in results} == {3.0}
    check_aggregation(results)
    check_csv(folder, results)
    check_pictures(folder)
    check_page(folder, results)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "10 done, 0 left" in compare(*command)
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
        assert row.n == row.cells == row.proven == len(accuracies) == SEEDS
        mean = sum(accuracies) / SEEDS
        assert row.accuracy == pytest.approx(mean)
        variance = sum((a - mean) ** 2 for a in accuracies) / (SEEDS - 1)
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
    """The page refers to nothing outside the folder; references within the page exist."""
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


@pytest.mark.slow
def test_a_failed_cell_is_reported_and_the_others_go_on(tmp_path: Path, stub: None) -> None:
    good = write_recipe(tmp_path, "gmp")
    bad = write_recipe(tmp_path, "rigl", learning_rate="1e9")
    folder = tmp_path / "out"
    told = compare(bad, good, "--seeds", 2, "-o", folder, code=2)
    assert told.count("failed, training diverged") == 2
    results = {(r.method, r.seed): r for r in results_of(folder, expand([bad, good], seeds=2))}
    assert results["gmp", 1].state == "done"
    assert results["rigl", 0].state == "failed"
    assert "training diverged" in results["rigl", 0].message
    assert "0 of 2, 2 failed" in (folder / "table.md").read_text()
    page = (folder / "report.html").read_text()
    assert "2 of 4 cells failed" in page
    run = ComparisonFolder(folder).existing(expand([bad]).cells)["rigl-s0.5-seed0"]
    failure = failure_of(run)
    assert failure is not None
    assert (failure.step, failure.remedy) == ("train", "lower train.learning_rate")
    # Again: what failed is tried again, what is done is not; the cure begins a new run.
    compare(bad, good, "--seeds", 2, "-o", folder, code=2)
    assert (run.path / "calls.txt").read_text().split() == ["train", "train"]
    write_recipe(tmp_path, "rigl", learning_rate="0.1")
    told = compare(bad, good, "--seeds", 2, "-o", folder)
    assert "rigl-s0.5-seed0-001: its recipe has changed since" in told
    assert "4 cells, 2 done, 2 left" in told
    assert (folder / "runs" / "rigl-s0.5-seed0-002").is_dir()


@pytest.mark.slow
def test_a_file_that_is_not_proven_is_said(tmp_path: Path, stub: None) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    folder = tmp_path / "out"
    told = compare(recipe, "--seeds", 4, "-o", folder, code=2)
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


def test_an_empty_comparison_has_tables_and_pictures() -> None:
    rows = aggregated([Result("gmp", 0.5, 0, "waiting", False)])
    assert rows[0].accuracy is rows[0].deviation is None
    assert accuracy_text(rows[0]) == "—"
    ET.fromstring(plot_file(rows))
    assert to_csv(rows, Row).count("\n") == 2
