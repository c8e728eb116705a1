"""The public functions: what the command line does to a run, done to a network in Python.

``import prunec`` is enough; each name here is one of ``prunec``.

    compiled = prunec.compile(model, example)   # zeros in the weights say what is dead
    print(compiled.report)
    prunec.export_onnx(compiled.module, example, "model.onnx")
    assert prunec.verify(compiled.module, "model.onnx", example_inputs=example).passed
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from prunec import catalogue
from prunec.artifact import Artifact
from prunec.cost import Cost
from prunec.cost import torch_graph as costs
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.checks import Report
from prunec.deploy.exporter import Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runner import Runner
from prunec.deploy.signature import MACS
from prunec.errors import PrunecError
from prunec.files import require_writable
from prunec.graph.capture import capture
from prunec.graph.capture.copying import copied
from prunec.graph.capture.surroundings import undisturbed
from prunec.graph.channels.groups import ChannelGroup, channel_groups
from prunec.graph.rewriting.compile import compile_captured, under_every_name
from prunec.graph.rewriting.plan import Plan
from prunec.inspection.compile_report import CompileReport, compile_report
from prunec.models.gates import absorbed
from prunec.models.inputs import checked_example, checked_masks, checked_module, checked_round_to
from prunec.recipe import VerifySpec
from prunec.store.environment import prunec_version
from prunec.store.runs import RunFolder, open_run

__all__ = [
    "ChannelGroup",
    "CompileReport",
    "Compiled",
    "Cost",
    "Plan",
    "PrunecError",
    "Report",
    "compile",
    "count",
    "count_onnx",
    "export_onnx",
    "groups",
    "verify",
]

P = ParamSpec("P")
R = TypeVar("R")
Example = Tensor | Sequence[Tensor]
"""The positional inputs of a network: a tensor or a tuple of tensors, batch first."""


def _leaving_all_as_it_was(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function change no random state and nothing beside the network it is given."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else next(iter(kwargs.values()), None)
        with undisturbed(model) if isinstance(model, nn.Module) else nullcontext():
            return function(*args, **kwargs)

    return inside


@dataclass(frozen=True)
class Compiled:
    """A compact network and how it came about.

    Attributes:
        module: computes what the network given computed, for any batch size; same call signature,
            same names of its modules and parameters; in evaluation mode, trainable.
        plan: what was cut, to cut a fresh network of the same making: ``plan.apply(fresh)``.
        masks: what is left of the masks, in the compact shapes.
        report: every channel group with what went, what stayed and why; cost before and after.
    """

    module: nn.Module
    plan: Plan
    masks: dict[str, Tensor]
    report: CompileReport


@_leaving_all_as_it_was
def compile(
    model: nn.Module,
    example_inputs: Example,
    *,
    masks: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> Compiled:
    """Remove every channel that does not matter to the output, exactly.

    What is dead is said by zeros in the weights, by ``masks``, or by gates, which are taken into
    their kernels first.

    Args:
        model: the network; it is not changed, and is taken in evaluation mode.
        example_inputs: its positional inputs, batch first: a tensor (N, …) or a tuple of them. Any
            N; the compact network takes every batch size. Other sizes are taken as fixed, as is the
            whole shape of an input whose first axis is not as long as that of the first input (a
            scale, a number for every channel): give an N that is not its length.
        masks: parameter name → bool tensor of the parameter's shape; False counts as weight zero.
        round_to: kept counts of each channel group are rounded up to a multiple of it, by keeping
            the strongest of the dead.

    Returns:
        The compact network, its plan, what is left of the masks, and a report.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network; names where.
        PrunecError: an argument is wrong; says which and what mends it.
    """
    module = absorbed(checked_module(model))
    example = checked_example(module, example_inputs)
    masks = under_every_name(module, checked_masks(module, masks))
    round_to = checked_round_to(round_to)
    captured = capture(module, example)
    before = costs.count_captured(captured, module, masks)
    kind = _kind(module)
    made = compile_captured(captured, example, masks=masks, round_to=round_to)

    def count_after() -> Cost:
        return costs.count(made.module, _as(made.module, example, kind))

    report = compile_report(made, round_to, before, count_after=count_after)
    return Compiled(made.module, made.plan, made.masks, report)


def _kind(module: nn.Module) -> tuple[torch.device, torch.dtype] | None:
    """Where a network's numbers lie and of which type they are; None where it holds none."""
    return next(((p.device, p.dtype) for p in module.parameters() if p.is_floating_point()), None)


def _as(
    module: nn.Module, example: tuple[Tensor, ...], before: tuple[torch.device, torch.dtype] | None
) -> tuple[Tensor, ...]:
    """An example for a network that may have been moved, or given another type, since then."""
    now = _kind(module)
    if now is None or before is None or now == before:
        return example
    return tuple(x.to(*now) if x.is_floating_point() else x.to(now[0]) for x in example)


