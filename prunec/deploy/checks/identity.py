"""Checks that a file belongs to the run, and that it was not edited since its export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from prunec.deploy.checks.check import Check, Value, equal
from prunec.deploy.signature import (
    GRAPH_DIGEST,
    RECIPE_DIGEST,
    WEIGHTS_DIGEST,
    file_digest,
    input_names,
    output_names,
)
from prunec.deploy.written import Written
from prunec.graph.capture.samples import holds_samples
from prunec.models.state import weights_digest

_ANOTHER = "the file holds another model's weights"


def same_network(
    written: Written, module: nn.Module, manifest: Mapping[str, object]
) -> list[Check]:
    """Return the checks that the file's metadata names this run's recipe and this network."""
    metadata = written.metadata
    if metadata is None:
        return []
    weights = weights_digest(module)
    checks = [_digest("weights digest", weights, metadata.get(WEIGHTS_DIGEST), f"{_ANOTHER}.")]
    recipe = manifest.get("recipe_digest")
    if isinstance(recipe, str):
        wrong = "the file was made by another recipe."
        checks.insert(0, _digest("recipe digest", recipe, metadata.get(RECIPE_DIGEST), wrong))
    return checks


def unchanged(written: Written, path: Path, manifest: Mapping[str, object]) -> list[Check]:
    """Return the checks that neither the file nor its graph was edited after the export."""
    checks = []
    recorded = manifest.get("sha256")
    if isinstance(recorded, str):
        wrong = "the file was changed after export: its sha256 is not the manifest's."
        checks.append(_digest("file digest", recorded, file_digest(path.read_bytes()), wrong))
    keeps = written.metadata is not None or "graph_digest" in manifest
    if written.graph_digest is not None and keeps:
        wrong = "operators, attributes, wiring or constants of the graph were edited after export."
        own = (written.metadata or {}).get(GRAPH_DIGEST)
        # The manifest's counts before the file's own, which may have been edited with the graph.
        kept = manifest.get("graph_digest", own)
        recorded_graph = kept if isinstance(kept, str) else None
        checks.append(_digest("graph digest", recorded_graph, written.graph_digest, wrong))
    return checks


def _digest(name: str, expected: str | None, actual: str | None, wrong: str) -> Check:
    # An empty text stands for a record that the export should have made.
    if expected == "":
        wrong = f"no {name} was recorded at export. Export again."
    elif expected is None or actual is None:
        wrong = f"the metadata lacks the {name}: truncated, or not exported by prunec."
    passed = expected is not None and expected == actual
    return Check(name, _short(expected), _short(actual), None, passed, "" if passed else wrong)


def _short(digest: str | None) -> Value:
    return digest[:12] if digest else None


def interface(written: Written, example: tuple[Tensor, ...]) -> list[Check]:
    """Return the checks of names and shapes of inputs and outputs."""
    checks = []
    if written.inputs is not None:
        sizes = [
            ("batch", *x.shape[1:]) if holds_samples(x, example) else tuple(x.shape)
            for x in example
        ]
        expected = _joined(zip(input_names(len(example)), sizes, strict=True))
        actual = _joined(written.inputs.items())
        wrong = f"an input was renamed or reshaped: expected {expected}, found {actual}."
        checks.append(equal("inputs", expected, actual, wrong))
    if written.outputs is not None:
        names, given = ", ".join(output_names(len(written.outputs))), ", ".join(written.outputs)
        renamed = f"an output was renamed: expected {names}, found {given}."
        checks.append(equal("outputs", names, given, renamed))
    return checks


def _joined(values: Iterable[tuple[str, tuple[str | int, ...]]]) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, size))}" for name, size in values)
