"""Runs that were trained, exported or stopped, and what becomes of damaged copies of them.

Harm is told by what onnxruntime computes of the file that a command leaves, or torch of the weights
that a resumed training leaves, beside those of the untouched run, when the command believes all
that it reads (``believing``). A file that yields nothing that computes says something else if its
contents do.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from believing import believing
from mutant_table import Outcome
from PIL import Image
from run_contents import changed_tensors, contents
from run_edits import Edit, byte_edits, log_edits, recipe_edits, record_edits, tensor_edits
from run_functions import computed_by_file, computed_by_weights, differs
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.training.progress import PlainProgress

RECIPE = """
name = "tiny"
seed = SEED
device = "cpu"
[model]
name = "end_to_end_net:Tiny"
options = { width = 8 }
[data]
name = "imagefolder"
root = "ROOT"
[train]
epochs = 3
batch_size = 4
learning_rate = 0.05
precision = "fp32"
channels_last = false
threads = 1
ship = "best"
[[pass]]
name = "train-gdp"
dense_epochs = 1
select_epochs = 1
macs_ratio = 0.6
round_to = 2
[[pass]]
name = "absorb-gates"
[[pass]]
name = "remove-channels"
[[pass]]
name = "fold-batchnorm"
[verify]
random_batches = 1
[verify.budget]
macs_ratio = 1.0
latency_ratio = false
"""
STOPPED = "stopped/"
"""Prefix of the names of a stopped run's files."""
_TRAINED, _LAST = "steps/00-train-gdp", "steps/03-fold-batchnorm"
_SHIPPED = "export/onnx/model.onnx"
_UNREAD = (".lock", "report.html", "log.txt")
_RESUMED = (
    "run.json", "recipe.toml", "settings.json", "metrics.jsonl", "checkpoint/best",
    "checkpoint/epoch-002",
)  # fmt: skip
_DECIDING = (f"{_TRAINED}/weights", f"{_TRAINED}/artifact", _SHIPPED, f"{STOPPED}checkpoint/")


