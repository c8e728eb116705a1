"""Runs of native code between forbidden pages, built without a warning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")

GUARDED = """
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "model.h"

/* Bytes between two pages that nobody may touch, against the first or the last of them. */
static char *fenced(size_t bytes, int last) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    char *all = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, room, PROT_READ | PROT_WRITE)) exit(3);
    return all + page + (last ? room - bytes : 0);
}

int main(int given, char **arguments) {
    const struct model_description *network = model_describe();
    static float x[3 * 13 * 16], y[4][10], z[4][32];
    FILE *file = given > 1 ? fopen(arguments[1], "rb") : NULL;
    if (!file) return 4;
    for (int i = 0; i < 3 * 13 * 16; i++) x[i] = (float)(i % 7) - 3.0F;
    const float *inputs[] = {x};
    for (int i = 0; i < 4; i++) {
        char *weights = fenced(network->weights_bytes, i & 1);
        char *workspace = fenced(model_workspace_size(), i & 1);
        rewind(file);
        if (fread(weights, 1, network->weights_bytes, file) != network->weights_bytes) return 4;
        memset(workspace, i & 2 ? 0xFF : 0, model_workspace_size()); /* not a number, or 0 */
        float *outputs[] = {y[i], z[i]};
        if (model_run(weights, workspace, inputs, outputs, 1)) return 2;
        if (memcmp(y[0], y[i], sizeof y[0]) || memcmp(z[0], z[i], sizeof z[0])) return 1;
    }
    fclose(file);
    return 0;
}
"""
"""Runs with weights and workspace between forbidden pages, whatever lay there before."""


def guarded(source: Path, folder: Path, *command: str) -> None:
    """Build the program that runs between forbidden pages, and run it."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    sources = [str(source), str(source.with_name("guarded.c")), "-lm", "-o", str(folder / "run")]
    flags = ["-std=c11", *WARNINGS]
    made = subprocess.run([*command, *flags, *sources], capture_output=True, text=True)
    if "libclang_rt" in made.stderr and "No such file" in made.stderr:
        pytest.skip(f"{command[0]} has no runtime of its sanitizers: install libclang-rt-dev")
    assert not made.returncode, made.stderr
    run = [str(folder / "run"), str(source.with_suffix(".bin"))]
    done = subprocess.run(run, capture_output=True, text=True)
    assert not done.returncode, (done.returncode, done.stderr)
