"""The run of a recipe: training passes, rewrites, the file, the proof.

It knows no pass: it calls what the recipe names, saves the artifact after each, and refuses to ship
a file that is not equal to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.table import Table
from torch import nn

from prunec.artifact import Artifact, Step
from prunec.catalogue import build_passes, exporter
from prunec.contract import Pass, Training
from prunec.cost.torch_graph import count
from prunec.environment import prunec_version
from prunec.errors import DataError, ParityError, RunError
from prunec.files import require_writable, write_bytes_atomic, write_text_atomic
from prunec.graph.compile import compile_module
from prunec.graph.gates import absorbed
from prunec.graph.plan import Input
from prunec.inspection import Inspection, inspect_module, layers_of
from prunec.latency import Latency, compare_latency
from prunec.page import write_report
from prunec.parity import Report, verify_file
from prunec.recipe import ModelSpec, Recipe, digest, dumps
from prunec.runs import RunFolder, open_run
from prunec.schema import ModuleEdit
from prunec.signature import MACS, RECIPE_DIGEST, file_digest
from prunec.storage import load_artifact, save_artifact
from prunec.training.batches import Data
from prunec.training.context import Context
from prunec.training.data import load_data
from prunec.training.edits import apply_edits
from prunec.training.models import build_auxiliary, build_model, unweighted
from prunec.training.progress import Progress
from prunec.training.ranks import ALONE, ranks_here

CLASSES = 1000  # of a network that is inspected by name alone
IMAGE = (3, 224, 224)  # what such a network takes unless it knows better


def train(
    recipe: Recipe, run: RunFolder, *, device: str, progress: Progress, resume: bool
) -> Artifact:
    """Run a recipe's passes up to its last training pass.

    Args:
        recipe: the recipe.
        run: where everything is written.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: whom to tell.
        resume: whether finished passes, and a checkpoint of the current one, are taken up.

    Raises:
        PrunecError: as the passes do.
    """
    passes = build_passes(recipe, str(run.path / "recipe.toml"))
    last = _training_passes(passes)
    if not last:
        raise RunError(f"{recipe.name} has no training pass", remedy="Add one: [[pass]] name = …")
    place = torch_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    ranks = ranks_here()
    with ranks.turns():
        data = load_data(recipe.data, seed=recipe.seed)
    artifact, done = _resumed(recipe, run, passes[:last], data) if resume else (None, 0)
    artifact = artifact or _fresh(recipe, data)
    teacher = _teacher(recipe, data, artifact.example).to(place) if recipe.train.teacher else None
    context = Context(
        recipe, data, place, run, progress, resume, ranks, teacher, _auxiliary(recipe, data)
    )
    for index in range(done, last):
        artifact = _step(artifact, passes[index], index, run, context, progress.stage)
    return artifact


def export(run: RunFolder, output: Path | None, tell: Callable[[str], None] = print) -> Report:
    """Run the rewrites that follow training, write the file, and prove it equal.

    The file takes its place only if every check passed; otherwise it is left beside it as
    ``rejected.onnx``.

    Args:
        run: a trained run.
        output: the file; ``export/model.onnx`` in the run by default.
        tell: takes a line a step.

    Raises:
        RunError: the run was not trained to its end, or something cannot be written.
        NotExact: a rewrite changed the network's function.
    """
    recipe = run.recipe
    passes = build_passes(recipe, str(run.path / "recipe.toml"))
    last = _training_passes(passes)
    target = output or run.export / "model.onnx"
    require_writable(target)
    data = load_data(recipe.data, seed=recipe.seed)
    artifact = _load(recipe, run, passes, last - 1, data.classes)
    for index in range(last, len(passes)):
        artifact = _step(artifact, passes[index], index, run, None, lambda _: None)
        tell(_line(artifact.history[-1]))
    candidate, dense = run.export / "rejected.onnx", run.export / "dense.onnx"
    _write_onnx(recipe, artifact, candidate)
    _write_dense(recipe, artifact, data, dense)
    manifest = _manifest(recipe, artifact, candidate)
    latency = compare_latency(candidate, dense)
    report = _verified(recipe, artifact, candidate, data, manifest, latency)
    layers = _layers(recipe, artifact, data)
    more = {"file": str(target), "layers": layers, "dense bytes": os.path.getsize(dense)}
    report = _recorded(replace(report, details={**report.details, **more}), run, "report.json")
    (run.export / "verified.json").unlink(missing_ok=True)  # it was of the file before
    if report.passed:
        write_bytes_atomic(target, candidate.read_bytes())
        write_text_atomic(run.export / "manifest.json", json.dumps(manifest, indent=2) + "\n")
        candidate.unlink()
    tell(f"Wrote {target}" if report.passed else f"Not shipped: {candidate} failed")
    tell(f"Wrote {write_report(run)}")
    return report


def verify(run: RunFolder, onnx_file: Path | None) -> Report:
    """Check a file against a run: its export by default.

    The run remembers what was found of its own file and its page shows it, unless the run can only
    be read; what is found of another file says nothing of the run.

    Raises:
        RunError: the run has no export yet.
        ParityError: the file is not there.
    """
    recipe = run.recipe
    passes = build_passes(recipe, str(run.path / "recipe.toml"))
    path = onnx_file or run.export / "model.onnx"
    if not path.is_file():
        raise ParityError(f"{path} is not there", remedy=f"Export first: prunec export {run.path}")
    data = load_data(recipe.data, seed=recipe.seed)
    artifact = _load(recipe, run, passes, len(passes) - 1, data.classes)
    record = run.export / "manifest.json"
    manifest = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    dense = run.export / "dense.onnx"
    latency = _latency_or_none(path, dense)
    report = _verified(recipe, artifact, path, data, manifest, latency)
    if onnx_file is None:
        with suppress(RunError):
            _recorded(report, run, "verified.json")
            write_report(run)
    return report


def bench(run: RunFolder) -> Table:
    """Latency of the shipped file against the dense network's, beside the ratio of their MACs.

    Raises:
        RunError: the run has no export yet.
    """
    shipped, dense = run.export / "model.onnx", run.export / "dense.onnx"
    if not (shipped.is_file() and dense.is_file()):
        raise RunError(
            f"{run.path} has no export", remedy=f"Export first: prunec export {run.path}"
        )
    from prunec.cost.onnx_graph import count_onnx

    ours, theirs = count_onnx(shipped), count_onnx(dense)
    table = Table(title=f"{run.name}: onnxruntime, 1 thread", title_justify="left", pad_edge=False)
    for column in ("batch", "dense", "shipped", "shipped / dense", "MACs: shipped / dense"):
        table.add_column(column, justify="right")
    for batch in (1, 32):
        latency = compare_latency(shipped, dense, batch=batch)
        table.add_row(
            str(batch),
            f"{latency.dense_ms:.3f} ms",
            f"{latency.shipped_ms:.3f} ms",
            f"{latency.ratio:.3f}",
            f"{ours.macs / theirs.macs:.3f}",
        )
    return table


def inspect(subject: RunFolder | str, inputs: tuple[Input, ...] = ()) -> Inspection:
    """Layers and channel groups of a run's last artifact, or of a network by name.

    What is left of a run is what its rewrites left; before them, what they would leave.

    Args:
        subject: a run, or a name as in a recipe's ``model.name``.
        inputs: what a network by name takes; by default one image of its usual size.

    Raises:
        RunError: the run has no finished pass, or inputs are given for it.
        RecipeError: there is no such network.
        DataError: the network does not take these inputs.
        UntraceableModel: the network cannot be captured.
    """
    if isinstance(subject, str):
        return _inspect_named(subject, inputs)
    if inputs:
        raise RunError(
            f"{subject.path} knows its inputs", remedy="--input is for networks by name."
        )
    recipe = subject.recipe
    passes = build_passes(recipe, str(subject.path / "recipe.toml"))
    done = [i for i, p in enumerate(passes) if _is_done(subject, i, p)]
    if not done:
        raise RunError(
            f"{subject.path} has no finished pass", remedy="Train it: prunec train --resume"
        )
    data = load_data(recipe.data, seed=recipe.seed)
    artifact = _load(recipe, subject, passes, done[-1], data.classes)
    title = f"{subject.name} after {passes[done[-1]].pass_name()}"
    dense = absorbed(artifact.module)
    if artifact.plans:
        dense = _dense(recipe, data)
        return inspect_module(
            title, dense, artifact.example, now=artifact.module, plans=artifact.plans
        )
    round_to = max((getattr(p, "round_to", 1) for p in passes), default=1)
    made = compile_module(dense, artifact.example, masks=artifact.masks, round_to=round_to)
    return inspect_module(
        f"{title}, and what of it a cut would keep",
        dense,
        artifact.example,
        now=made.module,
        plans=(made.plan,),
        because=made.because,
    )


def _inspect_named(name: str, inputs: tuple[Input, ...]) -> Inspection:
    module = build_model(ModelSpec(name=name), CLASSES, seed=0).eval()
    usual = getattr(module, "default_cfg", {}).get("input_size", IMAGE)  # timm's networks know
    inputs = inputs or (Input((2, *usual), "float32"),)
    _fit_first_convolution(module, inputs)
    shapes = ", ".join("×".join(map(str, item.shape[1:])) for item in inputs)
    example = tuple(item.blank(torch.device("cpu")) for item in inputs)
    _require_inputs(name, module, example, shapes)
    return inspect_module(f"{name}, input {shapes}", module, example)


def _require_inputs(
    name: str, module: nn.Module, example: tuple[torch.Tensor, ...], shapes: str
) -> None:
    try:
        with torch.no_grad():
            module(*example)
    except Exception as error:  # whatever the network's own code raises
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{name} does not take an input of {shapes}: {reason}",
            remedy="Name one sample of each input that it takes: --input 3x299x299",
        ) from error


def _fit_first_convolution(module: nn.Module, inputs: tuple[Input, ...]) -> None:
    """Let a network of one image input read images of another number of channels."""
    convolutions = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    if len(inputs) > 1 or len(inputs[0].shape) != 4 or not convolutions:
        return
    name, first = convolutions[0]
    channels = inputs[0].shape[1]
    if first.in_channels != channels:
        apply_edits(module, [ModuleEdit(module=name, set={"in_channels": channels})])


def torch_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        DataError: CUDA was asked for and is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DataError("no CUDA device is available", remedy="Use --device cpu, or auto.")
    local, count = ranks_here().local, torch.cuda.device_count()
    if local >= count:
        raise DataError(
            f"process {local} of this machine finds no GPU of its own: there are {count}",
            remedy=f"Start at most {count}: torchrun --nproc-per-node {count}",
        )
    return torch.device("cuda", local)


# -- artifacts of a run ----------------------------------------------------------------------------


def _fresh(recipe: Recipe, data: Data) -> Artifact:
    module = build_model(recipe.model, data.classes, seed=recipe.seed).eval()
    images, _ = next(iter(data.test_batches(2)))
    return Artifact(module, (images[:2].clone(),))


def _resumed(
    recipe: Recipe, run: RunFolder, passes: tuple[Pass, ...], data: Data
) -> tuple[Artifact | None, int]:
    """The artifact after the last finished pass, and how many are finished."""
    done = 0
    while done < len(passes) and _is_done(run, done, passes[done]):
        done += 1
    return (_load(recipe, run, passes, done - 1, data.classes), done) if done else (None, 0)


def _auxiliary(recipe: Recipe, data: Data) -> nn.Module | None:
    """The head that only trains, where the recipe's network has one and the recipe wants it."""
    if not recipe.train.auxiliary:
        return None
    return build_auxiliary(recipe.model, data.classes, seed=recipe.seed)


