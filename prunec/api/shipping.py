"""ONNX files written and proven."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from prunec import catalogue
from prunec.api.guarded import Example, leaving_all_as_it_was
from prunec.artifact import Artifact
from prunec.cost import torch_graph as costs
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.labelled import labelled_batches
from prunec.deploy.original import is_of_another, verify_against_original
from prunec.deploy.runner import Runner
from prunec.deploy.signature import MACS
from prunec.errors import PrunecError
from prunec.files import require_writable
from prunec.graph.capture.copying import copied
from prunec.models.gates import absorbed
from prunec.models.inputs import checked_example, checked_module
from prunec.recipe import VerifySpec
from prunec.store.environment import prunec_version
from prunec.store.finding import open_run
from prunec.store.runs import RunFolder


@leaving_all_as_it_was
def export_onnx(
    model: nn.Module,
    example_inputs: Example,
    path: Path | str,
    *,
    opset: int = 18,
    ir_version: int | None = None,
) -> Path:
    """Write a network as one ONNX file with a dynamic batch, whole or not at all.

    Args:
        model: the network; written in evaluation mode as it stands, gates taken into their
            kernels. It is not changed.
        example_inputs: as for :func:`compile`.
        path: the file; missing folders are made.
        opset: the version of ONNX's operators, 9 to 25: that of the file, or there is no file.
        ir_version: the version of the file's layout, by default the one that came with the opset.

    Returns:
        The path.

    Raises:
        UntraceableModel: the network cannot be captured with a batch of any size.
        PassError: ONNX cannot express it at this opset; names the operators that need more.
        RunError: the file cannot be written.
        PrunecError: an argument is wrong.
    """
    module = _shipped(model)
    example = tuple(x.cpu() for x in checked_example(checked_module(model), example_inputs))
    options = {"name": "to-onnx", "opset": opset, "ir_version": ir_version}
    writer = catalogue.build_exporter(options, "options", "export_onnx")
    target = Path(path)
    require_writable(target)
    metadata = {
        "prunec.version": prunec_version(),
        MACS: str(costs.count(module, example).macs),
    }
    writer(Source(Artifact(module, example), metadata), target)
    return target


@leaving_all_as_it_was
def verify(
    model: nn.Module,
    path: Path | str,
    *,
    example_inputs: Example,
    data: Iterable[tuple[Tensor, Tensor]] | None = None,
    tolerance: float = 1e-4,
    random_batches: int = 3,
    input_range: tuple[float, float] | None = None,
    runner: Runner | str = "onnxruntime",
) -> Report:
    """Prove an ONNX file equal to a network: to the very one it was written from, or the original.

    A file that holds every tensor of ``model`` is compared whole: weights bit for bit, the graph
    node by node, MACs and parameters counted on both sides, outputs. Any other is the file of a
    network that was cut or rewritten, and ``model`` its original: inputs and outputs, what the file
    says of itself, that it has no more MACs, and outputs are compared. Outputs are those of torch
    and of the runner on random inputs of several batch sizes, and on ``data``.

    Args:
        model: the network, or the one before anything was cut. It is not changed.
        path: the file.
        example_inputs: as for :func:`compile`.
        data: labelled batches (inputs [N, …], labels [N] or [N, H, W]), a ``DataLoader`` say: the
            answers must agree, and the accuracy (of pixels, the mIoU) with them.
        tolerance: largest difference of an output, as a share of its largest value; what rounding
            of this network explains, measured against float64, is always the bound where it is
            less.
        random_batches: how many random batches are compared.
        input_range: least and largest value of the random inputs; by default they lie in the range
            of the example's.
        runner: what runs the file: a runner, or the name of one.

    Returns:
        The report: ``passed``, ``checks``, ``failures``, ``to_json()``; ``print(report)`` shows it.
        What is wrong with the file is a failed check, not an error.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network.
        PrunecError: an argument is wrong; the folder of a run is one: :func:`verify_run`.
    """
    if isinstance(model, (RunFolder, str, Path)):
        raise PrunecError(
            f"{model} is no network", remedy="A run is verified by prunec.verify_run(folder)."
        )
    example = tuple(x.cpu() for x in checked_example(checked_module(model), example_inputs))
    module = _shipped(model)
    exporter = catalogue.exporter("to-onnx")()
    again = partial(exporter.graph_again, Source(Artifact(module, example)))
    another = is_of_another(Path(path), module, exporter)
    compare = verify_against_original if another else partial(verify_file, again=again)
    return compare(
        Path(path),
        module,
        example,
        exporter=exporter,
        runner=catalogue.runner(runner)() if isinstance(runner, str) else runner,
        spec=VerifySpec(
            tolerance=tolerance, random_batches=random_batches, input_range=input_range
        ),
        torch_cost=costs.count(module, example),
        data=None if data is None else labelled_batches(data, module, example),
    )


def verify_run(run: RunFolder | Path | str, path: Path | str | None = None) -> Report:
    """Check what a run exported as ``prunec verify`` does: its records, accuracy and budgets too.

    Args:
        run: its folder.
        path: another ONNX file to check against the run.

    Returns:
        The report, of all forms together.

    Raises:
        RunError: the folder is no run, or the run has no export yet.
        ParityError: the file is not there.
    """
    from prunec import pipeline  # here: training and its data are needed for runs alone

    folder = run if isinstance(run, RunFolder) else open_run(Path(run))
    return pipeline.verify(folder, None if path is None else Path(path)).merged()


def _shipped(model: nn.Module) -> nn.Module:
    """The network as a file holds it: on the CPU, in evaluation mode, without gates; a copy."""
    module = absorbed(checked_module(model))
    module = copied(module) if module is model else module
    return module.cpu().eval()
