"""MACs of several networks by prunec's two counters, torch's and fvcore's, and where they differ.

    python tests/bench/counters.py
    python tests/bench/counters.py resnet50 lstm

One sample, images of 224 × 224. torch's ``FlopCounterMode`` counts a multiply and an add apart, so
its number is halved. fvcore is used when it is installed. What operators the difference comes from
is asked of the counters themselves, not guessed: fvcore's by operator, and what it says it skips.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import prunec

# Beside kernels and products, fvcore counts these, one or more an element.
EXTRA = frozenset({"batch_norm", "layer_norm", "group_norm", "adaptive_avg_pool2d"})
EXTRA |= {"upsample_bilinear2d", "upsample_nearest2d", "grid_sampler"}

Case = tuple[nn.Module, Tensor]


class Reader(nn.Module):
    """Two LSTM layers in both directions over 32 steps, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(64, 128, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0][:, -1])


def decoder() -> nn.Module:
    """Strided down, transposed up."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )


def _image(name: str) -> Callable[[], Case]:
    return lambda: (models.get_model(name), torch.randn(1, 3, 224, 224))


NETWORKS: dict[str, Callable[[], Case]] = {
    **{name: _image(name) for name in ("resnet50", "mobilenet_v2", "densenet121")},
    **{name: _image(name) for name in ("vit_b_16", "swin_t", "swin_v2_t")},
    "lstm": lambda: (Reader(), torch.randn(1, 32, 64)),
    "conv-transposed": lambda: (decoder(), torch.randn(1, 3, 64, 64)),
}


def of_file(module: nn.Module, example: Tensor) -> int:
    """prunec's count of the exported file."""
    with tempfile.TemporaryDirectory() as folder:
        path = prunec.export_onnx(module, example, Path(folder) / "net.onnx")
        return prunec.count_onnx(path).macs


def of_torch(module: nn.Module, example: Tensor) -> tuple[int, dict[str, int]]:
    """torch's count, and that of each operator."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(example)
    actual = counter.get_flop_counts().get("Global", {})
    return counter.get_total_flops() // 2, {str(op): n // 2 for op, n in actual.items()}


def of_fvcore(
    module: nn.Module, example: Tensor
) -> tuple[int, dict[str, int], dict[str, int]] | None:
    """fvcore's count, that of each operator, and the operators that it skips; None without it."""
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError:
        return None
    logging.disable(logging.WARNING)
    analysis = FlopCountAnalysis(module, example)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        total = int(analysis.total())
        return total, dict(analysis.by_operator()), dict(analysis.unsupported_ops())


def row(name: str) -> str:
    """One line of the table."""
    module, example = NETWORKS[name]()
    module = module.eval()
    ours, file = prunec.count(module, example), of_file(module, example)
    theirs, _ = of_torch(module, example)
    cells = [name, f"{ours.macs:,}", f"{file:,}", f"{theirs:,}", f"{theirs - ours.macs:+,}"]
    actual = of_fvcore(module, example)
    if actual is None:
        return "| " + " | ".join([*cells, "not installed", "", ""]) + " |"
    total, by_operator, skipped = actual
    extra = [f"{op} {int(n):+,}" for op, n in sorted(by_operator.items()) if op in EXTRA and n]
    known = ("scaled_dot_product_attention", "lstm", "gru", "_convolution_mode", "einsum")
    missing = [f"{op} skipped" for op in sorted(skipped) if op.removeprefix("aten::") in known]
    cells += [f"{total:,}", f"{total - ours.macs:+,}", "; ".join([*extra, *missing])]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    tools = ("torch", "torchvision", "onnx", "fvcore")
    versions = []
    for tool in tools:
        try:
            versions.append(f"{tool} {importlib.metadata.version(tool)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {tool}")
    print(f"{datetime.date.today()}; {', '.join(versions)}\n")
    heads = ["network", "prunec, graph", "prunec, file", "torch / 2", "torch − prunec"]
    heads += ["fvcore", "fvcore − prunec", "parts, according to fvcore"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for name in sys.argv[1:] or NETWORKS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
