"""Instructions of aarch64 for each weight that is not zero, as qemu counts them.

    python tests/bench/native_instructions.py [--xnnpack | --patterns]

Needs aarch64-linux-gnu-gcc, and qemu-aarch64 with plugins (Debian: qemu-user; the static one has
none). A row is a layer, with the ReLU behind it. Two chains of such layers, one two layers longer
than the other, each run twice and eleven times: what counts is the difference, without set-up and
without the copies in and out of a network. Channels alternate: 512 → 2048 is averaged with
2048 → 512. Outputs are compared with torch's. An instruction is no time: an emulator says nothing
of how long one takes.

With --xnnpack, the layers that XNNPACK computes sparsely too, 1×1, beside XNNPACK; its packages
are fetched from Debian. With --patterns, masks with a pattern beside single weights of the same
density.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xnnpack_aarch64
from torch import nn
from xnnpack_aarch64 import convolutions

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.exporters.to_c import ToC
from prunec.exporters.to_onnx import ToOnnx
from prunec.sparsity.masks import Masks
from prunec.sparsity.patterns.option import pattern_of

PLUGIN = """
#include <stdint.h>
#include <stdio.h>
/* qemu's interface of plugins, version 1, as far as it is used here. */
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
int qemu_plugin_version = 1;
static uint64_t count;
static void block(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &count, qemu_plugin_tb_n_insns(tb));
}
static void ended(plugin_id id, void *nothing) {
    (void)id, (void)nothing;
    fprintf(stderr, "instructions %llu\\n", (unsigned long long)count);
}
int qemu_plugin_install(plugin_id id, const void *info, int given, char **arguments) {
    (void)info, (void)given, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, block);
    qemu_plugin_register_atexit_cb(id, ended, 0);
    return 0;
}
"""
AGAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
enum { MOST = 1 << 20 };
static float x[MOST], y[MOST];
/* How often to run. Few weights stand in the source instead of a file. */
int main(int given, char **arguments) {
    const struct model_description *network = model_describe();
    void *weights = malloc(network->weights_bytes), *workspace = malloc(model_workspace_size());
    FILE *from = fopen("input", "rb"), *to = fopen("output", "wb");
    FILE *file = fopen("model.bin", "rb");
    if (given < 2 || !weights || !workspace || !from || !to) return 1;
    if (!fread(x, sizeof *x, MOST, from)) return 1;
    if (file && fread(weights, 1, network->weights_bytes, file) != network->weights_bytes) return 1;
    const float *inputs[] = {x};
    float *outputs[] = {y};
    for (int i = atoi(arguments[1]); i--;)
        if (model_run(file ? weights : NULL, workspace, inputs, outputs, 1)) return 1;
    return fwrite(y, sizeof *y, MOST, to) != MOST || fclose(to);
}
"""
Layer = tuple[int, int, int, int]
Prepared = Callable[[Path, nn.Sequential, int], list[str]]
"""Builds a program that runs a chain, in a folder where it finds `input`, of so many rows, and
writes `output`, both of floats; returns qemu's arguments, to which the number of runs is added."""
LAYERS = [
    (64, 64, 56, 1),
    (256, 1024, 14, 1),
    (512, 2048, 7, 1),
    (64, 64, 56, 3),
    (256, 256, 14, 3),
]
"""Channels in and out, rows, side of the kernel: as ResNet-50 has them."""
DENSITIES = (0.02, 0.05, 0.1, 0.2)
PATTERNS = {"4x1": 1 / 8, "1:8": 1 / 8, "1:16": 1 / 16}
"""Pattern → density."""


def counted(
    folder: Path, prepared: Prepared, layer: Layer, density: float, pattern: str = ""
) -> float:
    """Instructions for a multiply-add that is not of a zero."""
    short, long = (_chain(layer, length, density, pattern) for length in (1, 3))
    counts = [_instructions(folder, prepared, network, layer) for network in (short, long)]
    products = [_nonzero(network) * layer[2] ** 2 for network in (short, long)]
    return (counts[1] - counts[0]) / (products[1] - products[0])


