"""Cost of a training step of each method, relative to the dense one.

    OMP_NUM_THREADS=1 python tests/bench/step_cost.py
    OMP_NUM_THREADS=1 python tests/bench/step_cost.py --networks resnet50 --rounds 9
    python tests/bench/step_cost.py --device cuda --rounds 50

In one process, for each network: a copy for every method trains on the same noise. A round takes
one step of each, in an order that turns, and compares it with the round's dense step; the medians
of the times and of the ratios dense/method are printed. 1.00 is as fast as dense, the promise is
0.95. ``gdp selecting`` and ``gdp finishing`` are train-gdp's phases; ``mask`` is a step of the
methods whose weights stay zero under their masks (GMP, SET, DSR, RigL, GraNet, AC/DC), and an
``update`` a step that changes them, every hundredth or so. ``st3, update`` is every tenth step of
ST-3. ``east`` is a step with shared kernels, ``east, dyrelu`` one while DyReLU lasts, too, which
computes more.

``--recorded`` replays recorded steps, as ``train.capture`` does, where the device has graphs:
``dense`` is the recorded dense step then, ``dense, computed`` the one without. The promise there is
three to four times for it, and 0.95 of the recorded dense step for methods.

    python tests/bench/step_cost.py --device cuda --recorded --rounds 50
    python tests/bench/step_cost.py --device cuda --networks resnet50_224 mobilenet_v2_224 \
        --precision bf16 --rounds 20 --recorded
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision import models

from prunec.errors import PassError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.models.building import build_model
from prunec.models.resnet_cifar import resnet20
from prunec.passes._gdp import Gdp
from prunec.passes.train_dnw import TrainDnw
from prunec.passes.train_dpf import TrainDpf
from prunec.passes.train_dsr import TrainDsr
from prunec.passes.train_east import TrainEast
from prunec.passes.train_gdp import TrainGdp
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_granet import TrainGranet
from prunec.passes.train_rigl import TrainRigl
from prunec.passes.train_set import TrainSet
from prunec.passes.train_snfs import TrainSnfs
from prunec.passes.train_st3 import TrainSt3
from prunec.passes.train_str import TrainStr
from prunec.passes.train_two_of_four import TrainTwoOfFour
from prunec.recipe import TrainSpec
from prunec.sparsity.gated_macs import Gated, gated_channels
from prunec.sparsity.training_pass import SparseTraining
from prunec.tasks.task import Classification
from prunec.training.averaging import Average
from prunec.training.capture import WARM, stepping
from prunec.training.context import Context
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import make_optimizer
from prunec.training.settings import Settings, computing, counted
from prunec.training.step import Stepper

STEPS = 10_000  # of an epoch, so that a phase outlasts the measurement
OPTIONS = TrainGdp(dense_epochs=1, select_epochs=1, macs_ratio=0.5)
FIRST = WARM + 2  # rounds that are not timed
SELECTING, FINISHING = 1, 2  # epochs
Step = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """A network, its images and its batch."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    batch: int
    classes: int = 10


def _default_network() -> nn.Module:
    from prunec.recipe import load_recipe

    return build_model(load_recipe("gdp_mbv2").model, 10, seed=0)


CASES = {
    "resnet20": Case(lambda: resnet20(num_classes=10), (3, 32, 32), 128),
    "resnet50": Case(lambda: models.resnet50(num_classes=10), (3, 64, 64), 64),
    "gdp_mbv2": Case(_default_network, (1, 28, 28), 128),
    "resnet50_224": Case(models.resnet50, (3, 224, 224), 256, 1000),
    "mobilenet_v2_224": Case(models.mobilenet_v2, (3, 224, 224), 256, 1000),
}
USUAL = ["resnet20", "resnet50", "gdp_mbv2"]  # the others want a GPU


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=USUAL, choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=[], help="some of the rows; all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--side", type=int, default=0, help="of images; by default the case's")
    parser.add_argument("--recorded", action="store_true", help="replay steps where that can be")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    settings = Settings(given.precision, True, torch.get_num_threads())
    title = f"Steps on {given.device}, {given.precision}, {counted(settings.threads)}"
    with computing(settings, device):
        for name in given.networks:
            case = CASES[name]
            case = replace(case, batch=given.batch_size or case.batch)
            if given.side:
                case = replace(case, shape=(case.shape[0], given.side, given.side))
            steps = steps_of(case, settings, device, recorded=given.recorded)
            always = [name for name in ("dense", "dense, computed") if name in steps]
            wanted = [*always, *given.methods] if given.methods else list(steps)
            measure = _times_beside_dense if given.recorded else _times
            times = measure({name: steps.pop(name) for name in wanted}, given.rounds, device)
            Console(width=100).print(_table(f"{title}: {name}, batch {case.batch}", times))


