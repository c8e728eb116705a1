"""What follows training: rewrites, the file, the proof."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from torch import nn

from prunec.artifact import Artifact, Step
from prunec.batches.batches import Data
from prunec.batches.data import load_data
from prunec.catalogue import build_passes, exporter
from prunec.cost.torch_graph import count
from prunec.deploy.checks import Report, verify_file
from prunec.deploy.latency import Latency, compare_latency
from prunec.deploy.signature import MACS, RECIPE_DIGEST, file_digest
from prunec.errors import ParityError, ReadOnlyRun, RunError
from prunec.files import require_writable, write_bytes_atomic, write_text_atomic
from prunec.inspection.layers import layers_of
from prunec.page import write_report
from prunec.pipeline.artifacts import (
    count_training,
    dense_network,
    load,
    run_pass,
)
from prunec.recipe import Recipe, digest, dumps
from prunec.store.environment import prunec_version
from prunec.store.runs import RunFolder


def export(run: RunFolder, output: Path | None, tell: Callable[[str], None] = print) -> Report:
    """Run the rewrites that follow training, write the file, and prove it equal.

    The file takes its place, and the run is marked as exported, only if every check passed;
    otherwise it is left beside it as ``rejected.onnx``.

    Args:
        run: a trained run.
        output: the file; ``export/model.onnx`` in the run by default.
        tell: takes a line a step.

    Raises:
        RunError: the run was not trained to its end, another process works on it, or something
            cannot be written.
        NotExact: a rewrite changed the network's function.
    """
    with run.held():
        report = _exported(run, output, tell)
        if report.passed:
            run.mark("exported")
    return report


def verify(run: RunFolder, onnx_file: Path | None) -> Report:
    """Check a file against a run: its export by default.

    The run remembers what was found of its own file and its page shows it, unless the run can only
    be read; what is found of another file says nothing of the run.

    Raises:
        RunError: the run has no export yet, or another process works on it.
        ParityError: the file is not there.
    """
    if onnx_file is not None:
        return _checked(run, onnx_file)
    with _held_if_writable(run):
        report = _checked(run, run.export / "model.onnx")
        with suppress(RunError):
            _recorded(report, run, "verified.json")
            write_report(run)
    return report


@contextmanager
def _held_if_writable(run: RunFolder) -> Iterator[None]:
    """Hold the run; one that can only be read changes under nobody's hands."""
    with ExitStack() as stack:
        with suppress(ReadOnlyRun):
            stack.enter_context(run.held())
        yield


def _exported(run: RunFolder, output: Path | None, tell: Callable[[str], None]) -> Report:
    recipe = run.recipe
    passes = build_passes(recipe, str(run.path / "recipe.toml"))
    last = count_training(passes)
    target = output or run.export / "model.onnx"
    require_writable(target)
    data = load_data(recipe.data, seed=recipe.seed)
    artifact = load(recipe, run, passes, last - 1, data.classes)
    for index in range(last, len(passes)):
        artifact = run_pass(artifact, passes[index], index, run, None, lambda _: None)
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


def _checked(run: RunFolder, path: Path) -> Report:
    """What is found of a file."""
    recipe = run.recipe
    passes = build_passes(recipe, str(run.path / "recipe.toml"))
    if not path.is_file():
        raise ParityError(f"{path} is not there", remedy=f"Export first: prunec export {run.path}")
    data = load_data(recipe.data, seed=recipe.seed)
    artifact = load(recipe, run, passes, len(passes) - 1, data.classes)
    record = run.export / "manifest.json"
    manifest = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    latency = _latency_or_none(path, run.export / "dense.onnx")
    return _verified(recipe, artifact, path, data, manifest, latency)


def _line(step: Step) -> str:
    """One line about a rewrite that ran."""
    error = "" if step.error is None else f", outputs within {step.error:.0e}"
    return (
        f"{step.name}: {step.macs[1]:,} MACs, {step.params[1]:,} parameters{error}; {step.notes[0]}"
    )


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
    writer.write(dense_network(recipe, data), artifact.example, path, {})


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
    dense, now = dense_network(recipe, data), artifact.module
    before, after = count(dense, artifact.example), count(now, artifact.example)
    return [asdict(layer) for layer in layers_of(dense, before, now, after)]
