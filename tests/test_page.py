"""The page of a run: whole, escaped, offline, and never a crash, whatever the folder holds."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    EPOCHS,
    HOSTILE,
    LAYERS,
    epoch,
    exported_run,
    new_run,
    parity,
    trained_run,
    write,
)
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.page import page_text, write_report
from prunec.store.metrics import MetricsLog
from prunec.store.runs import RunFolder

VOID = {"meta", "link", "br", "img", "hr", "input"}
FETCHES = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}


@dataclass
class Reader(HTMLParser):
    """Parser in place of a browser: balanced tags, texts, and references."""

    text: str
    open: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attributes if name in FETCHES]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))


def seen(run: RunFolder) -> Reader:
    """The page, which must be sound whatever the run."""
    text = page_text(run)
    page = Reader(text)
    assert "script" not in page.tags
    picture = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]*={0,2}")
    page.fetched = [link for link in page.fetched if not picture.fullmatch(link)]
    assert all(link.startswith("#") for link in page.fetched)
    assert not re.search(r"@import|url\(", text)
    targets = set(re.findall(r'id="([^"]+)"', text))
    assert {link[1:] for link in page.fetched} <= targets
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)
        assert "nan" not in drawing
        assert "inf" not in re.sub(r">[^<]*<|\"[^\"]*[a-z]{4}[^\"]*\"", "", drawing)
    return page


def sections(run: RunFolder) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page_text(run))


def test_a_whole_run_has_every_section(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    write(run.path / "settings.json", SETTINGS)
    everything = [
        "exports", "samples", "training", "method", "layers", "passes", "checks", "feed",
        "settings", "reproduce",
    ]  # fmt: skip
    assert sections(run) == everything
    words = seen(run).words
    assert "Not everything could be read" not in words
    assert "all 2 checks passed" in words
    assert "88.25 %" in words
    assert "50.0 % of the dense 3,000" in words
    for name in (*LAYERS, "digest-of-compact-masks", "sha-of-the-file", "prunec train 'a b.toml'"):
        assert name in words
    assert run.recipe.model.name in words


def test_the_recipe_on_the_page_is_the_recipe(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    assert (run.path / "recipe.toml").read_text() in "".join(seen(run).said)


def test_each_pass_says_how_it_was_proven(tmp_path: Path) -> None:
    words = seen(exported_run(tmp_path)).words
    assert "differ by 1.8e-07 of their largest value, 1e-06 is allowed" in words
    assert (
        "1.1e-06 of their largest value, which is rounding: in float64 they agree to 1e-10" in words
    )
    assert "outputs before and after are identical" in words
    assert "so there is no equality to prove" in words


def test_a_failed_check_is_the_first_thing_said(tmp_path: Path) -> None:
    words = seen(exported_run(tmp_path, passed=False)).words
    assert "failed 1 of 2 checks failed, at export: do not ship" in words
    assert "the outputs differ" in words


def test_verify_after_the_export_has_the_last_word(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    write(run.export.verified, parity(passed=False))
    words = seen(run).words
    assert "1 of 2 checks failed, verified" in words
    assert "At export" in words


def test_forms_that_answer_as_the_network_share_a_line(tmp_path: Path) -> None:
    """A column is for a form that differs: many equal columns would be cut on a narrow screen."""
    run = exported_run(tmp_path)
    record = json.loads(run.export.report.read_text())
    (form,) = record["forms"]
    same = json.loads(json.dumps(record["forms"][form]))
    same["details"]["classes"] = [[n, right, right] for n, right, _ in same["details"]["classes"]]
    write(run.export.report, {**record, "forms": {**record["forms"], "same": same}})
    words = seen(run).words
    assert "As the network in every class: same." in words
    assert f"network {form} shirts 120 83.33 % 82.50 %" in words


def test_what_is_signed_is_said(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    page = seen(run)
    for text in (
        "51.2 kB 51.2 % Accuracy 88.25 %", "2 checks passed, on 2,000 test",
        "shirts 120 83.33 % 82.50 %", "hats 80 87.50 % 87.50 %", "shirts → hats",
        "test sample 7: shirts", "Take an image and divide by 255.", "float32 [batch, 1, 28, 28]",
        "test split, 20 samples, sha256 of images and labels sha-of-test",
        "The torch graph and the file have equally many multiply-accumulates",
        "Zeros 50.0 % of 300 kernel weights; dense kernels compute with them nevertheless",
    ):  # fmt: skip
        assert text in page.words, text
    assert "img" in page.tags
    assert 'src="data:image/png;base64,aWNv"' in page.text


def test_the_dense_network_stands_beside_what_ships(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    lines[0]["dense_phase"] = {"accuracy": 91.5, "epochs": 0.5, "class 0": 84.5, "class 1": 100.0}
    run.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    path = run.step(3, "compact-masks") / "artifact.json"
    record = json.loads(path.read_text())
    record["history"][0]["facts"] = ["trained", "gated"]
    record["history"][0]["details"] = {"dense_phase_accuracy": 91.5}
    for step in record["history"]:
        step["macs"] = [3000, 3000]
    write(path, record)
    words = seen(run).words
    assert "2,000 test images; at the end of the dense phase 91.50 %" in words
    assert "as in the dense network: nothing was cut" in words
    assert "class samples dense phase network onnx" in words
    assert "shirts 120 84.50 % 83.33 % 82.50 %" in words


@pytest.mark.parametrize("png", ['"><script>', "a b", "x" * 300_000, "aa=a"])
def test_what_is_no_picture_is_none(tmp_path: Path, png: str) -> None:
    run = exported_run(tmp_path)
    report = parity()
    report["forms"]["onnx"]["details"]["flips"][0]["png"] = png
    write(run.export.report, report)
    page = seen(run)
    assert "img" not in page.tags
    assert "report.json is damaged" in page.words


@pytest.mark.parametrize(
    ("install", "line"),
    [
        ("git checkout abc && pip install .", "git checkout abc && pip install ."),
        (None, "git checkout v"),
    ],
)
def test_the_line_that_installs_is_that_of_this_build(
    tmp_path: Path, install: str | None, line: str
) -> None:
    run = exported_run(tmp_path)
    path = run.path / "environment.json"
    write(path, {**json.loads(path.read_text()), "install": install, "commit": "abcdef+"})
    words = seen(run).words
    assert line in words
    assert "commit of the working folder abcdef+" in words


def test_lengths_of_bars_are_macs(tmp_path: Path) -> None:
    """The bars of a layer are as long as its MACs by the largest of the dense network."""
    text = page_text(exported_run(tmp_path))
    bars = re.findall(r'<rect class="after"[^>]* y="8" width="([\d.]+)%"[^>]*><title>shipped', text)
    assert [float(bar) for bar in bars] == [0, 25, 50]


def test_an_interrupted_run_shows_what_there_is(tmp_path: Path) -> None:
    run = trained_run(tmp_path, epochs=2)
    assert sections(run) == ["training", "method", "reproduce"]
    assert "not exported yet; train-gdp after epoch 2 of 6" in seen(run).words


def test_a_run_of_one_epoch_and_one_without_any(tmp_path: Path) -> None:
    assert sections(trained_run(tmp_path, epochs=1)) == ["training", "method", "reproduce"]
    assert sections(new_run(tmp_path)) == ["reproduce"]
    seen(trained_run(tmp_path, epochs=1))


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    seen(RunFolder(tmp_path / "nothing"))


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """The same hostile text in every text of every file; a browser must see it as text."""
    run = exported_run(tmp_path)
    (run.path / "recipe.toml").write_text(
        (run.path / "recipe.toml").read_text().replace("a small run", "DESCRIPTION")
    )
    for path in run.path.rglob("*.json*"):
        whole = path.read_text()
        parts = whole.splitlines() if path.suffix == ".jsonl" else [whole]
        path.write_text("\n".join(json.dumps(spoiled(json.loads(part))) for part in parts))
    write(run.path / "settings.json", spoiled({"x": SETTINGS["train-gdp"]}))
    page = seen(run)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.words.count("alert") > 20


def spoiled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k if k in KEYS else k + HOSTILE: spoiled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


SETTINGS = {
    "train-gdp": {
        "chosen": {"precision": "bf16", "channels_last": True, "threads": 2},
        "measured": [
            {"precision": "off", "channels_last": False, "threads": 1, "seconds": 0.5,
             "loss": 2.31, "agrees": True},
            {"precision": "bf16", "channels_last": True, "threads": 2, "seconds": 0.125,
             "loss": 2.3, "agrees": True},
        ],
    }
}  # fmt: skip

FORM = parity()["forms"]["onnx"]

# Keys that the page reads: as other keys they would only be left out.
KEYS = {
    *("format", "history", "sha256", "prunec", "recipe", "digest", "command", "status", "created"),
    *parity(), *FORM, *FORM["checks"][0], *FORM["details"], *parity()["layers"][0],
    *("onnx", "runner", "device", "version", "checked"),
    *("shipped_ms", "dense_ms", "ratio", "edges", "counts", "layers", "histograms"),
    *("pass", "epoch", "name", "options", "facts", "macs", "params", "error", "seconds", "digest",
      "notes", "details", "chosen", "measured", "precision"),
}  # fmt: skip


LAYER = {
    "name": "relu_3", "operator": "sparse", "milliseconds": 0.5,
    "work": {"density": 0.05, "products": 10**6, "bytes": 10**5, "dense_bytes": 10**6},
}  # fmt: skip
SPEEDS = {
    "runner": "C beside onnxruntime", "measured": "2026-11-29T01:02:03+00:00",
    "peaks": {"gmacs": 8.0, "gbytes": 4.0}, "shipped": [LAYER],
    "dense": [{"name": "relu_3_nchwc", "operator": "Conv", "milliseconds": 1.25}],
}  # fmt: skip


def test_layers_that_were_measured_stand_under_their_roof(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    write(run.export.layers, SPEEDS)
    assert "speeds" in sections(run)
    words = seen(run).words
    assert "C beside onnxruntime, 2026-11-29" in words
    # A million products in half a millisecond: a quarter of the peak. The dense layer by its name.
    assert "relu_3 sparse 5.0 % 0.5000 2.00 25 % 25 % 1.2500" in words
    assert page_text(run).count('class="spot') == 2


@pytest.mark.parametrize("number", [0, 1e300, float("nan"), float("inf"), -1, None])
def test_layers_with_numbers_that_nobody_measured(tmp_path: Path, number: float | None) -> None:
    """Named or shown, and never an error."""
    for place in ("gmacs", "gbytes"):
        run = exported_run(tmp_path / place)
        write(run.export.layers, {**SPEEDS, "peaks": {**SPEEDS["peaks"], place: number}})
        assert "layers.json is damaged: peaks" in seen(run).words
    for place in ("density", "products", "bytes", "dense_bytes"):
        run = exported_run(tmp_path / place)
        layer = {**LAYER, "work": {**LAYER["work"], place: number}, "milliseconds": 0}
        write(run.export.layers, {**SPEEDS, "shipped": [layer]})
        assert "relu_3" in seen(run).words or "layers.json is damaged" in seen(run).words


def test_settings_are_shown_the_fastest_first(tmp_path: Path) -> None:
    run = trained_run(tmp_path)
    write(run.path / "settings.json", SETTINGS)
    words = seen(run).words
    assert re.search(r"bf16 yes 2 125\.0 2\.3 yes chosen.*off no 1 500\.0 2\.31 yes", words)


DAMAGE: dict[str, Callable[[RunFolder], object]] = {
    "a line that broke off": lambda run: append(run.metrics, b'{"pass": "train-gdp", "ep'),
    "a line of bytes": lambda run: append(run.metrics, b"\xff\xfe\x00\n"),
    "a line that is a list": lambda run: append(run.metrics, b"[1, 2]\n"),
    "a line without epoch": lambda run: append(run.metrics, b'{"pass": "x"}\n'),
    "a line too deep": lambda run: append(run.metrics, b"[" * 100_000 + b"\n"),
    "a histogram of texts": lambda run: append(
        run.metrics, json.dumps({**epoch(7), "histograms": {"g": {"edges": ["a"]}}}).encode()
    ),
    "a histogram that lacks a count": lambda run: append(
        run.metrics,
        json.dumps({**epoch(7), "histograms": {"g": {"edges": [0, 1, 2], "counts": [1]}}}).encode(),
    ),
    "an artifact that broke off": lambda run: append(
        run.step(3, "compact-masks") / "artifact.json", b"{"
    ),
    "a history of another shape": lambda run: write(
        run.step(3, "compact-masks") / "artifact.json", {"history": [{"name": 3}]}
    ),
    "a report of another shape": lambda run: write(run.export.report, {"passed": 1}),
    "a manifest that is a list": lambda run: write(run.export.manifest, [1]),
    "settings of another shape": lambda run: write(run.path / "settings.json", {"a": 3}),
    "a record that is no JSON": lambda run: append(run.path / "run.json", b"}"),
    "a recipe that is none": lambda run: append(run.path / "recipe.toml", b"= = ="),
    "a folder in the place of a file": lambda run: (run.path / "settings.json").mkdir(),
}


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named_and_the_rest_is_shown(tmp_path: Path, damage: str) -> None:
    run = exported_run(tmp_path)
    DAMAGE[damage](run)
    words = seen(run).words
    assert "Not everything could be read" in words
    assert f"epoch {EPOCHS}" in words


def test_numbers_that_no_chart_can_show_are_left_out(tmp_path: Path) -> None:
    run = exported_run(tmp_path)
    odd: dict[str, Any] = {
        "loss": float("nan"),
        "seconds": float("inf"),
        "images_per_second": 10**400,
        "learning_rate": 1e308,
        "other": True,
        "text": "\ud800\x00",
        "layers": {"gates open": {LAYERS[0]: float("nan"), LAYERS[1]: None}},
        "histograms": {"gate g": {"edges": [0.0, 0.5, 1.0], "counts": [0, 0]}},
    }
    MetricsLog(run.metrics, run.identity).append({**epoch(EPOCHS + 1), **odd})
    record = run.record
    write(run.path / "run.json", {**record, "created": "\ud800\x00"})
    page = seen(run)
    assert "Not everything" not in page.words
    write_report(run).read_text("utf-8")


def test_values_that_never_change_have_an_axis(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for value in (0, -3, 1e-20, 1e29, 7):
        lines = [{"pass": "p", "epoch": i, "same": value, "layers": {"q": {"a": value}}}
                 for i in range(3)]  # fmt: skip
        run.metrics.write_text("\n".join(map(json.dumps, lines)))
        assert "Same" in seen(run).words


@pytest.mark.slow
def test_a_long_training_of_a_deep_network_stays_a_small_page(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    lines = [
        {
            **epoch(1),
            "epoch": i + 1,
            "layers": {"density": {f"l{j}": i * j % 97 for j in range(60)}},
        }
        for i in range(300)
    ]
    run.metrics.write_text("\n".join(map(json.dumps, lines)))
    seen(run)
    assert len(page_text(run)) < 2_000_000


def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    run = trained_run(tmp_path)
    result = CliRunner().invoke(app, ["report", str(run.path)])
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()) == run.path / "report.html"
    assert (run.path / "report.html").read_text("utf-8") == page_text(run)
