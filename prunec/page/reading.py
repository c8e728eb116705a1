"""Reading of a run folder as far as possible: damage is named on the page and never raises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from prunec.artifact import Step
from prunec.charts.scales import LARGEST
from prunec.deploy.checks.check import Check
from prunec.deploy.runner import Identity
from prunec.deploy.timing import Latency
from prunec.errors import PrunecError
from prunec.inspection.layers import Layer
from prunec.page.speeds import MeasuredLayers
from prunec.recipe import Recipe, loads
from prunec.store.exports import ExportFolder
from prunec.store.kept_records import flaw_of
from prunec.store.records import DIGEST, record_digest
from prunec.store.runs import RunFolder
from prunec.tasks.quality import ACCURACY, MIOU
from prunec.wording import first_line

T = TypeVar("T")


class Histogram(BaseModel):
    """A histogram: ``counts[i]`` values lie between ``edges[i]`` and ``edges[i + 1]``."""

    edges: tuple[Annotated[float, Field(ge=-LARGEST, le=LARGEST)], ...] = Field(min_length=2)
    counts: tuple[Annotated[float, Field(ge=0, le=LARGEST)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.edges) != len(self.counts) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError("needs ascending edges, one more than counts")
        return self


class Epoch(BaseModel):
    """A line of metrics: its numbers, and the method's values per layer and histograms."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(alias="pass")
    # a bound: charts compute with the numbers of damaged files, too
    epoch: int = Field(ge=0, le=10**9)
    layers: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    histograms: dict[str, Histogram] = Field(default_factory=dict)
    # finite: the page prints these
    dense_phase: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default_factory=dict
    )

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics that are a single finite number."""
        extra = self.model_extra or {}
        return {key: float(value) for key, value in extra.items() if _is_number(value)}


class Flip(BaseModel):
    """A test sample with different predictions by network and file; ``png`` is base64."""

    index: int
    label: int
    network: int
    file: int
    # 200 kB of base64, far above a thumbnail; the pattern keeps HTML out of the page's
    # `src`.
    png: str = Field(default="", max_length=200_000, pattern=r"^[A-Za-z0-9+/]*={0,2}$")


class Details(BaseModel):
    """Details of a report besides its checks."""

    file: str = ""
    bytes: int | None = None
    dense_bytes: int | None = Field(default=None, alias="dense bytes")
    accuracy: float | None = None
    miou: float | None = None
    samples: int | None = Field(default=None, alias="test samples")
    latency: Latency | None = None
    uncut: bool = False
    runner: Identity | None = None
    others: tuple[Identity, ...] = Field(default=(), alias="other runners")
    classes: tuple[tuple[int, int, int], ...] = ()
    # an export writes 12; a damaged file must not fill the page
    flips: tuple[Flip, ...] = Field(default=(), max_length=100)
    remarks: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = Field(default=(), alias="not checked")

    @property
    def figures(self) -> dict[str, float]:
        """Key of a quality → the file's value in percent, for those that are known."""
        figures = {MIOU.key: self.miou, ACCURACY.key: self.accuracy}
        return {key: value for key, value in figures.items() if value is not None}


class Parity(BaseModel):
    """The report on the file of a form."""

    passed: bool
    checks: tuple[Check, ...]
    details: Details = Details()


class Exports(BaseModel):
    """The reports on all forms, as an export or ``prunec verify`` wrote them."""

    passed: bool
    checked: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    forms: dict[str, Parity] = Field(min_length=1)

    @property
    def decisive(self) -> Parity:
        """Report on the first form, from which the headline's figures are taken."""
        return next(iter(self.forms.values()))

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of all forms."""
        return tuple(check for parity in self.forms.values() for check in parity.checks)


class Setting(BaseModel):
    """A setting of computation, measured before training; ``seconds`` is the time per step."""

    model_config = ConfigDict(extra="allow")

    precision: str = ""
    channels_last: bool | None = None
    threads: int | None = None
    seconds: float | None = None
    loss: float | None = None
    agrees: bool | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Identity of the setting among the measured ones."""
        return self.precision, self.channels_last, self.threads


class Settings(BaseModel):
    """The setting chosen for a pass, and all that were measured."""

    chosen: Setting = Setting()
    measured: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """Contents of a run folder.

    Attributes:
        name: name of the run.
        record: run.json.
        environment: versions and machine.
        recipe_text: the recipe as it ran; empty where it is missing.
        recipe: the parsed recipe; None where it is not valid.
        epochs: pass → lines of metrics in order, each epoch once.
        history: one step per finished pass.
        exported: report of the export.
        verified: report of ``prunec verify``, if it ran after the export.
        manifest: form → the manifest's entry of its published file.
        settings: pass → measured settings.
        speeds: times of the layers of native code, if they were measured after the export.
        problems: sentences on files that could not be read.
    """

    name: str
    record: Mapping[str, Any]
    environment: Mapping[str, Any]
    recipe_text: str
    recipe: Recipe | None
    epochs: Mapping[str, tuple[Epoch, ...]]
    history: tuple[Step, ...]
    exported: Exports | None
    verified: Exports | None
    manifest: Mapping[str, Any]
    settings: Mapping[str, Settings]
    speeds: MeasuredLayers | None
    problems: tuple[str, ...]


