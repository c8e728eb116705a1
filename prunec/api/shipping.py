"""Export of networks to ONNX, and verification of the files."""

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
    opset: int = 18,  # the earliest that torch's exporter writes
    ir_version: int | None = None,
) -> Path:
    """Write a network as one ONNX file with a dynamic batch; completely or not at all.

    Args:
        model: the network; written in evaluation mode, gates absorbed into their kernels. It is not
            changed.
        example_inputs: as for :func:`compile`.
        path: the file; missing folders are created.
        opset: ONNX operator set, 9 to 25; the file has exactly this one, or is not written.
        ir_version: ONNX IR version; by default the one released with the opset.

    Returns:
        The path.

    Raises:
        UntraceableModel: the network cannot be captured with a dynamic batch.
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
    """Prove an ONNX file equal to the network that it was written from, or to the uncut original.

    A file that has every tensor of ``model`` is compared completely: weights bit for bit, graph
    node by node, MACs and parameters counted on both sides, outputs. Any other file is taken as
    that of a cut or rewritten ``model``: its signature, its metadata, that it has no more MACs, and
    outputs are compared. Outputs of torch and of the runner are compared on random inputs of
    several batch sizes, and on ``data``.

    See the glossary: [parity](glossary.md#parity), [exact](glossary.md#exact),
    [runner](glossary.md#runner).

    Args:
        model: the network, or the original before any cut. It is not changed.
        path: the file.
        example_inputs: as for :func:`compile`.
        data: labelled batches (inputs [N, …], labels [N] or [N, H, W]), such as a ``DataLoader``:
            predictions and accuracy (for segmentation, mIoU) must agree.
        tolerance: largest difference of an output, as a share of its largest value; the bound by
            rounding of this network, measured against float64, applies where it is smaller.
        random_batches: number of random batches to compare.
        input_range: smallest and largest value of random inputs; by default those of the example.
        runner: a runner, or the name of one.

    Returns:
        The report: ``passed``, ``checks``, ``failures``, ``to_json()``; ``print(report)`` shows it.
        A defect of the file is a failed check, not an exception.

    Raises:
        UntraceableModel: ``torch.export`` cannot capture the network.
        PrunecError: an argument is wrong; for the folder of a run, use :func:`verify_run`.
    """
    if isinstance(model, (RunFolder, str, Path)):
        raise PrunecError(
            f"{model} is not a network", remedy="To verify a run, use prunec.verify_run(folder)."
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
    """Check the exported files of a run, its records, accuracy and budgets, as ``prunec verify``.

    Args:
        run: folder of the run.
        path: another ONNX file to check against the run.

    Returns:
        One report on all forms.

    Raises:
        RunError: the folder is not a run, or the run has no export yet.
        ParityError: the file does not exist.
    """
    from prunec import pipeline  # here: only runs need training and data, which import slowly

    folder = run if isinstance(run, RunFolder) else open_run(Path(run))
    return pipeline.verify(folder, None if path is None else Path(path)).merged()


def _shipped(model: nn.Module) -> nn.Module:
    """Return a copy of the network for export: on the CPU, in evaluation mode, gates absorbed."""
    module = absorbed(checked_module(model))
    # cpu() and eval() change a module in place.
    module = copied(module) if module is model else module
    return module.cpu().eval()
