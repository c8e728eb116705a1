"""A run folder as a training and an export leave it, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunec.recipe import digest, dumps, loads
from prunec.store.kept_records import keep_records
from prunec.store.metrics import MetricsLog
from prunec.store.new_runs import create_run
from prunec.store.records import record_text
from prunec.store.runs import RunFolder

HOSTILE = '<script>alert("x")</script>&\'"<img src=http://evil.example/a.png>'
LAYERS = ("features.0.0", "features.1.conv.0.0", "classifier.1")
EPOCHS = 6

RECIPE = """
name = "small"
description = 'DESCRIPTION'
[model]
name = "resnet18"
[train]
epochs = 6
[[pass]]
name = "train-gdp"
dense_epochs = 1
select_epochs = 2
macs_ratio = 0.5
"""


def epoch(number: int) -> dict[str, Any]:
    """A line of metrics."""
    left = 1 - 0.5 * (number - 1) / (EPOCHS - 1)
    return {
        "pass": "train-gdp",
        "epoch": number,
        "loss": 2.0 / number,
        "train_accuracy": 90 - 40 / number,
        "test_accuracy": 88.25 - 30 / number + 30 / EPOCHS,
        "learning_rate": 0.1 * (1 - number / EPOCHS),
        "images_per_second": 1000.0 + number,
        "seconds": 12.5,
        "macs_ratio": left,
        "layers": {"gates open": dict.fromkeys(LAYERS, left)},
        "histograms": {"gate g": {"edges": [0.0, 0.5, 1.0], "counts": [number, EPOCHS]}},
    }


def step(name: str, error: float | None, macs: tuple[int, int]) -> dict[str, Any]:
    """A step of a history."""
    return {
        "name": name,
        "options": {"round_to": 8},
        "facts": ["trained"],
        "macs": list(macs),
        "params": [2000, 1000],
        "error": error,
        "seconds": 1.5,
        "digest": f"digest-of-{name}",
        "notes": [f"a note of {name}"],
        "details": {"removed": 12},
    }


def layer(name: str, left: int) -> dict[str, Any]:
    """A layer that had 1000 MACs."""
    return {
        "name": name,
        "operator": "conv2d",
        "inputs": [8, 16],
        "outputs": [16, 32],
        "macs": [left, 1000],
        "params": [100, 200],
        "nonzero_params": 50,
    }


def parity(passed: bool = True) -> dict[str, Any]:
    """The report of an export."""
    checks = [
        {"name": "MACs", "expected": 1500, "found": 1500, "tolerance": None, "passed": True,
         "message": ""},
        {"name": "outputs, random", "expected": 0.0, "found": 2e-6, "tolerance": 1e-4,
         "passed": passed, "message": "" if passed else "the outputs differ"},
    ]  # fmt: skip
    details = {
        "file": "export/onnx/model.onnx",
        "bytes": 51234,
        "dense bytes": 99999,
        "accuracy": 88.25,
        "test samples": 2000,
        "not checked": ["latency against dense: it was not measured"],
        "classes": [[120, 100, 99], [80, 70, 70], [0, 0, 0]],
        "flips": [{"index": 7, "label": 0, "network": 0, "file": 1, "png": "aWNv"}],
        "latency": {"shipped_ms": 1.0, "dense_ms": 2.0, "ratio": 0.5},
    }
    form = {"passed": passed, "checks": checks, "details": details}
    layers = [layer(name, 250 * i) for i, name in enumerate(LAYERS)]
    data = {
        "name": "embedded",
        "samples": {"train": 60, "test": 20},
        "sha256": {"train": "sha-of-train", "test": "sha-of-test"},
        "digest_of": "images and labels",
    }
    return {"passed": passed, "layers": layers, "data": data, "forms": {"onnx": form}}


FEEDING = {
    "inputs": [{"shape": [1, 28, 28], "type": "float32", "layout": "NCHW"}],
    "kind": "image",
    "mean": [0.25],
    "std": [0.5],
    "labels": ["shirts", "hats"],
    "how_to_feed": "Take an image and divide by 255.",
}


def new_run(root: Path, description: str = "a small run") -> RunFolder:
    """A run that has not begun to train."""
    recipe = loads(RECIPE, "test").model_copy(update={"description": description})
    assert loads(dumps(recipe), "again") == recipe
    return create_run(recipe, root, ["/usr/bin/prunec", "train", "a b.toml"])


def trained_run(root: Path, epochs: int = EPOCHS) -> RunFolder:
    """A run that stopped after some epochs: no artifact, no export."""
    run = new_run(root)
    log = MetricsLog(run.metrics, run.identity)
    for number in range(epochs):
        log.append(epoch(number + 1))
    run.mark("interrupted")
    return run


def exported_run(root: Path, passed: bool = True) -> RunFolder:
    """A run with everything."""
    run = trained_run(root)
    history = [
        step("train-gdp", None, (3000, 3000)),
        step("remove-channels", 1.8e-7, (3000, 1500)),
        step("fold-batchnorm", 1.1e-6, (1500, 1500)),
        step("compact-masks", 0.0, (1500, 1500)),
    ]
    write(run.step(3, "compact-masks") / "artifact.json", {"format": 1, "history": history})
    write(run.export.report, parity(passed))
    write(run.export.manifest, {"onnx": {"sha256": "sha-of-the-file", "feeding": FEEDING}})
    run.mark("exported")
    return run


def restate(run: RunFolder, old: str, new: str) -> None:
    """Let a run have begun with another recipe: ``new`` stands where ``old`` does."""
    text = (run.path / "recipe.toml").read_text()
    assert old in text
    recipe = loads(text.replace(old, new), "test")
    (run.path / "recipe.toml").write_text(dumps(recipe))
    (run.path / "run.json").write_text(record_text({**run.record, "digest": digest(recipe)}))


def write(path: Path, value: object) -> None:
    """Write a record with its digest, and let its run keep that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record_text(value) if isinstance(value, dict) else json.dumps(value))
    for folder in path.parents:
        if (folder / "run.json").is_file() and path.name != "run.json":
            keep_records(RunFolder(folder), path)
