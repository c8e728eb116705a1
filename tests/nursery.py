"""Processes forked from one that has imported torch and computed nothing: each begins at once.

The one that tests cannot be forked itself: what has gone backward through a network has threads.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from forked import Ended, Forked

FIRST = ("torch.distributed.launcher.api", "prunec.training.loop", "prunec.cli.commands")


def born(work: Callable[..., None], *arguments: object) -> Ended:
    """Call a function of a module in a process with this one's folder, environment and path."""
    here = os.getcwd(), dict(os.environ), sys.path
    asked = pickle.dumps((work.__module__, work.__name__, arguments, *here)).hex()
    mother = _mother()
    assert mother.stdin is not None
    assert mother.stdout is not None
    print(asked, file=mother.stdin, flush=True)
    return Ended(**json.loads(mother.stdout.readline()))


@cache
def _mother() -> subprocess.Popen[str]:
    mother = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(mother.communicate)  # which closes what it reads, and so it ends
    return mother


def _serve() -> None:
    for name in FIRST:
        importlib.import_module(name)
    for asked in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            ended = Forked(partial(_called, asked), Path(folder)).ended()
        print(json.dumps(asdict(ended)), flush=True)


def _called(asked: str) -> None:
    module, name, arguments, folder, environment, path = pickle.loads(bytes.fromhex(asked))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    getattr(importlib.import_module(module), name)(*arguments)


if __name__ == "__main__":
    _serve()