@_leaving_all_as_it_was
def groups(model: nn.Module, example_inputs: Example) -> tuple[ChannelGroup, ...]:
    """Find the channel groups of a network: the slices of parameters that must be cut together.

    Args:
        model: the network; it is not changed.
        example_inputs: as for :func:`compile`.

    Returns:
        The groups in the order of computation, pinned ones too; ``group.to_dict()`` is JSON.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network.
        PrunecError: an argument is wrong.
    """
    module = absorbed(checked_module(model))
    return channel_groups(module, checked_example(module, example_inputs))


@_leaving_all_as_it_was
def count(model: nn.Module, example_inputs: Example) -> Cost:
    """Count MACs and parameters of one sample over the captured torch graph.

    Args:
        model: the network; it is not changed. Gates count as part of their kernels.
        example_inputs: as for :func:`compile`.

    Returns:
        ``macs``, ``nonzero_macs``, ``params``, ``nonzero_params``, and the same for each of
        ``layers``.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network.
        PrunecError: an argument is wrong.
    """
    module = absorbed(checked_module(model))
    return costs.count(module, checked_example(module, example_inputs))


@_leaving_all_as_it_was
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


@_leaving_all_as_it_was
def verify(
    model_or_run: nn.Module | RunFolder | Path | str,
    path: Path | str | None = None,
    *,
    example_inputs: Example | None = None,
    tolerance: float | None = None,
    random_batches: int | None = None,
    input_range: tuple[float, float] | None = None,
    runner: Runner | str = "onnxruntime",
) -> Report:
    """Compare an ONNX file with the network, or the run, that it was exported from.

    For a network: the file is valid and unchanged since :func:`export_onnx`; names and shapes of
    inputs and outputs, every weight, MACs and parameters counted on both sides, and outputs under
    onnxruntime on random inputs of several batch sizes agree. For a run: what ``prunec verify``
    checks, accuracy and budgets too.

    Args:
        model_or_run: the network, or the folder of a run.
        path: the file; of a run, by default what it exported.
        example_inputs: as for :func:`compile`; needed for a network.
        tolerance: largest difference of an output, as a share of its largest value, 1e-4 by
            default; what rounding of this network explains, measured against float64, is always
            the bound where it is less. Of a run, its recipe says.
        random_batches: how many random batches are compared, 3 by default; of a run, its recipe
            says.
        input_range: least and largest value of the random inputs; by default they lie in the range
            of the example's.
        runner: what runs the file of a network: a runner, or the name of one.

    Returns:
        The report: ``passed``, ``checks``, ``failures``, ``to_json()``. What is wrong with the file
        is a failed check, not an error.

    Raises:
        RunError: the folder is no run, or the run has no export yet.
        UntraceableModel: ``torch.export`` cannot follow the network.
        PrunecError: an argument is wrong.
    """
    if isinstance(model_or_run, (RunFolder, str, Path)):
        if not (tolerance is None and random_batches is None and input_range is None):
            raise PrunecError(
                "what is compared of a run, its recipe says: tolerance, random_batches and "
                "input_range are for networks",
                remedy="Leave them out, or set them there, under [verify].",
            )
        return _verified_run(model_or_run, path)
    if example_inputs is None or path is None:
        missing = "path" if path is None else "example_inputs"
        raise PrunecError(
            f"verify needs {missing} to compare a network with a file",
            remedy='verify(model, "model.onnx", example_inputs=example)',
        )
    example = checked_example(checked_module(model_or_run), example_inputs)
    example = tuple(x.cpu() for x in example)
    module = _shipped(model_or_run)
    exporter = catalogue.exporter("to-onnx")()
    source = Source(Artifact(module, example))
    return verify_file(
        Path(path),
        module,
        example,
        exporter=exporter,
        again=partial(exporter.graph_again, source),
        runner=catalogue.runner(runner)() if isinstance(runner, str) else runner,
        spec=VerifySpec(
            tolerance=1e-4 if tolerance is None else tolerance,
            random_batches=3 if random_batches is None else random_batches,
            input_range=input_range,
        ),
        torch_cost=costs.count(module, example),
    )


def _verified_run(run: RunFolder | Path | str, path: Path | str | None) -> Report:
    from prunec import pipeline  # here: training and its data are needed for runs alone

    folder = run if isinstance(run, RunFolder) else open_run(Path(run))
    return pipeline.verify(folder, None if path is None else Path(path)).merged()


def _shipped(model: nn.Module) -> nn.Module:
    """The network as a file holds it: on the CPU, in evaluation mode, without gates; a copy."""
    module = absorbed(checked_module(model))
    module = copied(module) if module is model else module
    return module.cpu().eval()
