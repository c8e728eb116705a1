"""Training steps of another build of prunec beside this one's: seconds of the processor, in turn.

    git worktree add /tmp/before COMMIT
    OMP_NUM_THREADS=1 python tests/bench/steps_beside.py /tmp/before --network resnet20

Both checkouts are installed into folders of their own. Each runs its own ``step_cost.py`` in a
process that takes a step of a method when it is asked to. The builds take turns, step by step, so
that whatever else the machine does meets both. Printed are the medians, and the median of the
rounds' ratios other / this: above 1 this build is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from side_by_side import installed

ROOT = Path(__file__).resolve().parents[2]
STEP_COST = Path("tests/bench/step_cost.py")
WARM = 2  # steps of each before the clock counts: caches, and memory that is asked for once


def main() -> None:
    """Measure in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--network", default="resnet20", help="of step_cost.py")
    parser.add_argument("--methods", nargs="+", default=[], help="some of the rows; all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        serve(given.other, given.network)
        return
    with tempfile.TemporaryDirectory() as folder:
        builds = [
            Build(path.resolve(), installed(path, Path(folder) / str(number)), given.network)
            for number, path in enumerate((given.other, ROOT))
        ]
        methods = given.methods or [name for name in builds[0].methods if name in builds[1].methods]
        print(f"{given.network}: ms of the processor, other → this, other / this")
        for method in methods:
            rounds = [[build.step(method) for build in builds] for _ in range(WARM + given.rounds)]
            print(line(method, rounds[WARM:]), flush=True)
        for build in builds:
            build.end()


class Build:
    """A checkout's steps, taken by a process of its own.

    Attributes:
        methods: rows that it has.
    """

    def __init__(self, checkout: Path, build: Path, network: str) -> None:
        command = [sys.executable, __file__, str(checkout), "--child", "--network", network]
        environment = {**os.environ, "PYTHONPATH": str(build), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            cwd=build,
        )  # fmt: skip
        self.methods = self._answer().split("; ")

    def step(self, method: str) -> float:
        """Return the seconds of the processor that a step of a method takes."""
        stream = self._stream(self.process.stdin)
        stream.write(f"{method}\n")
        stream.flush()
        return float(self._answer())

    def end(self) -> None:
        """End the process."""
        self._stream(self.process.stdin).close()
        self.process.wait()

    def _answer(self) -> str:
        for text in self._stream(self.process.stdout):
            if text.startswith("= "):  # others talk on the standard output too
                return text[2:].strip()
        raise SystemExit("a build's process ended before it answered")

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


def serve(checkout: Path, network: str) -> None:
    """In a child: name the methods, then take a step of each that is asked for."""
    steps = steps_of(checkout, network)
    print("=", "; ".join(steps), flush=True)
    taken = dict.fromkeys(steps, 0)
    for asked in sys.stdin:
        method = asked.strip()
        began = time.process_time()
        steps[method](taken[method])
        print("=", time.process_time() - began, flush=True)
        taken[method] += 1


def steps_of(checkout: Path, network: str) -> Mapping[str, Any]:
    """Return the steps of a checkout's own ``step_cost.py``."""
    import torch

    spec = importlib.util.spec_from_file_location("step_cost", checkout / STEP_COST)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["step_cost"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    settings = module.Settings("fp32", True, torch.get_num_threads())
    make = getattr(module, "steps_of", None) or module._steps  # its name before
    more = {"recorded": False} if "recorded" in inspect.signature(make).parameters else {}
    steps: Mapping[str, Any] = make(module.CASES[network], settings, torch.device("cpu"), **more)
    return steps


def line(method: str, rounds: list[list[float]]) -> str:
    """Return medians and their ratio."""
    other, this = (1000 * statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    return f"{method:16} {other:8.1f} → {this:8.1f}  {ratio:.3f}"


if __name__ == "__main__":
    main()
