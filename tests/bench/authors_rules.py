"""Rules of the methods' authors beside other ones: accuracy on a small network, over seeds.

    python tests/bench/authors_rules.py --output rules.md
    python tests/bench/authors_rules.py --output rules.md --seeds 5 --only snfs
    python tests/bench/authors_rules.py --output east.md --blocks 3 --only east,rigl,set \
        --sparsities 0.999 --seeds 2

A ResNet-8 (74,512 weights that may be masked), or a ResNet-20 with ``--blocks 3``, where EAST has
kernels to share, on the embedded images, ``--epochs`` epochs, half a minute of a core each (one and
a half with three blocks). Every row is on file as soon as it is known, and a killed run goes on
where it stopped. A row says how many weights were really left: clamped densities keep more than
asked, unless the rule is ``equal``: then less is asked, so that as many weights stay.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rows import Cells, Rows

from prunec import pipeline
from prunec.catalogue import build_passes
from prunec.models.building import build_model
from prunec.passes.train_east import TrainEast
from prunec.recipe import Recipe, load_recipe
from prunec.store.new_runs import create_run
from prunec.training.progress import SilentProgress

SPARSITIES = (0.9, 0.99, 0.995)
SIDE = 28  # of the embedded images
HALVINGS = 20  # of what is asked: to a weight of ten thousand


class Rule(NamedTuple):
    """A rule of a method.

    Attributes:
        title: whose it is.
        recipe: the packaged recipe of its method.
        changes: to the method's options.
        equal: whether so much is asked that the count of weights is that of the sparsity.
    """

    title: str
    recipe: str
    changes: tuple[str, ...] = ()
    equal: bool = False


RULES = {
    "granet-training": Rule("GraNet, exchange to the last step (authors)", "granet",
                            ("exchange=training",)),
    "granet-ramp": Rule("GraNet, exchange until the ramp ends", "granet", ("exchange=ramp",)),
    "snfs-equal": Rule("SNFS, surplus in equal parts (authors)", "snfs", ("surplus=equal",)),
    "snfs-momentum": Rule("SNFS, surplus by momentum", "snfs", ("surplus=momentum",)),
    "st3-1": Rule("ST-3, thresholds at every step (authors)", "st3", ("update_steps=1",)),
    "st3-10": Rule("ST-3, thresholds every ten steps", "st3", ("update_steps=10",)),
    "acdc": Rule("AC/DC", "acdc"),
    "east": Rule("EAST (paper)", "east"),
    "east-no-dyrelu": Rule("EAST without DyReLU", "east", ("dyrelu_until=0",)),
    "east-fading": Rule("EAST, ReLU until phasing begins, units learn", "east",
                        ("dyrelu_acts=fading", "dyrelu_learns=always")),
    "east-frozen": Rule("EAST, ReLU until phasing begins, frozen units", "east",
                        ("dyrelu_acts=fading", "dyrelu_learns=never")),
    "east-no-sharing": Rule("EAST without sharing", "east", ("own_blocks=0",)),
    "east-no-cycles": Rule("EAST without cycles", "east", ("cycles=0",)),
    "east-floor": Rule("EAST, densities at least 0.7·d", "east", ("layer_floor_share=0.7",)),
    "east-equal": Rule("EAST, densities at least 0.7·d, equal count", "east",
                             ("layer_floor_share=0.7",), equal=True),
    "east-least": Rule("EAST, densities at least 0.001", "east", ("layer_floor=0.001",)),
    "rigl": Rule("RigL", "rigl"),
    "set": Rule("SET", "set"),
}  # fmt: skip


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, help="table (.md) or rows (.json)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N−1")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", default="", help="rules whose name begins so: granet,snfs")
    parser.add_argument("--blocks", type=int, default=1, help="of a stage; 3: ResNet-20")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    rows = Rows(given.output, table)
    names = [name for name in RULES if name.startswith(tuple(given.only.split(",")))]
    for key in rows.missing(keys(names, given.sparsities, given.seeds)):
        name, sparsity, seed = key.split("|")
        row = trained(RULES[name], float(sparsity), int(seed), given)
        rows.add(key, row)
        print(key, row, flush=True)
    print(table(rows.cells))


def keys(names: Sequence[str], sparsities: Sequence[float], seeds: int) -> Iterator[str]:
    """Rule | sparsity | seed; the highest sparsity first, and all rules of a seed."""
    for sparsity in sorted(sparsities, reverse=True):
        for seed in range(seeds):
            yield from (f"{name}|{sparsity}|{seed}" for name in names)


def trained(rule: Rule, sparsity: float, seed: int, given: argparse.Namespace) -> Cells:
    """Train once; return the accuracy, the weights left and the seconds."""
    changes = [
        "model.name=prunec.models.resnet_cifar:ResNetCifar",
        f"model.options={{blocks={given.blocks},in_channels=1}}",
        'model.edit=[{module="conv1",set={stride=4}}]',
        "data.augment=[]",
        f"seed={seed}",
        f"train.epochs={given.epochs}",
        "train.clip_norm=1.0",
        "train.precision=fp32",
        "train.channels_last=true",
        "train.threads=1",
        *(f"pass.train-{rule.recipe}.{change}" for change in rule.changes),
    ]
    # As many updates as a longer training has.
    if rule.recipe == "east":
        changes += ["pass.train-east.cycle_steps=20", "pass.train-east.update_steps=50"]
    if rule.recipe == "granet":
        changes.append("pass.train-granet.update_steps=20")
    if rule.recipe in ("rigl", "set"):  # as EAST's recipe has it
        changes.append('train.optimizer={name="SGD",momentum=0.9,nesterov=true}')
    with tempfile.TemporaryDirectory() as folder:
        asked = f"pass.train-{rule.recipe}.sparsity="
        if rule.equal:
            sparsity = equalised(load_recipe(f"{rule.recipe}_resnet20", changes), sparsity)
        recipe = load_recipe(f"{rule.recipe}_resnet20", [*changes, f"{asked}{sparsity}"])
        run = create_run(recipe, Path(folder))
        began = time.perf_counter()
        progress = SilentProgress(Console(quiet=True))
        artifact = pipeline.train(
            pipeline.prepare_again(run, device=given.device, progress=progress), run
        )
        seconds = time.perf_counter() - began
    details = artifact.history[-1].details
    left = sum(int(mask.sum()) for mask in artifact.masks.values())
    return {"accuracy": details["test_accuracy"], "weights": left, "seconds": round(seconds, 1)}


def equalised(recipe: Recipe, sparsity: float) -> float:
    """Return the sparsity to ask of a clamped EAST for as many weights as ``sparsity`` means.

    An absolute floor may keep more whatever is asked; then the answer is the highest tried.
    """
    options = next(one for one in build_passes(recipe, recipe.name) if isinstance(one, TrainEast))
    module = build_model(recipe.model, 10, seed=0).eval()
    rebuilt = options.rebuild(module, (torch.zeros(2, 1, SIDE, SIDE),), 0)
    meant = round((1 - sparsity) * rebuilt.total)
    low, high = sparsity, 1 - 1e-7  # of which less and more than enough are gone
    for _ in range(HALVINGS):
        tried = (low + high) / 2
        method = rebuilt.method(replace(options, sparsity=tried), module, torch.Generator())
        left = sum(method.masks.counts())
        low, high = (tried, high) if left > meant else (low, tried)
    return high


def table(cells: Mapping[str, Cells]) -> str:
    """Mean ± standard deviation of the test accuracy, and the weights left, by rule."""
    collected: dict[tuple[str, float], list[Cells]] = defaultdict(list)
    for key, row in cells.items():
        name, sparsity, _ = key.split("|")
        collected[name, float(sparsity)].append(row)
    sparsities = sorted({sparsity for _, sparsity in collected})
    lines = [
        "| | " + " | ".join(f"{100 * s:g} % | weights" for s in sparsities) + " | seconds |",
        "|---|" + "--:|--:|" * len(sparsities) + "--:|",
    ]
    for name, rule in RULES.items():
        held = [collected[name, sparsity] for sparsity in sparsities]
        if any(held):
            seconds = statistics.median(row["seconds"] for rows in held for row in rows)
            parts = " | ".join(_summary(rows) for rows in held)
            lines.append(f"| {rule.title} | {parts} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _summary(rows: Sequence[Cells]) -> str:
    if not rows:
        return "– | –"
    values = [float(row["accuracy"]) for row in rows]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    weights = statistics.mean(row["weights"] for row in rows)
    return f"{statistics.mean(values):.2f}{spread} ({len(values)}) | {weights:,.0f}"


if __name__ == "__main__":
    main()