def _teacher(recipe: Recipe, data: Data, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """The dense network that the recipe learns from, in eval mode."""
    spec = recipe.train.teacher
    assert spec is not None
    if spec.model is not None:
        module = build_model(spec.model, data.classes, seed=recipe.seed)
    else:
        run = open_run(Path(spec.run))
        passes = build_passes(run.recipe, str(run.path / "recipe.toml"))
        done = [i for i, p in enumerate(passes) if _is_done(run, i, p)]
        if not done:
            raise RunError(
                f"train.teacher.run = {spec.run!r} has no finished pass",
                remedy=f"Train it first: prunec train --resume {spec.run}",
            )
        module = absorbed(_load(run.recipe, run, passes, done[-1], data.classes).module)
    module.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            data.task.read(module(*example), example[0])
    except Exception as error:  # whatever the network's own code raises
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"train.teacher does not answer like a network for this data: {reason}",
            remedy=f"It must take {'×'.join(map(str, data.shape))} and return {data.classes} "
            "logits.",
        ) from error
    return module


def _is_done(run: RunFolder, index: int, step: Pass) -> bool:
    return (run.step(index, step.pass_name()) / "artifact.json").is_file()


def _load(
    recipe: Recipe, run: RunFolder, passes: tuple[Pass, ...], index: int, classes: int
) -> Artifact:
    """The artifact after a pass; weights named in the recipe are not loaded only to be replaced."""
    spec = unweighted(recipe.model)
    folder = run.step(index, passes[index].pass_name())
    return load_artifact(folder, lambda: build_model(spec, classes, seed=recipe.seed))


