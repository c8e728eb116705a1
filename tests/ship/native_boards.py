"""Processors without an operating system, and those of another kind, as emulators have them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

CHECK = """
#include <stdint.h>
#include <stdio.h>
#include "model.h"

static union {{ uint32_t words[{inputs}]; float values[{inputs}]; }} given = {{{{{given}}}}};
static union {{ uint32_t words[{outputs}]; float values[{outputs}]; }} golden = {{{{{golden}}}}};
static float made[{outputs}];
static uint64_t workspace[{workspace} / 8 + 1];

int main(void) {{
    const float *inputs[] = {{given.values}};
    float *outputs[] = {{made}};
    if (model_workspace_size() > sizeof workspace) return 3;
    if (model_run(NULL, workspace, inputs, outputs, 1)) return 2;
    float apart = 0.0F, largest = 0.0F;
    for (size_t i = 0; i < {outputs}; i++) {{
        const float wanted = golden.values[i], off = made[i] - wanted;
        const float size = wanted < 0.0F ? -wanted : wanted, error = off < 0.0F ? -off : off;
        if (!(error <= apart)) apart = error;
        if (size > largest) largest = size;
    }}
    const int equal = apart <= 1e-5F * largest;
    printf("%s %s\\n", model_processor(), equal ? "equal" : "apart");
    return !equal;
}}
"""
"""Runs one sample of one input and compares its one output with what onnxruntime made of it."""

START = """
#include <stdint.h>
void _start(void);
/* The floating-point unit is off at first; the C library's start does the rest. */
static void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= UINT32_C(0xF) << 20;
    __asm volatile("dsb\\nisb");
    _start();
}
struct vectors { uint32_t stack; void (*reset)(void); };
__attribute__((section(".vectors"), used))
static const struct vectors vectors = {0x20400000, reset};
"""
MEMORY = """
ENTRY(_start)
MEMORY { rom : ORIGIN = 0, LENGTH = 4M  ram : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text*) KEEP(*(.init)) KEEP(*(.fini)) *(.rodata*) } > rom
    .ARM.exidx : { *(.ARM.exidx*) } > rom
    .arrays : { KEEP(*(.preinit_array*)) KEEP(*(.init_array*)) KEEP(*(.fini_array*)) } > rom
    .data : { *(.data*) } > ram
    .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > ram
    end = .;
    __end__ = .;
}
"""
"""The memory of the boards mps2: program at 0, the rest at 0x20000000."""


def check(folder: Path, workspace: int, x: np.ndarray, expected: np.ndarray) -> Path:
    """Write the program that compares; return its source."""
    made = CHECK.format(
        inputs=x.size, outputs=expected.size, workspace=workspace,
        given=_words(x), golden=_words(expected),
    )  # fmt: skip
    (folder / "check.c").write_text(made)
    return folder / "check.c"


def _words(values: np.ndarray) -> str:
    words = np.ascontiguousarray(values, "<f4").reshape(-1).view("<u4")
    return ", ".join(f"{word:#x}" for word in words.tolist())


@dataclass(frozen=True)
class Target:
    """A processor: who compiles for it, and what runs the program here."""

    compiler: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...]
    bare: bool = False

    def require(self) -> None:
        """Skip the test where a tool is missing."""
        for tool in (self.compiler, self.emulator[0]):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is not installed")

    def build(self, sources: Sequence[Path], folder: Path, *flags: str) -> Path:
        """Return the program, linked."""
        program = folder / "program"
        command = [self.compiler, "-O2", "-std=c11", *self.flags, *flags, *map(str, sources)]
        if self.bare:
            (folder / "start.c").write_text(START)
            (folder / "memory.ld").write_text(MEMORY)
            command += [str(folder / "start.c"), "--specs=rdimon.specs"]
            command += ["-T", str(folder / "memory.ld")]
        done = subprocess.run(
            [*command, "-lm", "-o", str(program)], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return program

    def run(self, program: Path) -> str:
        """Return what the program says; it must end well."""
        done = subprocess.run(
            [*self.emulator, str(program)], capture_output=True, text=True, check=False, timeout=120
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout.strip()


def board(machine: str, processor: str, *flags: str) -> Target:
    """Return a microcontroller on a board of qemu's."""
    emulator = ("qemu-system-arm", "-M", machine, "-nographic", "-monitor", "none")
    console = ("-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel")
    return Target(
        "arm-none-eabi-gcc", ("-mthumb", f"-mcpu={processor}", *flags), (*emulator, *console), True
    )


AARCH64 = Target("aarch64-linux-gnu-gcc", ("-static",), ("qemu-aarch64-static",))
M3 = board("mps2-an385", "cortex-m3")
M4 = board("mps2-an386", "cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
M7 = board("mps2-an500", "cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard")
