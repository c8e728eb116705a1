"""The dense and the sparse kernels of native code beside each other, by density: where they cross.

    python tests/bench/native_kernels.py

Prints milliseconds of both for linear layers of one row and of many, and for convolutions; the
thresholds of `prunec.deploy.native` follow from it. With --patterns, masks with a pattern beside
single weights of the same density.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "ship"))
from native_nets import exported, masked

from prunec.deploy.runner import once
from prunec.deploy.runners.native import Native
from prunec.sparsity.masks import Masks
from prunec.sparsity.patterns.option import pattern_of

DENSITIES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65)
ROOM = "prunec.deploy.native"
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear, 1 row": (lambda: nn.Linear(2048, 1000), (1, 2048)),
    "linear, 49 rows": (lambda: nn.Linear(768, 768), (1, 49, 768)),
    "3×3, 256 at 14×14": (lambda: nn.Conv2d(256, 256, 3, padding=1), (1, 256, 14, 14)),
    "1×1, 512 at 14×14": (lambda: nn.Conv2d(512, 512, 1), (1, 512, 14, 14)),
}
THRESHOLDS = (
    "linear.SPARSE_BELOW", "linear.SPARSE_ROWS_BELOW", "convolutions.DENSE_FROM",
    "convolutions._DENSE_FROM_FEW",
)  # fmt: skip


def loaded(module: nn.Module, x: torch.Tensor, folder: str, *, dense: bool) -> Callable[[], None]:
    """Return a call of a layer with one of both kernels."""
    bound = -1.0 if dense else 2.0
    with ExitStack() as patched:
        for name in THRESHOLDS:
            patched.enter_context(mock.patch(f"{ROOM}.{name}", bound))
        compiled = Native().open(exported(module, (x,), Path(folder)))

    def call() -> None:
        once(compiled, [x.numpy()])

    return call


def shaped(module: nn.Conv2d, text: str, density: float) -> nn.Conv2d:
    """Keep the largest weights of a convolution, in a pattern."""
    masks = Masks({"weight": module.weight}, pattern=pattern_of(text))
    masks.keep_largest([round(density * module.weight.numel())])
    masks.apply()
    return module


def print_patterns() -> None:
    """Print milliseconds of a pattern and of single weights, of the same density, in turns."""
    for channels, size, kernel in ((64, 56, 3), (256, 14, 3), (512, 14, 1), (512, 7, 3)):
        for text, density in (("4x1", 0.05), ("4x1", 0.125), ("1:8", 0.125), ("1:16", 0.0625)):
            x = torch.randn(1, channels, size, size)
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
                calls = []
                for folder, pattern in ((one, text), (two, "")):
                    torch.manual_seed(0)
                    module = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
                    path = exported(shaped(module, pattern, density), (x,), Path(folder))
                    calls.append(partial(once, Native().open(path), [x.numpy()]))
                own, single = milliseconds(calls)
            print(
                f"{kernel}×{kernel}, {channels} at {size}×{size}  {text:5}{density:8.2%}  "
                f"{own:7.3f}  single weights {single:7.3f}  ratio {single / own:.2f}",
                flush=True,
            )


def milliseconds(calls: Sequence[Callable[[], object]], seconds: float = 1.0) -> list[float]:
    """Return the least time of each call; they run in turns."""
    least, end = [float("inf")] * len(calls), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[number] = min(least[number], time.perf_counter() - start)
    return [1000 * each for each in least]


def main() -> None:
    if "--patterns" in sys.argv:
        print_patterns()
        return
    for name, (make, sizes) in LAYERS.items():
        for density in DENSITIES:
            torch.manual_seed(0)
            module, x = masked(make(), density), torch.randn(sizes)
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
                calls = [loaded(module, x, one, dense=True), loaded(module, x, two, dense=False)]
                dense, sparse = milliseconds(calls)
            print(
                f"{name:20} {density:.0%}   dense {dense:7.3f}   sparse {sparse:7.3f}", flush=True
            )


if __name__ == "__main__":
    main()
