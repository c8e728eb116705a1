"""Cost of prunec's dense loop relative to a hand-written one with the same settings.

    OMP_NUM_THREADS=1 python tests/bench/loop_cost.py
    python tests/bench/loop_cost.py --device cuda --network resnet50 --side 64 --rounds 9

In one process, in turns: an epoch of ``prunec.training.loop.fit``, with its metrics, its look at
the loss and its random numbers, and an epoch of a plain PyTorch loop over the same images in
memory, the same network, optimizer, precision and layout. The medians of images per second and of
the rounds' ratios prunec/bare are printed; the promise is 0.97. Neither augments or evaluates
within the time. On a GPU both replay recorded steps unless ``--computed``; the promise is 0.98
there. Recording is not in the time of either: prunec's is that of a second epoch, which replays
alone.

    python tests/bench/loop_cost.py --device cuda --network resnet50 --side 224 --batch-size 256 \
        --precision bf16 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import v2

from prunec.batches.batches import MemoryData
from prunec.models.resnet_cifar import resnet20
from prunec.recipe import Recipe
from prunec.store.runs import RunFolder
from prunec.training.context import Context
from prunec.training.loop import fit
from prunec.training.method import Method
from prunec.training.progress import SilentProgress
from prunec.training.settings import Settings, computing, counted

NETWORKS = {"resnet20": resnet20, "resnet50": models.resnet50}
MEAN, STD = 0.5, 0.25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet20", choices=list(NETWORKS))
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--computed", action="store_true", help="record no steps on a GPU")
    given = parser.parse_args()
    device, threads = torch.device(given.device), torch.get_num_threads()
    settings = Settings(given.precision, True, threads)
    data = _data(given.batch_size * given.steps, given.side).to(device)
    recorded = device.type == "cuda" and not given.computed
    recipe = _recipe(given.batch_size, settings, recorded=recorded)
    ours, bare = [], []
    for number in range(given.rounds + 1):
        ours.append(_ours(_network(given.network, number), data, recipe, device))
        bare.append(_bare(_network(given.network, number), data, recipe, device, settings))
    ours, bare = ours[1:], bare[1:]  # the first round warms up
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    Console().print(
        f"{given.network}, {given.side}×{given.side}, batch {given.batch_size}, {given.device}, "
        f"{given.precision}, {counted(threads)}: prunec {statistics.median(ours):.1f} images/s, "
        f"bare loop {statistics.median(bare):.1f}, ratio {ratio:.3f}",
        soft_wrap=True,
    )


def _network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name](num_classes=10)


def _data(count: int, side: int) -> MemoryData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    to_float = v2.ToDtype(torch.float32, scale=True)
    return MemoryData(
        labels=tuple("0123456789"), shape=(3, side, side), train_size=count, test_size=2, seed=0,
        device=torch.device("cpu"), train_images=images, train_labels=labels,
        test_images=images[:2], test_labels=labels[:2], augment=v2.Identity(),
        prepare=v2.Identity(), normalise=v2.Compose([to_float, v2.Normalize([MEAN], [STD])]),
    )  # fmt: skip


def _recipe(batch_size: int, settings: Settings, *, recorded: bool) -> Recipe:
    train = {
        "epochs": 1 + recorded, "batch_size": batch_size, "learning_rate": 0.01,
        "precision": settings.precision, "channels_last": True, "threads": settings.threads,
        "capture": recorded,
    }  # fmt: skip
    return Recipe.model_validate(
        {"name": "x", "model": {"name": "x:y"}, "train": train, "pass": ({"name": "train-dense"},)}
    )


class _Noting(SilentProgress):
    """Prints notes alone: one of them says that steps are not recorded, and why."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


def _ours(net: nn.Module, data: MemoryData, recipe: Recipe, device: torch.device) -> float:
    with tempfile.TemporaryDirectory() as folder:
        progress = _Noting(Console(quiet=True))
        run = RunFolder(Path(folder))
        history = fit(net, Method(), Context(recipe, data, device, run, progress, False))
    return float(history[-1]["images_per_second"])


def _bare(
    net: nn.Module, data: MemoryData, recipe: Recipe, device: torch.device, settings: Settings
) -> float:
    """Images per second of the loop that everybody writes."""
    batch_size = recipe.train.batch_size
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    net.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}],
        lr=0.01, momentum=0.9,
    )  # fmt: skip
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, data.steps(batch_size))
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    with computing(settings, device):
        if recipe.train.capture:
            return _bare_recorded(net, data, optimizer, batch_size, settings)
        began = time.perf_counter()
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        for places in torch.randperm(data.train_size).split(batch_size):
            index = places.to(device)
            images = (data.train_images[index].float() / 255 - MEAN) / STD
            images, labels = images.to(memory_format=torch.channels_last), data.train_labels[index]
            optimizer.zero_grad()
            with settings.casting(device):
                logits = net(images)
                loss: Tensor = F.cross_entropy(logits, labels)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            loss_sum += loss.detach()
            correct += (logits.argmax(1) == labels).sum()
        float(loss_sum)  # waits for the device
        return data.train_size / (time.perf_counter() - began)


def _bare_recorded(
    net: nn.Module,
    data: MemoryData,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    settings: Settings,
) -> float:
    """The same loop with its step in a CUDA graph, as PyTorch's documentation writes it."""
    device = data.train_images.device
    for group in optimizer.param_groups:
        group["lr"], group["fused"], group["foreach"] = (
            torch.tensor(0.01, device=device),
            True,
            None,
        )
    images = (data.train_images[:batch_size].float() / 255 - MEAN) / STD
    images = images.to(memory_format=torch.channels_last)
    labels = data.train_labels[:batch_size].clone()

    def step() -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with settings.casting(device):
            logits = net(images)
            loss: Tensor = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach(), (logits.argmax(1) == labels).sum()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, right = step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for places in torch.randperm(data.train_size).split(batch_size):
        index = places.to(device)
        images.copy_((data.train_images[index].float() / 255 - MEAN) / STD)
        labels.copy_(data.train_labels[index])
        graph.replay()
        loss_sum += loss
        correct += right
    float(loss_sum)  # waits for the device
    return data.train_size / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
