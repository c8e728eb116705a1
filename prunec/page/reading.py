"""What a run folder holds, as far as it can be read; what cannot be is named, nothing raises."""

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
from prunec.recipe import Recipe, loads
from prunec.store.exports import ExportFolder
from prunec.store.kept_records import flaw_of
from prunec.store.records import DIGEST, record_digest
from prunec.store.runs import RunFolder
from prunec.tasks.quality import ACCURACY, MIOU
from prunec.wording import first_line

T = TypeVar("T")


class Histogram(BaseModel):
    """How many values lie between each two of the edges."""

    edges: tuple[Annotated[float, Field(ge=-LARGEST, le=LARGEST)], ...] = Field(min_length=2)
    counts: tuple[Annotated[float, Field(ge=0, le=LARGEST)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.edges) != len(self.counts) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError("needs one rising edge more than counts")
        return self


class Epoch(BaseModel):
    """A line of metrics: its numbers, and what a method told of layers and gates."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(alias="pass")
    epoch: int = Field(ge=0, le=10**9)
    layers: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    histograms: dict[str, Histogram] = Field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics that are one finite number."""
        extra = self.model_extra or {}
        return {key: float(value) for key, value in extra.items() if _is_number(value)}


class Flip(BaseModel):
    """A test sample that a file answers otherwise than the network; ``png`` is base64."""

    index: int
    label: int
    network: int
    file: int
    png: str = Field(default="", max_length=200_000, pattern=r"^[A-Za-z0-9+/]*={0,2}$")


class Details(BaseModel):
    """What a parity report tells beside its checks."""

    file: str = ""
    bytes: int | None = None
    dense_bytes: int | None = Field(default=None, alias="dense bytes")
    accuracy: float | None = None
    miou: float | None = None
    samples: int | None = Field(default=None, alias="test samples")
    latency: Latency | None = None
    runner: Identity | None = None
    others: tuple[Identity, ...] = Field(default=(), alias="other runners")
    classes: tuple[tuple[int, int, int], ...] = ()
    flips: tuple[Flip, ...] = Field(default=(), max_length=100)
    remarks: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = Field(default=(), alias="not checked")

    @property
    def figures(self) -> dict[str, float]:
        """What the file is worth, by the key of each figure that decides."""
        found = {MIOU.key: self.miou, ACCURACY.key: self.accuracy}
        return {key: value for key, value in found.items() if value is not None}


class Parity(BaseModel):
    """What was found of the file of a form."""

    passed: bool
    checks: tuple[Check, ...]
    details: Details = Details()


class Exports(BaseModel):
    """What was found of every form, as it was written: at export, or by verify."""

    passed: bool
    checked: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    forms: dict[str, Parity] = Field(min_length=1)

    @property
    def decisive(self) -> Parity:
        """What was found of the first form: the one that figures are told of."""
        return next(iter(self.forms.values()))

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of all forms."""
        return tuple(check for parity in self.forms.values() for check in parity.checks)


class Setting(BaseModel):
    """A way to compute that was tried before training: ``seconds`` a step."""

    model_config = ConfigDict(extra="allow")

    precision: str = ""
    channels_last: bool | None = None
    threads: int | None = None
    seconds: float | None = None
    loss: float | None = None
    agrees: bool | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others."""
        return self.precision, self.channels_last, self.threads


class Settings(BaseModel):
    """What was chosen for a pass, and what it was chosen from."""

    chosen: Setting = Setting()
    measured: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """A run as it was found.

    Attributes:
        name: the run's.
        record: run.json.
        environment: versions and machine.
        recipe_text: the recipe as it ran; empty where it is missing.
        recipe: the same, read; None where it is no valid recipe.
        epochs: the lines of metrics by pass, in order, each epoch once.
        history: a step per pass that finished.
        exported: what was found at export.
        verified: what ``prunec verify`` found, where it ran after the export.
        manifest: form → what was recorded of the file that ships.
        settings: pass → the settings measured.
        problems: what could not be read, in sentences.
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
    problems: tuple[str, ...]


def read_run(run: RunFolder) -> RunRecord:
    """Return what is in a run folder; never raises for what the files hold."""
    reader = _Reader(run.path)
    made = ExportFolder(run.export.path.relative_to(run.path))
    recipe_text = reader.text("recipe.toml")
    record = reader.table("run.json")
    found = RunRecord(
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
        problems=(),
    )
    reader.compare(run)
    return replace(found, problems=tuple(reader.problems))


@dataclass
class _Reader:
    folder: Path
    problems: list[str] = field(default_factory=list)

    def compare(self, run: RunFolder) -> None:
        """Name the records that are not those that the run keeps a digest of."""
        try:
            kept = {run.path / name for name in run.kept} if run.identity else set()
        except PrunecError:
            return  # which was named when it was read
        logs = {run.metrics} if kept and run.metrics.is_file() else set()
        for path in sorted(kept | logs):
            found_anew = path == run.export.verified and not path.is_file()
            flaw = "" if found_anew else flaw_of(run, path)
            if flaw and not any(run.key(path) in told for told in self.problems):
                self.problems.append(flaw.replace(f"{run.path}/", ""))

    def text(self, name: str) -> str:
        """The text of a file; empty where there is none."""
        try:
            return (self.folder / name).read_text("utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{name} cannot be read: {first_line(error)}")
            return ""

    def json(self, name: str) -> Any:
        """The value that a file holds, without its digest; None where there is none."""
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
        """The object that a file holds; empty where there is none."""
        value = self.json(name)
        if not isinstance(value, dict | None):
            self.problems.append(f"{name} is damaged: it holds no object")
        return value if isinstance(value, dict) else {}

    def valid(self, name: str, kind: TypeAdapter[T]) -> T | None:
        """What a file holds if it is of this kind."""
        value = self.json(name)
        return None if value is None else self._as(kind, value, name)

    def recipe(self, text: str) -> Recipe | None:
        """The recipe that a text is."""
        try:
            return loads(text, "recipe.toml") if text else None
        except PrunecError as error:
            self.problems.append(error.message)
            return None

    def history(self) -> tuple[Step, ...]:
        """The steps of the last artifact that can be read."""
        for path in sorted(self.folder.glob("steps/*/artifact.json"), reverse=True):
            record = self.table(str(path.relative_to(self.folder)))
            steps = self._as(TypeAdapter(tuple[Step, ...]), record.get("history"), path.parent.name)
            if steps:
                return steps
        return ()

    def epochs(self, name: str) -> dict[str, tuple[Epoch, ...]]:
        """The lines of metrics by pass."""
        found: dict[str, dict[int, Epoch]] = {}
        damaged = []
        for number, line in enumerate(self._lines(name), 1):
            try:
                epoch = Epoch.model_validate(json.loads(line))
            except (ValueError, RecursionError):  # a ValidationError is a ValueError
                damaged.append(str(number))
                continue
            found.setdefault(epoch.name, {})[epoch.epoch] = epoch
        if damaged:
            self.problems.append(f"{name} is damaged in line {', '.join(damaged)}")
        return {key: tuple(lines[i] for i in sorted(lines)) for key, lines in found.items()}

    def _lines(self, name: str) -> list[str]:
        """The lines of a file; bytes that are no text spoil their own line only."""
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
    """Return whether a chart can show it; not-a-number compares as false."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST
