"""Choice of kernels by measurement: each layer is timed here with every kernel that computes it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from prunec.deploy.native.builder import Builder
from prunec.deploy.native.library import Compiled, load
from prunec.deploy.native.lowering import lower
from prunec.deploy.native.reading import Network
from prunec.deploy.native.source import program, write_program

_ROUNDS = 12
"""Runs of each library, in turns. The least time of a layer counts: other work only adds to it."""
_GAIN = 0.97
"""Share of the own kernel's time below which another kernel is chosen: a smaller gain is noise."""


def tuned(network: Network) -> dict[str, str]:
    """Return tensor → the fastest kernel on this machine, for layers that several can compute.

    Raises:
        PrunecError: there is no compiler.
        PassError: the network has an operator, a size or a type that C has no kernel for.
    """
    untuned = lower(network)
    several = {name: fits for name, fits in untuned.choices.items() if len(fits) > 1}
    kernels = sorted({kernel for fits in several.values() for kernel in fits})
    times = _measured(network, [_all_by(kernel, several) for kernel in kernels])
    by_kernel = dict(zip(kernels, times, strict=True))
    return {
        name: _fastest(fits, {kernel: by_kernel[kernel][name] for kernel in fits})
        for name, fits in several.items()
    }


def _all_by(kernel: str, several: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return tensor → the kernel, for all layers that it can compute."""
    return {name: kernel for name, fits in several.items() if kernel in fits}


def _fastest(fits: tuple[str, ...], seconds: Mapping[str, float]) -> str:
    """Return the fastest kernel; if the gain is noise, the layer's own, the first of ``fits``."""
    best = min(fits, key=lambda kernel: seconds[kernel])
    return best if seconds[best] < _GAIN * seconds[fits[0]] else fits[0]


def _measured(network: Network, choices: list[dict[str, str]]) -> list[dict[str, float]]:
    """Return, for each choice of kernels, tensor → the least seconds of its operator."""
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        made: list[tuple[Builder, Compiled]] = []
        for chosen in choices:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            builder = lower(network, chosen)
            write_program(program(builder, {}), folder / "model.c")
            made.append((builder, load(folder / "model.c", ("-DPRUNEC_PROFILE",))))
        named = made[0][1].input_shapes
        shapes = [tuple(s if isinstance(s, int) else 1 for s in sizes) for sizes in named]
        inputs = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
        least: list[dict[str, float]] = [{} for _ in made]
        for _ in range(_ROUNDS):
            for times, (builder, library) in zip(least, made, strict=True):
                for name, taken in _by_tensor(builder, library.seconds(inputs)).items():
                    times[name] = min(taken, times.get(name, taken))
    return least


def _by_tensor(builder: Builder, seconds: list[float]) -> dict[str, float]:
    """Return tensor → the seconds of all calls of its operator."""
    timed = iter(seconds)
    by_step = [next(timed) if step.code else 0.0 for step in builder.steps]
    return {name: sum(by_step[first:last]) for name, (first, last) in builder.spans.items()}
