"""XNNPACK for aarch64, from Debian's packages, as a program that runs a chain of 1×1 convolutions.

XNNPACK has a sparse kernel for this kind of layer only: `xnn_create_convolution2d_nchw_f32` refuses
a 3×3 convolution, except for depthwise ones and the first of a network, which it computes densely.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from torch import nn

from prunec.deploy.devices import debian
from prunec.deploy.devices.sysroot import CPUINFO

RELEASE = "trixie"
CHAIN = """
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xnnpack.h>
enum { MOST = 1 << 20, LAYERS = 8 };
static float buffers[LAYERS + 1][MOST], weights[4 * MOST];
#define MUST(call) if ((call) != xnn_status_success) return fprintf(stderr, "%s\\n", #call), 1
/* Rows, channels at every end of a layer, how often to run. */
int main(int given, char **arguments) {
    FILE *from = fopen("input", "rb"), *to = fopen("output", "wb"), *file = fopen("weights", "rb");
    const int layers = given - 4;
    if (layers < 1 || layers > LAYERS || !from || !to || !file) return 1;
    if (!fread(buffers[0], sizeof(float), MOST, from)) return 1;
    if (!fread(weights, sizeof(float), sizeof weights / sizeof *weights, file)) return 1;
    MUST(xnn_initialize(NULL));
    xnn_operator_t convolutions[LAYERS];
    const size_t size = strtoul(arguments[1], NULL, 10);
    const float *kernel = weights;
    for (int i = 0; i < layers; i++) {
        const size_t before = strtoul(arguments[i + 2], NULL, 10);
        const size_t after = strtoul(arguments[i + 3], NULL, 10);
        size_t height, width;
        MUST(xnn_create_convolution2d_nchw_f32(
            0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, before, after, before, after, kernel,
            kernel + before * after, 0.0F, INFINITY, 0, NULL, NULL, &convolutions[i]));
        MUST(xnn_reshape_convolution2d_nchw_f32(
            convolutions[i], 1, size, size, &height, &width, NULL));
        MUST(xnn_setup_convolution2d_nchw_f32(
            convolutions[i], buffers[i], buffers[i + 1]));
        kernel += before * after + after;
    }
    for (int times = atoi(arguments[given - 1]); times--;)
        for (int i = 0; i < layers; i++) MUST(xnn_run_operator(convolutions[i], NULL));
    return fwrite(buffers[layers], sizeof(float), MOST, to) != MOST || fclose(to);
}
"""


def fetch(folder: Path) -> tuple[Path, str]:
    """Return a folder with an aarch64 system that has XNNPACK, and XNNPACK's version."""
    debian.require_tools()
    place = folder / "debs"
    packages = ("libxnnpack-dev", "libpthreadpool-dev")
    debs = debian.download(packages, debian.DEBIAN, RELEASE, place)
    root = folder / "root"
    debian.unpack(debs, root)
    (root / "lib").symlink_to("usr/lib")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CPUINFO)  # or else XNNPACK reads that of this machine
    name = next(deb.name for deb in debs if deb.name.startswith("libxnnpack-dev_"))
    return root, f"{name.split('_')[1]} of Debian {RELEASE}"


def convolutions(network: nn.Sequential) -> list[nn.Conv2d]:
    """Return the convolutions of a chain, in order."""
    return [module for module in network if isinstance(module, nn.Conv2d)]


def prepared(root: Path, folder: Path, network: nn.Sequential, size: int) -> list[str]:
    """Build the program for a chain of 1×1 convolutions, each with a ReLU behind it."""
    layers = convolutions(network)
    parts = [tensor for layer in layers for tensor in layer.parameters()]
    np.concatenate([part.detach().numpy().ravel() for part in parts]).tofile(folder / "weights")
    source, program = folder / "chain.c", folder / "chain"
    source.write_text(CHAIN)
    libraries = root / "usr/lib/aarch64-linux-gnu"
    compiler = ["aarch64-linux-gnu-gcc", "-O2", "-std=c11", f"-I{root / 'usr/include'}"]
    linker = [f"-L{libraries}", "-lXNNPACK", "-Wl,--allow-shlib-undefined"]
    subprocess.run([*compiler, "-o", str(program), str(source), *linker], check=True)
    channels = [layers[0].in_channels, *(layer.out_channels for layer in layers)]
    return ["-L", str(root), str(program), str(size), *map(str, channels)]
