"""A run that was trained and exported, and what becomes of damaged copies of it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from mutant_table import Outcome
from PIL import Image
from run_edits import Edit, byte_edits, recipe_edits, record_edits
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.errors import PrunecError
from prunec.store.runs import RunFolder

RECIPE = """
name = "tiny"
seed = SEED
device = "cpu"
[model]
name = "end_to_end_net:Tiny"
options = { width = 4 }
[data]
name = "imagefolder"
root = "ROOT"
[train]
epochs = 1
batch_size = 4
learning_rate = 0.05
precision = "fp32"
channels_last = false
threads = 1
[[pass]]
name = "train-dense"
[[pass]]
name = "fold-batchnorm"
[verify]
random_batches = 1
[verify.budget]
macs_ratio = 1.0
latency_ratio = false
"""


_EXPORTED = ("steps/00", "export/onnx/dense")  # what an export reads; verify reads the rest


class RunBench:
    """Makes damaged copies of a run and tries to verify and to export them.

    Args:
        folder: where everything lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run, self.other = self._made("3"), self._made("4")
        self.shipped = _computing(self.run.export.shipped("onnx", ".onnx"))
        self.rules = self.run.recipe.verify

    def _made(self, seed: str) -> RunFolder:
        recipe = self.folder / f"{seed}.toml"
        text = RECIPE.replace("SEED", seed).replace("ROOT", str(self._images()))
        recipe.write_text(text)
        runs = self.folder / f"runs-{seed}"
        for command in (
            ("train", recipe, "--runs", runs),
            ("export", runs / "tiny-001"),
            ("verify", runs / "tiny-001"),
        ):
            code, text = _called(*command)
            assert code == 0, text
        return RunFolder(runs / "tiny-001")

    def _images(self) -> Path:
        """A folder of a few images of noise."""
        root, rng = self.folder / "images", np.random.default_rng(0)
        for split, kind in product(("train", "val"), ("dark", "light")):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                image = Image.fromarray(pixels + np.uint8(120 if kind == "light" else 0))
                image.save(root / split / kind / f"{number}.png")
        return root

    def mutants(self, count: int, seed: int) -> list[tuple[str, str, Edit]]:
        """Return file, kind and damage of as many mutants, spread over all files."""
        rng = random.Random(seed)
        made: list[tuple[str, str, Edit]] = []
        while len(made) < count:
            made += self._round(rng)
        return rng.sample(made, count)

    def _round(self, rng: random.Random) -> Iterator[tuple[str, str, Edit]]:
        for path in sorted(self.run.path.rglob("*")):
            name = str(path.relative_to(self.run.path))
            if not path.is_file() or name in (".lock", "report.html") or not path.stat().st_size:
                continue
            edits = list(byte_edits(path, self.other.path / name, rng))
            if path.suffix == ".json":
                edits += record_edits(path, rng, 6)
            if path.suffix == ".toml":
                edits += recipe_edits(path, rng, 12)
            for kind, edit in edits:
                yield name, kind, edit

    def judge(self, name: str, kind: str, edit: Edit) -> Outcome:
        """Return what becomes of a copy with one damaged file, by the command that reads it."""
        copy = RunFolder(self.folder / "copies" / "tiny-001")
        shutil.copytree(self.run.path, copy.path, copy_function=os.link)
        try:
            edit(copy.path / name)
            command = "export" if name.startswith(_EXPORTED) else "verify"
            code, told = _called(command, copy.path)
            harmful = self._differs(copy)
            named = any(word in told for word in (Path(name).name, "digest", "manifest"))
            crashed = told if "Traceback" in told else ""
            return Outcome(kind, name, harmful, code != 0, crashed, named)
        finally:
            shutil.rmtree(copy.path)

    def _differs(self, copy: RunFolder) -> bool:
        """Whether the file that ships, or a rule by which it is judged, is another one."""
        try:
            shipped = _computing(copy.export.shipped("onnx", ".onnx"))
            return shipped != self.shipped or copy.recipe.verify != self.rules
        except (OSError, DecodeError, PrunecError):
            return True


def _computing(path: Path) -> bytes:
    """A file without the recipe that it carries, which may say where the data lay."""
    model = onnx.load_from_string(path.read_bytes())
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("prunec.recipe")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model.SerializeToString(deterministic=True)


def _called(*arguments: object) -> tuple[int, str]:
    """Exit code and text of a command in this process."""
    result: Any = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 99, f"Traceback {type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.output