def read_run(run: RunFolder) -> RunRecord:
    """Read a run folder; never raises, whatever the files hold."""
    reader = _Reader(run.path)
    made = ExportFolder(run.export.path.relative_to(run.path))
    recipe_text = reader.text("recipe.toml")
    record = reader.table("run.json")
    contents = RunRecord(
        name=run.name,
        record=record,
        environment=reader.table("environment.json"),
        recipe_text=recipe_text,
        recipe=reader.recipe(recipe_text),
        epochs=reader.epochs("metrics.jsonl"),
        history=reader.history(),
        exported=reader.valid(str(made.report), TypeAdapter(Exports)),
        verified=reader.valid(str(made.verified), TypeAdapter(Exports)),
        manifest=reader.table(str(made.manifest)),
        settings=reader.valid("settings.json", TypeAdapter(dict[str, Settings])) or {},
        speeds=reader.valid(str(made.layers), TypeAdapter(MeasuredLayers)),
        problems=(),
    )
    reader.compare(run)
    return replace(contents, problems=tuple(reader.problems))


@dataclass
class _Reader:
    folder: Path
    problems: list[str] = field(default_factory=list)

    def compare(self, run: RunFolder) -> None:
        """Append problems for records that do not fit the digests that the run keeps."""
        try:
            kept = {run.path / name for name in run.kept} if run.identity else set()
        except PrunecError:
            return  # the problem was recorded when run.json was read
        logs = {run.metrics} if kept and run.metrics.is_file() else set()
        for path in sorted(kept | logs):
            removed = path == run.export.verified and not path.is_file()  # by a later export
            flaw = "" if removed else flaw_of(run, path)
            # A damaged file was named when it was read.
            if flaw and not any(run.key(path) in problem for problem in self.problems):
                self.problems.append(flaw.replace(f"{run.path}/", ""))

    def text(self, name: str) -> str:
        """Return the text of a file; empty where there is none."""
        try:
            return (self.folder / name).read_text("utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{name} cannot be read: {first_line(error)}")
            return ""

    def json(self, name: str) -> Any:
        """Return the JSON value of a file, without its digest; None where there is none."""
        text = self.text(name)
        try:
            value = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{name} is damaged: {first_line(error)}")
            return None
        said = value.pop(DIGEST, None) if isinstance(value, dict) else None
        if isinstance(value, dict) and said not in (None, record_digest(value)):
            self.problems.append(f"{name} was changed after it was written")
        return value

    def table(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; empty where there is none."""
        value = self.json(name)
        if not isinstance(value, dict | None):
            self.problems.append(f"{name} is damaged: it is not a JSON object")
        return value if isinstance(value, dict) else {}

    def valid(self, name: str, kind: TypeAdapter[T]) -> T | None:
        """Return the contents of a file, validated; None where they are missing or not valid."""
        value = self.json(name)
        return None if value is None else self._as(kind, value, name)

    def recipe(self, text: str) -> Recipe | None:
        """Return the parsed recipe; None where it is missing or not valid."""
        try:
            return loads(text, "recipe.toml") if text else None
        except PrunecError as error:
            self.problems.append(error.message)
            return None

    def history(self) -> tuple[Step, ...]:
        """Return the steps of the last artifact that can be read."""
        # Folders begin with their number: the last step has the longest history.
        for path in sorted(self.folder.glob("steps/*/artifact.json"), reverse=True):
            record = self.table(str(path.relative_to(self.folder)))
            steps = self._as(TypeAdapter(tuple[Step, ...]), record.get("history"), path.parent.name)
            if steps:
                return steps
        return ()

    def epochs(self, name: str) -> dict[str, tuple[Epoch, ...]]:
        """Return pass → lines of metrics."""
        by_pass: dict[str, dict[int, Epoch]] = {}
        damaged = []
        for number, line in enumerate(self._lines(name), 1):
            try:
                epoch = Epoch.model_validate(json.loads(line))
            except (ValueError, RecursionError):  # a ValidationError is a ValueError
                damaged.append(str(number))
                continue
            # Later lines win: a resumed training repeats its last epoch.
            by_pass.setdefault(epoch.name, {})[epoch.epoch] = epoch
        if damaged:
            self.problems.append(f"{name} is damaged in line {', '.join(damaged)}")
        return {key: tuple(lines[i] for i in sorted(lines)) for key, lines in by_pass.items()}

    def _lines(self, name: str) -> list[str]:
        """Return the lines of a file; bytes that are not UTF-8 spoil only their own line."""
        try:
            text = (self.folder / name).read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(f"{name} cannot be read: {first_line(error)}")
            return []
        return text.split("\n") if not text.endswith("\n") else text.split("\n")[:-1]

    def _as(self, kind: TypeAdapter[T], value: object, name: str) -> T | None:
        try:
            return kind.validate_python(value)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            self.problems.append(f"{name} is damaged: {place or 'it'} is not what was written")
            return None


def _is_number(value: object) -> bool:
    """Return whether a chart can show a value; the comparison is false for NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST
