"""Contract of exporters, and the one way to run them: every file is read back and checked.

An exporter is one file in ``exporters/``: a frozen dataclass whose fields are its options in a
recipe. It writes the artifact, or converts the file of another form. There are two types: an
*exact* form keeps every number; a *lossy* form does not, gets batches to calibrate on, and is
judged by its answers.

See docs/glossary.md: form, exporter.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.cost.lifetimes import Flow
from prunec.deploy.checks.answers import Bounds
from prunec.deploy.checks.check import Check
from prunec.deploy.checks.identity import interface, same_network, unchanged
from prunec.deploy.checks.weights import compare_weights
from prunec.deploy.losses import Stored, losses
from prunec.deploy.runner import LoadedFile
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written, WrittenGraph
from prunec.errors import NeedsNotMet, NotExact, PrunecError
from prunec.files import files_atomic
from prunec.recipe import VerifySpec


@dataclass(frozen=True)
class Source:
    """Input of an exporter.

    Attributes:
        artifact: artifact of the network.
        metadata: metadata to write into the file, besides its digests.
        files: form → its file, for exporters that convert another form.
        labels: labels of the calibration batches of a lossy form; empty if there are none.
    """

    artifact: Artifact
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    labels: tuple[Tensor, ...] = ()

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.artifact.module

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the network, batch first."""
        return self.artifact.example


@dataclass(frozen=True)
class Exported:
    """File that was written, read back and checked.

    Attributes:
        form: name of the form.
        path: path of the file.
        bytes: size in bytes.
        sha256: digest of its bytes.
        graph_digest: digest of the graph without weights; None for forms without one.
        told: data reported by the exporter; sentences under ``remarks``.
        written: its content.
    """

    form: str
    path: Path
    bytes: int
    sha256: str
    graph_digest: str | None
    told: Mapping[str, object] = field(default_factory=dict)
    written: Written | None = field(default=None, repr=False, compare=False)


Batches = Iterable[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Exporter(ABC):
    """Writer of one form. Derive from `Exact` or `Lossy`.

    Class variables:

    - ``suffix``: suffix of the file.
    - ``beside``: suffixes of further files that belong to it, under the same name.
    - ``reads``: the form that is converted; empty if the artifact itself is written.
    - ``needs``, ``forbids``: facts that the artifact must have, and must not have.
    - ``runs_on``: the only system that runs the files; empty if this one does.
    - ``is_code``: whether running a file executes a program; received files are then not run.
    - ``kinds``: types of floating numbers that the form holds and its runtime computes with.
    - ``takes_bytes``: whether an input may be a uint8 image.
    - ``oldest_opset``: earliest opset of the ONNX file that it is converted from.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    suffix: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = ""
    runs_on: ClassVar[str] = ""
    is_code: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    forbids: ClassVar[frozenset[str]] = frozenset()
    kinds: ClassVar[frozenset[torch.dtype]] = frozenset({torch.float32, torch.float16})
    takes_bytes: ClassVar[bool] = True
    oldest_opset: ClassVar[int] = 0

    @classmethod
    def exporter_name(cls) -> str:
        """Name in a recipe: ``to-onnx`` for ``ToOnnx``, ``to-c-fp16`` for ``ToCFp16``."""
        words = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
        return re.sub(words, "-", cls.__name__).lower()

    @classmethod
    def form(cls) -> str:
        """Name of the form, of its folder and of its flag: ``onnx`` for ``to-onnx``."""
        return cls.exporter_name().removeprefix("to-")

    @abstractmethod
    def read_back(self, path: Path) -> Written:
        """Return the content of a file of this form.

        Raises:
            PrunecError: the file cannot be read.
        """

    def graph_again(self, source: Source, written: Written) -> WrittenGraph | None:
        """Return the graph of a fresh export, for comparison with a file's; None to skip this.

        Raises:
            PrunecError: the network cannot be exported.
        """
        return None

    def flow(self, path: Path) -> Flow | None:
        """Return the activations of a file for one sample; None if the form does not give them.

        Raises:
            PrunecError: a size is unknown, or the executed operators depend on the input.
        """
        return None

    def operators(self, path: Path) -> Sequence[tuple[str, str]] | None:
        """Return (name, operator) of every node of a file; None if the form does not give them.

        Raises:
            PrunecError: the file cannot be read.
        """
        return None

    @abstractmethod
    def bounds(self, spec: VerifySpec) -> Bounds:
        """Return the bounds on differences between the file's answers and the network's."""

    @final
    def __call__(self, source: Source, path: Path, batches: Batches | None = None) -> Exported:
        """Write the file, read it back and check it; no file appears unless it passes.

        Args:
            source: artifact and files to export from.
            path: path of the file; missing folders are created.
            batches: batches of training images, for a lossy form.

        Raises:
            NeedsNotMet: the exporter does not accept this artifact, or the file it reads is
                missing.
            NotExact: the written file is wrong; it is removed.
            PassError: the network cannot be expressed in this form.
            RunError: the file cannot be written.
        """
        self._require(source)
        # Checked before the rename: a wrong file never appears under its name.
        with files_atomic(path) as draft:
            reported = self._write(source, draft, batches)
            written = self._check(source, draft)
            data = draft.read_bytes() if draft.is_file() else b""
            size = self.size(draft)
        digest = file_digest(data)
        return Exported(self.form(), path, size, digest, written.graph_digest, reported, written)

    @final
    def size(self, path: Path) -> int:
        """Return the bytes of a file and of those that belong to it; missing ones count 0."""
        files = (path, *(path.with_suffix(suffix) for suffix in self.beside))
        return sum(file.stat().st_size for file in files if file.is_file())

    def as_run(self, path: Path, loaded: LoadedFile) -> list[Check]:
        """Return further checks of a file of this form, which a runner has loaded."""
        return []

    @abstractmethod
    def _write(
        self, source: Source, path: Path, batches: Batches | None
    ) -> Mapping[str, object]: ...

    @abstractmethod
    def _weights(self, written: Written, module: nn.Module) -> list[Check]: ...

    @final
    def require_facts(self, facts: frozenset[str]) -> None:
        """Check the facts of a network.

        Raises:
            NeedsNotMet: a needed fact does not hold, or a forbidden one does.
        """
        if self.needs - facts or self.forbids & facts:
            broken = sorted(self.needs - facts) or sorted(self.forbids & facts)
            verb = "needs" if self.needs - facts else "cannot write"
            raise NeedsNotMet(
                f"{self.exporter_name()} {verb} a network that is {', '.join(broken)}",
                remedy="Change the recipe's passes.",
            )

    @final
    def require_kinds(self, module: nn.Module, example: tuple[Tensor, ...]) -> None:
        """Check the types of a network's weights and inputs.

        Raises:
            NeedsNotMet: the form does not hold one of them.
        """
        weights = dict(module.named_parameters())
        given = [*weights.items(), *((f"input {i}", x) for i, x in enumerate(example))]
        for name, value in given:
            if value.is_floating_point() and not self._holds(value, inner=name in weights):
                kind = str(value.dtype).removeprefix("torch.")
                others = self.kinds - {value.dtype}
                takes = " or ".join(sorted(str(k).removeprefix("torch.") for k in others))
                exact = " float32 holds each of its numbers." if value.dtype in _NARROWER else ""
                raise NeedsNotMet(
                    f"{self.exporter_name()} writes networks of {takes}, and {name} is {kind}",
                    remedy=f"Call model.float(), in the function that makes the network.{exact}",
                )

    def _holds(self, value: Tensor, *, inner: bool) -> bool:
        # onnxruntime multiplies matrices in float64, but has no convolution of it.
        kernel = inner and value.dtype == torch.float64 and value.dim() > 2
        return value.dtype in self.kinds and not kernel

    def _require(self, source: Source) -> None:
        self.require_facts(source.artifact.facts)
        self.require_kinds(source.module, source.example)
        if self.reads and self.reads not in source.files:
            raise NeedsNotMet(
                f"{self.exporter_name()} reads the {self.reads} file, which is missing",
                remedy=f'Export it too: [[export]] name = "to-{self.reads}"',
            )

    def _check(self, source: Source, draft: Path) -> Written:
        if not draft.exists():
            raise NotExact(f"{self.exporter_name()} wrote no {draft.name}", remedy=_DEFECT)
        try:
            written = self.read_back(draft)
        except PrunecError as error:
            raise NotExact(
                f"{self.exporter_name()} wrote a file that it cannot read back: {error.message}",
                remedy=_DEFECT,
            ) from error
        checks = same_network(written, source.module, {}) + interface(written, source.example)
        checks += unchanged(written, draft, {}) + self._weights(written, source.module)
        failures = [f"{check.name}: {check.message}" for check in checks if not check.passed]
        if failures:
            raise NotExact(
                f"{self.exporter_name()} wrote a wrong file: {failures[0]}",
                remedy=_DEFECT,
            )
        return written


_NARROWER = frozenset({torch.bfloat16, torch.float16})  # than float32
_DEFECT = "This is a defect of the exporter: please report it with the network."


def _losses(stored: Mapping[str, Stored], module: nn.Module) -> Mapping[str, object]:
    return {"losses": [asdict(loss) for loss in losses(stored, module)]} if stored else {}


@dataclass(frozen=True)
class Exact(Exporter):
    """Form that keeps every number: judged by its outputs, and by weights bit for bit."""

    @abstractmethod
    def write(self, source: Source, path: Path) -> None:
        """Write the file, and the files that belong to it, into the empty folder of ``path``."""

    def bounds(self, spec: VerifySpec) -> Bounds:
        """Return the bounds of ``[verify]``: accuracy may differ by the same share as answers."""
        points = 100 * (1 - spec.agreement)
        return Bounds(spec.tolerance, spec.agreement, drop=points, rise=points)

    def _write(self, source: Source, path: Path, batches: Batches | None) -> Mapping[str, object]:
        self.write(source, path)
        return {}

    def _weights(self, written: Written, module: nn.Module) -> list[Check]:
        return [] if written.weights is None else [compare_weights(written.weights, module)[0]]


@dataclass(frozen=True, kw_only=True)
class Lossy(Exporter):
    """Form that changes numbers: judged by its answers, within bounds of the recipe."""

    kinds: ClassVar[frozenset[torch.dtype]] = frozenset({torch.float32})

    accuracy_drop: Annotated[float, Field(ge=0, le=100)] = 1.0
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    calibration: Annotated[int, Field(ge=1)] = 256

    @abstractmethod
    def write(self, source: Source, path: Path, batches: Batches) -> Mapping[str, object] | None:
        """Write the file, and the files that belong to it, into the empty folder of ``path``.

        Returns:
            Data for report and manifest, with sentences under ``remarks``; None if there are none.
        """

    def stored(self, path: Path) -> Mapping[str, Stored]:
        """Return tensor of the network → its values in a file, as far as they can be read."""
        return {}

    def bounds(self, spec: VerifySpec) -> Bounds:
        """Return the bounds of ``[[export]]``; a higher accuracy is not a fault."""
        return Bounds(None, self.agreement, drop=self.accuracy_drop, rise=100.0)

    def _write(self, source: Source, path: Path, batches: Batches | None) -> Mapping[str, object]:
        if batches is None:
            raise NeedsNotMet(
                f"{self.exporter_name()} must be given batches to calibrate on",
                remedy="Name a data set.",
            )
        reported = self.write(source, path, batches)
        return {**(reported or {}), **_losses(self.stored(path), source.module)}

    def _weights(self, written: Written, module: nn.Module) -> list[Check]:
        return []
