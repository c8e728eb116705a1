"""EAST, its parts and published variants, RigL and SET at 99.9 to 99.99 %, at the paper's length.

    python tests/bench/papers_length.py --device cuda --minutes 9
    python tests/bench/papers_length.py --device cpu --tiny

ResNet-34 on Fashion-MNIST for 97,750 steps, as EAST's paper trains it on CIFAR-10: batch 128, SGD
with Nesterov, steps at ½ and ¾, clipped at 1. A comparison (docs/compare.md) in ``--folder``: cells
run one after the other (``--jobs``), seed by seed, and when ``--minutes`` are over what runs saves
and ends. The next call goes on with it, so that every ten minutes of a GPU end in whole cells. The
table counts the weights that are really left: a variant that clamps densities belongs beside the
row of its own count, not beside the one of its name. ``--tiny`` is a ResNet-8 for 2 epochs.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from prunec.comparison.compare import compare
from prunec.comparison.folder import ComparisonFolder
from prunec.comparison.grid import Grid, expand
from prunec.errors import Interrupted

HERE = Path(__file__).parent / "extreme"
SPARSITIES = (0.999, 0.9995, 0.9999)
STEPS, BATCH, IMAGES = 97_750, 128, {"fashion-mnist": 60_000, "embedded": 12_000}
CHECKPOINTS = 20  # of a training
RECIPES = ("east", "east_no_dyrelu", "east_no_sharing", "east_no_cycles", "rigl", "set")
PUBLISHED = {  # versions of the authors' code, as options of train-east
    "east_floor": "layer_floor = 0.001",
    "east_floor_share": "layer_floor_share = 0.7",
    "east_fading": 'dyrelu_acts = "fading"\ndyrelu_learns = "always"',
    "east_frozen": 'dyrelu_acts = "fading"\ndyrelu_learns = "never"',
}
PAPER = {"cycle_steps": "100", "warmup_epochs": "0"}
UPDATE_STEPS = {"east": "4000", "rigl": "100", "set": "100"}  # of EAST's paper, and of RigL's
SCHEDULE = 'schedule = { name = "multistep", milestones = [0.5, 0.75] }'
TINY = [
    "model.name=prunec.models.resnet_cifar:ResNetCifar",
    "model.options={blocks=1,in_channels=1}",
    'model.edit=[{module="conv1",set={stride=4}}]',
    "train.epochs=2",
    "train.precision=fp32",
]


def main() -> None:
    """Run what is left until the time is over."""
    run(asked())


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("comparisons/papers-length"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", choices=list(IMAGES), default="embedded")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="cells at once")
    parser.add_argument("--minutes", type=float, default=0, help="until all save; 0: to the end")
    parser.add_argument("--only", default="", help="recipes whose name begins so: east,rigl")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args(words)


def run(given: argparse.Namespace) -> None:
    """Compare; save and end when the time is over."""
    grid = cells(given)
    timer = threading.Timer(60 * given.minutes, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    if given.minutes:
        timer.start()
    console = Console()
    try:
        compare(
            grid, ComparisonFolder(given.folder), jobs=given.jobs, command=sys.argv, console=console
        )
    except Interrupted:
        console.print(f"{given.minutes:g} minutes are over; the same command goes on.")
    timer.cancel()


def cells(given: argparse.Namespace) -> Grid:
    """Return the grid, of recipes that are written into the folder."""
    folder = given.folder / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    only = tuple(given.only.split(","))
    wanted = [name for name in (*RECIPES, *PUBLISHED) if name.startswith(only)]
    paths = []
    for name in wanted:
        path = folder / f"{name}.toml"
        path.write_text(recipe(name), "utf-8")
        paths.append(str(path))
    epochs = round(STEPS / (IMAGES[given.data] // BATCH))
    changes = [f"device={given.device}", f"data.name={given.data}", f"train.epochs={epochs}"]
    # A checkpoint of ResNet-34 takes seconds, as long as some epochs: a thousand would be most of
    # the time. --minutes saves in any case.
    changes.append(f"train.checkpoint_epochs={max(1, epochs // CHECKPOINTS)}")
    changes += TINY if given.tiny else []
    return expand(paths, sparsities=SPARSITIES, seeds=given.seeds, changes=changes)


def recipe(name: str) -> str:
    """Return a recipe of ``extreme`` with the paper's schedule and rhythm."""
    base = "east" if name in PUBLISHED else name
    text = (HERE / f"{base}.toml").read_text("utf-8")
    update_steps = UPDATE_STEPS[base.partition("_")[0]]
    for key, value in {**PAPER, "update_steps": update_steps}.items():
        text = re.sub(rf"(?m)^{key} = \d+", f"{key} = {value}", text)
    text = re.sub(r"(?m)^name = \"east\"$", f'name = "{name}"', text, count=1)
    head = '[[pass]]\nname = "train-east"\n'
    text = text.replace(head, f"{head}{PUBLISHED.get(name, '')}\n")
    return text.replace("[train]\n", f"[train]\n{SCHEDULE}\n")


if __name__ == "__main__":
    main()
