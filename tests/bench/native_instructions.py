"""Instructions of aarch64 for each weight that is not zero, as qemu counts them.

    python tests/bench/native_instructions.py

Needs aarch64-linux-gnu-gcc, and qemu-aarch64 with plugins (Debian: qemu-user; the static one has
none). One layer a row: the program runs it twice and eleven times; the difference counts. An
instruction is no time: an emulator says nothing of how long one takes. With --patterns, masks with
a pattern beside single weights of the same density.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

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
int main(int given, char **arguments) {
    const struct model_description *network = model_describe();
    float *x = calloc(1 << 20, sizeof(float)), *y = calloc(1 << 20, sizeof(float));
    void *weights = malloc(network->weights_bytes), *workspace = malloc(model_workspace_size());
    FILE *file = fopen(arguments[2], "rb");
    if (given < 3 || !x || !y || !weights || !workspace) return 1;
    if (file && fread(weights, 1, network->weights_bytes, file) != network->weights_bytes) return 1;
    const float *inputs[] = {x};
    float *outputs[] = {y};
    for (int i = atoi(arguments[1]); i--;)
        if (model_run(file ? weights : NULL, workspace, inputs, outputs, 1)) return 1;
    return 0;
}
"""
LAYERS = [(64, 64, 56, 1), (64, 64, 56, 3), (256, 256, 14, 3), (512, 2048, 7, 1)]
"""Channels in and out, rows, side of the kernel: as ResNet-50 has them."""
DENSITIES = (0.02, 0.05, 0.1, 0.2)
PATTERNS = {"4x1": 1 / 8, "1:8": 1 / 8, "1:16": 1 / 16}
"""Pattern → density."""


def counted(
    folder: Path, layer: tuple[int, int, int, int], density: float, pattern: str = ""
) -> float:
    """Instructions for a multiply-add that is not of a zero."""
    torch.manual_seed(0)
    before, after, size, kernel = layer
    module = nn.Conv2d(before, after, kernel, padding=kernel // 2).eval()
    masks = Masks({"weight": module.weight}, pattern=pattern_of(pattern))
    masks.keep_largest([round(density * module.weight.numel())])
    masks.apply()
    example = (torch.zeros(1, before, size, size),)
    (folder / "model.bin").unlink(missing_ok=True)  # few weights stand in the source instead
    ToOnnx()(Source(Artifact(module, example)), folder / "model.onnx")
    ToC()(
        Source(Artifact(module, example), {}, {"onnx": folder / "model.onnx"}), folder / "model.c"
    )
    compiler = ["aarch64-linux-gnu-gcc", "-O2", "-std=c11", "-static", "-o", str(folder / "again")]
    sources = [str(folder / "again.c"), str(folder / "model.c"), "-lm"]
    subprocess.run([*compiler, *sources], check=True)
    counts = [_run(folder, times) for times in (2, 11)]
    products = int(module.weight.count_nonzero()) * size * size
    return (counts[1] - counts[0]) / 9 / products


def _run(folder: Path, times: int) -> int:
    plugin, program = str(folder / "count.so"), str(folder / "again")
    command = ["qemu-aarch64", "-plugin", plugin, program, str(times), str(folder / "model.bin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"instructions (\d+)", said.stderr)
    assert match, said.stderr
    return int(match[1])


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
        print("channels, size, kernel ", *(f"{density:6.0%}" for density in DENSITIES))
        for layer in LAYERS:
            actual = (f"{counted(folder, layer, density):6.3f}" for density in DENSITIES)
            print(f"{layer[0]:4} → {layer[1]:4} {layer[2]:3}² {layer[3]}×{layer[3]}  ", *actual)


def _print_patterns(folder: Path) -> None:
    for layer in LAYERS:
        for pattern, density in PATTERNS.items():
            own, single = (counted(folder, layer, density, text) for text in (pattern, ""))
            print(
                f"{layer[0]:4} → {layer[1]:4} {layer[2]:3}² {layer[3]}×{layer[3]}   {pattern:5}"
                f"{density:8.2%}  {own:6.3f}  single weights {single:6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
