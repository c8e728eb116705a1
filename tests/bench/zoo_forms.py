"""The networks of tests/zoo in a form: right, refused with a reason, or computing otherwise.

    python tests/bench/zoo_forms.py ncnn
    python tests/bench/zoo_forms.py openvino --only concat

Every network is compiled without masks, as an export does, written in float32 by the form's
exporter alone, without the checks of an export, and run by the form's runner on two samples.
*Right*: every output has torch's shape, and its values to 1e-3 of the largest. What computes
otherwise is what the checks of an export refuse.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo import ZOO

from prunec.artifact import Artifact
from prunec.catalogue import exporter, runner_for
from prunec.deploy.exporter import Source
from prunec.graph.rewriting.compile import compile_module
from prunec.wording import first_line

Inputs = tuple[torch.Tensor, ...]
CLOSE = 1e-3
OTHERWISE = "compute otherwise"


def main() -> None:
    """Print a line per network that is not right, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("form")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    counts = {"right": 0, "refused": 0, OTHERWISE: 0}
    for name, case in ZOO.items():
        if options.only in name:
            module, inputs = case()
            outcome, why = outcome_of(module, inputs, options.form)
            counts[outcome] += 1
            if why:
                print(f"{name}: {outcome}: {why}", flush=True)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"{options.form}: {told}")


def single(x: torch.Tensor) -> torch.Tensor:
    """Floats in single precision, integers as they are."""
    return x.float() if x.is_floating_point() else x


def outcome_of(module: nn.Module, inputs: Inputs, form: str) -> tuple[str, str]:
    """Outcome of a network in a form, and its reason; empty if it is right."""
    module = compile_module(module, inputs).module.float()
    inputs = tuple(map(single, inputs))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        place = Path(folder)
        try:
            actual = written_and_run(module, inputs, form, place)
        except Exception as error:  # whatever a converter raises
            return "refused", first_line(error).replace(folder, "")
        expected = [x.numpy() for x in tree_leaves(module(*inputs))]
    shapes = [x.shape for x in expected]
    if [x.shape for x in actual] != shapes:
        return OTHERWISE, f"shapes {[x.shape for x in actual]}, torch {shapes}"
    worst = max(map(apart, actual, expected), default=0.0)
    return ("right", "") if worst <= CLOSE else (OTHERWISE, f"by {worst:.2g}")


def written_and_run(module: nn.Module, inputs: Inputs, form: str, place: Path) -> list[np.ndarray]:
    """The outputs of a network's file."""
    artifact, writer = Artifact(module, inputs), exporter(f"to-{form}")()
    onnx = place / "model.onnx"
    # Converters of the network itself name the ONNX file, but do not read it.
    if form == "openvino":
        exporter("to-onnx")()(Source(artifact), onnx)
    path = place / form / f"model{writer.suffix}"
    writer(Source(artifact, {}, {"onnx": onnx}), path)
    return next(iter(runner_for(writer.suffix).open(path).run([[x.numpy() for x in inputs]])))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    if not other.size:
        return 0.0
    difference = np.abs(one.astype(np.float64) - other)
    return float(difference.max() / max(np.abs(other).max(), 1e-30))


if __name__ == "__main__":
    main()