def _training_passes(passes: tuple[Pass, ...]) -> int:
    """Number of passes up to and with the last that trains."""
    return max((i + 1 for i, p in enumerate(passes) if isinstance(p, Training)), default=0)


def _step(
    artifact: Artifact,
    step: Pass,
    index: int,
    run: RunFolder,
    context: Context | None,
    announce: Callable[[str], None],
) -> Artifact:
    announce(step.pass_name())
    result = step(artifact, context)
    ranks = context.ranks if context else ALONE
    if ranks.first:
        save_artifact(result, run.step(index, step.pass_name()))
    ranks.wait()
    return result


def _line(step: Step) -> str:
    """One line about a rewrite that ran."""
    error = "" if step.error is None else f", outputs within {step.error:.0e}"
    return (
        f"{step.name}: {step.macs[1]:,} MACs, {step.params[1]:,} parameters{error}; {step.notes[0]}"
    )


# -- the file --------------------------------------------------------------------------------------


def _write_onnx(recipe: Recipe, artifact: Artifact, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    history = [asdict(replace(step, seconds=0.0)) for step in artifact.history]
    metadata = {
        "prunec.version": prunec_version(),
        "prunec.recipe": dumps(recipe),
        RECIPE_DIGEST: digest(recipe),
        "prunec.history": json.dumps(history),
        MACS: str(artifact.history[-1].macs[1]),
    }
    writer = exporter(f"to-{recipe.export.format}")(opset=recipe.export.opset)
    writer.write(artifact.module, artifact.example, path, metadata)


def _write_dense(recipe: Recipe, artifact: Artifact, data: Data, path: Path) -> None:
    """The recipe's network before anything was cut: what the shipped file must be faster than."""
    writer = exporter(f"to-{recipe.export.format}")(opset=recipe.export.opset)
    writer.write(_dense(recipe, data), artifact.example, path, {})


def _dense(recipe: Recipe, data: Data) -> nn.Module:
    """The recipe's network as its constructor makes it."""
    spec = unweighted(recipe.model)
    return build_model(spec, data.classes, seed=recipe.seed).eval()


def _manifest(recipe: Recipe, artifact: Artifact, path: Path) -> dict[str, object]:
    return {
        "sha256": file_digest(path.read_bytes()),
        "bytes": os.path.getsize(path),
        "recipe_digest": digest(recipe),
        "weights_digest": artifact.history[-1].digest,
        "macs": artifact.history[-1].macs[1],
        "params": artifact.history[-1].params[1],
        "prunec": prunec_version(),
    }


def _latency_or_none(path: Path, dense: Path) -> Latency | None:
    """None where one of the files cannot be timed: other checks say why."""
    from prunec.errors import PrunecError

    try:
        return compare_latency(path, dense) if dense.is_file() else None
    except PrunecError:
        return None


def _verified(
    recipe: Recipe,
    artifact: Artifact,
    path: Path,
    data: Data,
    manifest: dict[str, object],
    latency: Latency | None,
) -> Report:
    module: nn.Module = artifact.module
    report = verify_file(
        path,
        module,
        artifact.example,
        spec=recipe.verify,
        torch_cost=count(module, artifact.example),
        dense_macs=artifact.history[0].macs[0],
        data=data,
        manifest=manifest,
        latency=latency,
    )
    timed = {"latency": asdict(latency)} if latency else {}
    return replace(report, details={**report.details, **timed})


def _recorded(report: Report, run: RunFolder, name: str) -> Report:
    """The report, written into the run with the time of it."""
    checked = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report = replace(report, details={**report.details, "checked": checked})
    write_text_atomic(run.export / name, report.to_json() + "\n")
    return report


def _layers(recipe: Recipe, artifact: Artifact, data: Data) -> list[dict[str, object]]:
    """Every layer with its channels, MACs and weights: those that ship, and the dense network's."""
    dense, now = _dense(recipe, data), artifact.module
    before, after = count(dense, artifact.example), count(now, artifact.example)
    return [asdict(layer) for layer in layers_of(dense, before, now, after)]