class RunBench:
    """Makes damaged copies of runs and tries to verify, to export, to count, or to train them on.

    Args:
        folder: where everything lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run, self.other = self._exported("3"), self._exported("4")
        self.stopped = self._stopped("3")
        self.shipped = computed_by_file(self.run / _SHIPPED)
        assert self.shipped is not None
        resumed = folder / "resumed" / "tiny-001"
        shutil.copytree(self.stopped, resumed)
        assert _called("train", "--resume", resumed)[0] == 0
        self.resumed = resumed
        self.trained = computed_by_weights(resumed / _TRAINED / "weights.safetensors")
        assert self.trained is not None

    def mutants(self, count: int, seed: int) -> list[tuple[str, str, Edit]]:
        """Return file, kind and damage of mutants, two in three of files that decide what ships."""
        rng = random.Random(seed)
        deciding: list[tuple[str, str, Edit]] = []
        others: list[tuple[str, str, Edit]] = []
        few = count // 3
        while len(deciding) < count - few or len(others) < few:
            for mutant in self._round(rng):
                (deciding if mutant[0].startswith(_DECIDING) else others).append(mutant)
        return rng.sample(deciding, count - few) + rng.sample(others, few)

    def judge(self, name: str, kind: str, edit: Edit) -> Outcome:
        """Return what becomes of a copy with one damaged file, by the command that reads it."""
        stopped = name.startswith(STOPPED)
        original, name = (self.stopped if stopped else self.run), name.removeprefix(STOPPED)
        command = ("train", "--resume") if stopped else (_command(name, kind),)
        code, told, function, contradicts = self._tried(original, name, edit, command)
        expected = self.trained if stopped else self.shipped
        sound = not differs(expected, function)
        if command[-1] in ("export", "--resume"):
            with believing():
                *_, function, _ = self._tried(original, name, edit, command)
        harmful = differs(expected, function)
        crashed = told if "Traceback" in told else ""
        caught = code != 0 or (sound and not contradicts)
        return Outcome(
            _family(name, kind), f"{name} {kind}", harmful, caught, crashed,
            self._named(original / name, told, edit), lies=contradicts and not harmful,
        )  # fmt: skip

    def exit_code(self, name: str) -> int:
        """Return what the command that reads a file says of a copy that is not damaged."""
        stopped = name.startswith(STOPPED)
        original, command = (
            (self.stopped, ("train", "--resume")) if stopped else (self.run, ("verify",))
        )
        return self._tried(original, name.removeprefix(STOPPED), lambda path: None, command)[0]

    def _tried(
        self, original: Path, name: str, edit: Edit, command: tuple[str, ...]
    ) -> tuple[int, str, Any, bool]:
        """Exit code and text of a command on a damaged copy; what is computed; what is said."""
        copy = self.folder / "copies" / "tiny-001"
        shutil.copytree(original, copy, copy_function=os.link)
        try:
            edit(copy / name)
            if "export" in command:
                (copy / _SHIPPED).unlink()
            code, told = _called(*command, copy)
            if original == self.stopped:
                function = computed_by_weights(copy / _TRAINED / "weights.safetensors")
                expected = self.resumed / name
            else:
                failed = copy / "export/onnx/rejected/model.onnx"
                function = computed_by_file(failed if failed.is_file() else copy / _SHIPPED)
                expected = self.run / name
            left_out = () if "verify" in command else ("records",)
            contradicts = contents(copy / name, *left_out) != contents(expected, *left_out)
            # A checkpoint that nothing went on from may lie there damaged.
            return code, told, function, contradicts and not name.startswith("checkpoint/")
        finally:
            shutil.rmtree(copy)

    def _named(self, path: Path, told: str, edit: Edit) -> bool:
        """Return whether a message names the damaged tensor, or else the file."""
        damaged = self.folder / path.name
        shutil.copy(path, damaged)
        edit(damaged)
        tensors = changed_tensors(path, damaged)
        damaged.unlink(missing_ok=True)
        said = "".join(told.split())
        few = tensors if len(tensors) < 4 else ()  # of more, the file is the culprit
        return any(word in said for word in few or (path.name, path.parent.name))

    def _round(self, rng: random.Random) -> Iterator[tuple[str, str, Edit]]:
        for before, run in (("", self.run), (STOPPED, self.stopped)):
            for path in sorted(path for path in run.rglob("*") if _read(path, run, before)):
                name = str(path.relative_to(run))
                for kind, edit in _edits(path, self.other / name, rng):
                    yield before + name, kind, edit

    def _exported(self, seed: str) -> Path:
        runs = self.folder / f"runs-{seed}"
        run = runs / "tiny-001"
        for command in (("train", self._recipe(seed), "--runs", runs), ("export", run)):
            code, text = _called(*command)
            assert code == 0, text
        return run

    def _stopped(self, seed: str) -> Path:
        """A run that was stopped after its second epoch."""
        runs, told = self.folder / f"stopped-{seed}", PlainProgress.epoch

        def stop(progress: PlainProgress, metrics: Any) -> None:
            told(progress, metrics)
            if metrics["epoch"] == 2:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PlainProgress, "epoch", stop)
            assert _called("train", self._recipe(seed), "--runs", runs)[0] == 130
        return runs / "tiny-001"

    def _recipe(self, seed: str) -> Path:
        """A recipe, and a folder of a few images of noise."""
        root, rng = self.folder / "images", np.random.default_rng(0)
        for split, kind in product(("train", "val"), ("dark", "light")):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                image = Image.fromarray(pixels + np.uint8(120 if kind == "light" else 0))
                image.save(root / split / kind / f"{number}.png")
        path = self.folder / f"{seed}.toml"
        path.write_text(RECIPE.replace("SEED", seed).replace("ROOT", str(root)))
        return path


def _read(path: Path, run: Path, before: str) -> bool:
    """Return whether a command reads a file of a run, finished or stopped."""
    if not path.is_file() or path.name in _UNREAD or not path.stat().st_size:
        return False
    name = str(path.relative_to(run))
    return name.startswith(_RESUMED) if before else not name.startswith("checkpoint/")


def _edits(path: Path, other: Path, rng: random.Random) -> Iterator[tuple[str, Edit]]:
    yield from byte_edits(path, other, rng)
    if path.suffix == ".safetensors":
        yield from tensor_edits(path, rng)
    if path.suffix == ".json":
        yield from record_edits(path, rng, 6)
    if path.suffix == ".jsonl":
        yield from log_edits(path, rng)
    if path.suffix == ".toml":
        yield from recipe_edits(path, rng, 12)


def _command(name: str, kind: str) -> str:
    """Commands that read a file of a finished run."""
    if name.startswith(_TRAINED):
        return "export"
    if name.startswith("steps/") and not name.startswith(_LAST):
        return "count"
    return "export" if name in ("recipe.toml", "run.json") and len(kind) % 2 else "verify"


_FAMILIES = (
    ("checkpoint/", "checkpoints"),
    (f"{_TRAINED}/", "trained state"),
    ("steps/", "later steps"),
    ("export/onnx/", "shipped files"),
    ("export/", "manifest and reports"),
    ("recipe.toml", "recipe.toml"),
    ("", "run.json, environment, settings, metrics"),
)


def _family(name: str, kind: str) -> str:
    family = next(family for start, family in _FAMILIES if name.startswith(start))
    return f"{family}, digest forged" if kind == "forged" else family


def _called(*arguments: object) -> tuple[int, str]:
    """Exit code and text of a command in this process."""
    result: Any = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 99, f"Traceback {type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.output