def beside_dense(
    steps: dict[str, Step], name: str, rounds: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Return the seconds of the dense step and of a method's, in turns; the method's step goes.

    Each recording holds the memory of its activations: at real size only a few fit beside another.
    """
    if name == "dense":
        seconds = _times({"dense": steps["dense"]}, rounds, device)["dense"]
        return seconds, seconds
    times = _times({"dense": steps["dense"], name: steps.pop(name)}, rounds, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return times["dense"], times[name]


def _times_beside_dense(
    steps: dict[str, Step], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds by method, each in turns with the dense step, as if that had always been as fast."""
    times: dict[str, list[float]] = {}
    for name in list(steps):
        dense, own = beside_dense(steps, name, rounds, device)
        times.setdefault("dense", dense)
        pairs = zip(own, dense, times["dense"], strict=True)
        times[name] = [a / b * first for a, b, first in pairs]
    return times


def _table(title: str, times: dict[str, list[float]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    table.add_column("step", justify="right")
    table.add_column("dense / method", justify="right")
    for method, seconds in times.items():
        ratios = [a / b for a, b in zip(times["dense"], seconds, strict=True)]
        table.add_row(method, f"{1000 * _median(seconds):.1f} ms", f"{_median(ratios):.3f}")
    return table


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _times(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step by method; the first rounds warm up, and record."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for number in range(rounds + FIRST):
        order = [*order[1:], order[0]]
        for name in order:
            _wait(device)
            began = time.perf_counter()
            steps[name](number)
            _wait(device)
            if number >= FIRST:
                times[name].append(time.perf_counter() - began)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps_of(
    case: Case,
    settings: Settings,
    device: torch.device,
    *,
    recorded: bool,
    tell: Callable[[str], None] = print,
) -> dict[str, Callable[[int], None]]:
    """Return a step of each row; ``tell`` takes why one that should be recorded is not."""
    torch.manual_seed(0)
    module = case.build()
    example = (torch.zeros(2, *case.shape),)
    gated = gated_channels(analyse(capture(copy.deepcopy(module).eval(), example)))
    recipe = SimpleNamespace(train=TrainSpec(epochs=4), seed=0)
    images = torch.randn(case.batch, *case.shape, device=device)
    labels = torch.randint(0, case.classes, (case.batch,), device=device)

    def step(
        make: Callable[[nn.Module], Method],
        epoch: int,
        own: nn.Module | None = None,
        record: bool = recorded,
    ) -> Step:
        own = copy.deepcopy(module) if own is None else own
        own = own.to(device).to(memory_format=settings.layout).train()
        method, objective = make(own), Objective(Classification(case.classes))
        optimizer = make_optimizer(own, recipe.train, method.parameters())
        method.optimizer = optimizer
        stepper = Stepper(own, own, optimizer, method, objective, settings)
        spec = recipe.train.model_copy(update={"capture": record})
        take = stepping(stepper, Average(own, 0.0), spec, device, tell)
        return lambda number: take(images, labels, Moment(epoch, number, STEPS, 4, 1e-3)) and None

    def by(options: SparseTraining) -> Callable[[nn.Module], Method]:
        context = cast(Context, SimpleNamespace(recipe=recipe, device=device))
        return lambda own: options.method(options.kernels(own), context)

    def east(options: TrainEast) -> Step:
        own, generator = copy.deepcopy(module).eval(), torch.Generator(device).manual_seed(0)
        rebuilt = options.rebuild(own, example, 0)
        return step(lambda own: rebuilt.method(options, own, generator), 0, own)

    phased = {}
    with suppress(PassError):  # MobileNetV2 calls no ReLU
        phased = {"east, dyrelu": east(TrainEast(sparsity=0.9, cycles=0))}
    return {
        "dense": step(lambda _: Method(), 0),
        **({"dense, computed": step(lambda _: Method(), 0, record=False)} if recorded else {}),
        "gdp selecting": step(lambda own: Gdp(OPTIONS, own, gated.to(device)), SELECTING),
        "gdp finishing": step(lambda own: _chosen(own, gated.to(device)), FINISHING),
        "str": step(by(TrainStr(s_init=-5.0)), 0),
        "mask": step(by(TrainRigl(sparsity=0.9, update_steps=STEPS)), 0),
        "rigl, update": step(by(TrainRigl(sparsity=0.9, update_steps=1)), 0),
        "set, update": step(by(TrainSet(sparsity=0.9, update_steps=1)), 0),
        "granet, update": step(by(TrainGranet(sparsity=0.9, update_steps=1)), 0),
        "dsr, update": step(by(TrainDsr(sparsity=0.9, update_steps=1)), 0),
        "gmp, update": step(by(TrainGmp(sparsity=0.9, update_steps=1)), 0),
        "st3": step(by(TrainSt3(sparsity=0.9, end=0.1, update_steps=10)), 1),
        "st3, update": step(by(TrainSt3(sparsity=0.9, end=0.1, update_steps=1)), 1),
        "east": east(TrainEast(sparsity=0.9, dyrelu_until=0.0, cycles=0)),
        **phased,
        "dpf": step(by(TrainDpf(sparsity=0.9)), 0),
        "dnw": step(by(TrainDnw(sparsity=0.9)), 0),
        "snfs": step(by(TrainSnfs(sparsity=0.9)), 0),
        "two of four": step(by(TrainTwoOfFour()), 0),
    }


def _chosen(module: nn.Module, gated: Gated) -> Gdp:
    """GDP after a selection, as it were: half of the gates closed at random."""
    method = Gdp(OPTIONS, module, gated)
    method.before_forward(Moment(1, 0, STEPS, 4, 0.1))
    method.close_kernels()
    strength: Tensor = torch.rand_like(method.a) + 0.5
    method.a *= strength * (strength > strength.median())
    return method


if __name__ == "__main__":
    main()
