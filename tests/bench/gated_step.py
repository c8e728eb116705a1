"""What a gated training step costs beside a dense one.

    python tests/bench/gated_step.py
    python tests/bench/gated_step.py --recipes gdp_resnet50_imagenet --device cuda --rounds 30

In one process, for each recipe's network, data shape and batch size: three copies train on the same
noise, one dense, one in GDP's selecting phase, one in its finishing phase. A round runs a step of
each, in an order that turns; the medians of the rounds' times and of their ratios are printed. The
promise is at most 1.10 of the dense step.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from prunec.catalogue import build_passes
from prunec.graph.atoms import analyse
from prunec.graph.capture import capture
from prunec.graph.macs import Gated, gated_channels
from prunec.passes.train_gdp import Gdp, TrainGdp
from prunec.recipe import Recipe, load_recipe
from prunec.training.evaluation import casting, laid_out
from prunec.training.method import Method, Moment
from prunec.training.models import build_model
from prunec.training.optimisation import make_optimizer

SHAPES = {
    "embedded": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagenet": ((3, 224, 224), 1000),
}
STEPS = 1000  # of an epoch, so that a phase outlasts the measurement
SELECTING, FINISHING = 1, 2  # epochs: the phases are stretched to one epoch each
Step = Callable[[int], None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", nargs="+", default=["gdp_mbv2", "gdp_resnet20"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=0, help="0: the recipe's")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    table = Table(
        title=f"Time of a training step, {given.device}, {torch.get_num_threads()} threads",
        title_justify="left",
    )
    columns = ("recipe", "batch", "dense", "selecting", "finishing", "selecting/dense",
               "finishing/dense")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name in given.recipes:
        recipe = load_recipe(name)
        batch = given.batch_size or recipe.train.batch_size
        times = _times(recipe, batch, given.rounds, torch.device(given.device))
        table.add_row(name, str(batch), *_cells(times))
    Console(width=120).print(table)


def _cells(times: dict[str, list[float]]) -> list[str]:
    dense = times["dense"]
    cells = [f"{1000 * statistics.median(seconds):.1f} ms" for seconds in times.values()]
    for phase in ("selecting", "finishing"):
        ratios = [a / b for a, b in zip(times[phase], dense, strict=True)]
        cells.append(f"{statistics.median(ratios):.3f}")
    return cells


def _times(recipe: Recipe, batch: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step, by phase; the first two rounds warm up."""
    steps = _steps(recipe, batch, device)
    times: dict[str, list[float]] = {phase: [] for phase in steps}
    order = list(steps)
    for number in range(rounds + 2):
        order = [*order[1:], order[0]]
        for phase in order:
            seconds = _seconds(steps[phase], number, device)
            if number >= 2:
                times[phase].append(seconds)
    return times


def _seconds(step: Step, number: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    step(number)
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _steps(recipe: Recipe, batch: int, device: torch.device) -> dict[str, Step]:
    shape, classes = SHAPES[recipe.data.name]
    spec = recipe.model.model_copy(update={"weights": ""})
    module = build_model(spec, classes, seed=0)
    gated = gated_channels(
        analyse(capture(copy.deepcopy(module).eval(), (torch.zeros(2, *shape),)))
    )
    images, labels = torch.randn(batch, *shape), torch.randint(0, classes, (batch,))
    found = next(p for p in build_passes(recipe, recipe.name) if isinstance(p, TrainGdp))
    options = replace(found, dense_epochs=1, select_epochs=1)

    def copied(gate: Gated | None, epoch: int) -> Step:
        own = copy.deepcopy(module).to(device)
        method = Gdp(options, own, gate.to(device)) if gate else Method()
        if isinstance(method, Gdp) and epoch == FINISHING:
            _select(method)
        return _step(recipe, own, method, epoch, images.to(device), labels.to(device))

    return {
        "dense": copied(None, 0),
        "selecting": copied(gated, SELECTING),
        "finishing": copied(gated, FINISHING),
    }


def _select(method: Gdp) -> None:
    """Close gates as a selection would: at random, the weakest first, half of them."""
    method.before_forward(Moment(1, 0, STEPS, 4, 0.1))
    method.close_kernels()
    method.a *= torch.rand_like(method.a) + 0.5
    method.a *= (method.a > method.a.median()).to(method.a.dtype)


def _step(
    recipe: Recipe, module: nn.Module, method: Method, epoch: int, images: Tensor, labels: Tensor
) -> Step:
    """A step as the training loop takes it."""
    train = recipe.train
    layout = torch.channels_last if train.channels_last else torch.preserve_format
    module.to(memory_format=layout).train()
    optimizer = make_optimizer(module, train)
    inputs = laid_out(images, train.channels_last)

    def step(number: int) -> None:
        moment = Moment(epoch, number, STEPS, 4, train.learning_rate)
        optimizer.zero_grad(set_to_none=True)
        method.before_forward(moment)
        with casting(inputs.device, train.autocast):
            loss = F.cross_entropy(module(inputs), labels, label_smoothing=train.label_smoothing)
        torch.autograd.backward(loss)
        method.gradient(moment)
        optimizer.step()
        method.after_step(moment)

    return step


if __name__ == "__main__":
    main()
