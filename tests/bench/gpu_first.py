"""Runner of everything that wants a GPU, the most valuable first: the command for a new GPU.

    python tests/bench/gpu_first.py --minutes 9
    python tests/bench/gpu_first.py --device cpu --tiny

In order: the tests of recorded steps, the table of aims (``gpu_table.py``), the tests of every
method and of what else needs CUDA, the trainings of the long trainings (``papers_length.py``).
Each part writes into ``--folder`` while it runs, and ``parts.md`` says which have ended and how.
When ``--minutes`` are over the part at hand ends; the same command goes on with it, and leaves out
tests that have passed. ``--retry`` runs parts again that failed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rows import Cells, Rows, forget_failures, markdown

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
GRACE = 60.0  # seconds that a part may take to save when it is asked to end
NO_TESTS = 5  # what pytest ends with where all have passed before
SHORT = 30.0  # seconds in which no part gets anywhere
PARTS: Mapping[str, Sequence[str]] = {
    "recorded steps": ("training/test_graphs_on_cuda.py",),
    "table": ("gpu_table.py",),
    "methods": ("training/test_on_cuda.py",),
    "other tests": (
        "compiler/test_cuda.py", "training/test_decoding_on_device.py", "training/test_loop.py",
    ),
    "long trainings": ("papers_length.py",),
}  # fmt: skip
"""Part → test files, or the bench, that it runs."""


def main() -> None:
    """Run what is left until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=0, help="0: to the end")
    parser.add_argument("--retry", action="store_true", help="run failed parts again")
    parser.add_argument("--tiny", action="store_true", help="benches at sizes that say nothing")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(given.folder / "parts.md", table)
    if given.retry:
        forget_failures(rows, list(rows.cells), lambda cells: cells["code"] != 0)
    end = time.monotonic() + 60 * given.minutes if given.minutes else float("inf")
    for part in rows.missing(PARTS):
        if end - time.monotonic() < SHORT:
            break
        cells = run(part, given, end)
        if cells is None:
            break
        rows.add(part, cells)
        print(f"{part}: {cells['end']}", flush=True)
    left = rows.missing(PARTS)
    print(f"Left: {', '.join(left)}; the same command goes on." if left else table(rows.cells))


def run(part: str, given: argparse.Namespace, end: float) -> Cells | None:
    """Return how a part ended; None: the time was over before."""
    began = time.monotonic()
    log = given.folder / f"{part.replace(' ', '_')}.txt"
    print(f"{part}: see {log}", flush=True)
    words = command(part, given, (end - began) / 60, log)
    with log.open("a", encoding="utf-8") as output:
        before = output.tell()
        process = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, cwd=TESTS.parent, start_new_session=True
        )
        try:
            code = process.wait(None if end == float("inf") else end - began + GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that measure for it
            process.wait()
            return None
    told = log.read_bytes()[before:].decode(errors="replace").strip()
    if "the same command goes on" in told:
        return None
    code = 0 if code == NO_TESTS else code
    return {"end": told.rpartition("\n")[2], "code": code, "seconds": time.monotonic() - began}


def command(part: str, given: argparse.Namespace, minutes: float, log: Path) -> list[str]:
    """Return the command line of a part; its log names the tests that have passed before."""
    files = PARTS[part]
    if not files[0].startswith(("gpu_table", "papers_length")):
        paths = [str(TESTS / name) for name in files]
        chosen = ["-k", "cuda or gpu"] if part == "other tests" else []
        chosen += [word for name in passed(log) for word in ("--deselect", name)]
        # -vv: a line for each test, for the project's own settings are -q
        return [sys.executable, "-m", "pytest", "-n", "0", "-vv", "--tb=short", *chosen, *paths]
    bench = HERE / files[0]
    where = given.folder.resolve() / bench.stem
    place = ["--output", f"{where}.md"] if part == "table" else ["--folder", str(where)]
    words = [sys.executable, str(bench), "--device", given.device, *place]
    words += ["--minutes", f"{max(minutes - GRACE / 60, 0.1):.2f}"] if given.minutes else []
    return words + (["--tiny"] if given.tiny else [])


def passed(log: Path) -> list[str]:
    """Return the tests that passed, by earlier calls of the same part."""
    text = log.read_text("utf-8", errors="replace") if log.exists() else ""
    return re.findall(r"(?m)^(tests/\S+::.+?) PASSED", text)


def table(cells: Mapping[str, Cells]) -> str:
    """Return the parts that have ended, in Markdown."""
    rows = ([part, f"{c['seconds']:.0f} s", str(c["code"]), c["end"]] for part, c in cells.items())
    return markdown(["part", "took", "exit", "last line"], rows)


if __name__ == "__main__":
    main()