def _chain(layer: Layer, length: int, density: float, pattern: str) -> nn.Sequential:
    """Convolutions of one kind, one after the other; channels alternate."""
    torch.manual_seed(0)
    *ends, _, side = layer
    made: list[nn.Module] = []
    for index in range(length):
        before, after = ends if index % 2 == 0 else ends[::-1]
        convolution = nn.Conv2d(before, after, side, padding=side // 2)
        masks = Masks({"weight": convolution.weight}, pattern=pattern_of(pattern))
        masks.keep_largest([round(density * convolution.weight.numel())])
        masks.apply()
        made += [convolution, nn.ReLU()]
    return nn.Sequential(*made).eval()


def _nonzero(network: nn.Sequential) -> int:
    return sum(int(layer.weight.count_nonzero()) for layer in convolutions(network))


def _instructions(folder: Path, prepared: Prepared, network: nn.Sequential, layer: Layer) -> float:
    """Instructions of one run of a network; its outputs are compared with torch's."""
    image = torch.randn(1, layer[0], layer[2], layer[2])
    image.numpy().tofile(folder / "input")
    qemu = ["qemu-aarch64", "-cpu", "cortex-a72", "-plugin", str(folder / "count.so")]
    command = [*qemu, *prepared(folder, network, layer[2])]
    counts = []
    for times in (2, 11):
        said = subprocess.run(
            [*command, str(times)], cwd=folder, capture_output=True, text=True, check=True
        )
        match = re.search(r"instructions (\d+)", said.stderr)
        assert match, said.stderr
        counts.append(int(match[1]))
    with torch.no_grad():
        expected = network(image).numpy()
    actual = np.fromfile(folder / "output", np.float32)[: expected.size].reshape(expected.shape)
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    return (counts[1] - counts[0]) / 9


def _prepared(folder: Path, network: nn.Sequential, size: int) -> list[str]:
    """Build our program."""
    example = (torch.zeros(1, convolutions(network)[0].in_channels, size, size),)
    (folder / "model.bin").unlink(missing_ok=True)
    source = Source(Artifact(network, example))
    ToOnnx()(source, folder / "model.onnx")
    source = Source(Artifact(network, example), {}, {"onnx": folder / "model.onnx"})
    ToC()(source, folder / "model.c")
    compiler = ["aarch64-linux-gnu-gcc", "-O2", "-std=c11", "-static", "-o", str(folder / "again")]
    sources = [str(folder / "again.c"), str(folder / "model.c"), "-lm"]
    subprocess.run([*compiler, *sources], check=True)
    return [str(folder / "again")]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "count.c").write_text(PLUGIN)
        (folder / "again.c").write_text(AGAIN)
        library, source = str(folder / "count.so"), str(folder / "count.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        if "--patterns" in sys.argv:
            _print_patterns(folder)
            return
        print("channels, size, kernel      ", *(f"{density:6.0%}" for density in DENSITIES))
        if "--xnnpack" not in sys.argv:
            for layer in LAYERS:
                _print_row(folder, "", _prepared, layer)
            return
        root, version = xnnpack_aarch64.fetch(folder)
        print(f"XNNPACK {version}")
        for layer in (layer for layer in LAYERS if layer[3] == 1):
            _print_row(folder, "prunec ", _prepared, layer)
            _print_row(folder, "XNNPACK", partial(xnnpack_aarch64.prepared, root), layer)


def _print_row(folder: Path, engine: str, prepared: Prepared, layer: Layer) -> None:
    actual = (f"{counted(folder, prepared, layer, density):6.3f}" for density in DENSITIES)
    before, after, size, side = layer
    print(f"{before:4} → {after:4} {size:3}² {side}×{side}  {engine}", *actual, flush=True)


def _print_patterns(folder: Path) -> None:
    for layer in LAYERS:
        for pattern, density in PATTERNS.items():
            own, single = (
                counted(folder, _prepared, layer, density, text) for text in (pattern, "")
            )
            print(
                f"{layer[0]:4} → {layer[1]:4} {layer[2]:3}² {layer[3]}×{layer[3]}   {pattern:5}"
                f"{density:8.2%}  {own:6.3f}  single weights {single:6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
