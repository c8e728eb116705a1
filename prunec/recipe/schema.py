"""Schema of a recipe: tables, types, defaults and ranges."""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from prunec.plugins import EXPORTERS, plug_in_names
from prunec.recipe.network_and_data import PER_PIXEL, DataSpec, ModelSpec
from prunec.recipe.training import NO_TRAINING, TrainSpec
from prunec.recipe.values import MOST_ENTRIES, Named, Positive, Table, Text, folder_name, some
from prunec.wording import described, did_you_mean


def _by_form(value: object) -> dict[str, object]:
    """Return a table with one value per form; empty if ``value`` is none. Refuse unknown forms."""
    named = value if isinstance(value, dict) else {}
    known = [name.removeprefix("to-") for name in plug_in_names(EXPORTERS)]
    for form in named:
        if form not in known:
            near = did_you_mean(form, known) or f"There are {', '.join(known)}."
            raise ValueError(f"names the form {form!r}, which does not exist. {near.rstrip()}")
    return named


def sizes(value: object) -> int | dict[str, int]:
    """Validate a limit in bytes: one number for every form, or a table with one per form."""
    named = _by_form(value)
    numbers = list(named.values()) or [value]
    # type, not isinstance: a boolean is an int in Python.
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(
            f"must be a whole number of bytes above 0, or a table of such numbers by form, found "
            f"{described(value)}"
        )
    return cast("int | dict[str, int]", named or numbers[0])


_WHOLE = {"type": "integer", "exclusiveMinimum": 0}
Sizes = Annotated[
    int | dict[str, int],
    PlainValidator(sizes),
    WithJsonSchema({"anyOf": [_WHOLE, {"type": "object", "additionalProperties": _WHOLE}]}),
]
"""Limit in bytes for every form, or one per form: ``{ onnx = 2_000_000, int8 = 600_000 }``."""

OPERATOR_SETS = (
    "litert-builtin",
    "microcontroller",
    "ncnn-vulkan",
    "openvino-2022",
    "ort-mobile",
    "xnnpack",
)
"""Names of the operator sets, which ``prunec/deploy/operator_sets.toml`` defines."""


def operator_sets(value: object) -> str | dict[str, str]:
    """Validate an operator set: one name for every form, or a table with one per form."""
    named = _by_form(value)
    names = list(named.values()) or [value]
    for name in names:
        if name not in OPERATOR_SETS:
            near = did_you_mean(name, OPERATOR_SETS) if isinstance(name, str) else ""
            raise ValueError(
                f"must be {', '.join(OPERATOR_SETS)}, or a table of such names by form, found "
                f"{described(name)}. {near}".rstrip(". ")
            )
    return cast("str | dict[str, str]", named or names[0])


_SET = {"type": "string", "enum": list(OPERATOR_SETS)}
OperatorSets = Annotated[
    str | dict[str, str],
    PlainValidator(operator_sets),
    WithJsonSchema({"anyOf": [_SET, {"type": "object", "additionalProperties": _SET}]}),
]
"""Operator set for every form, or one per form: ``{ onnx = "ort-mobile" }``."""


class Budget(Table):
    """Bounds on an exported file; a missing key has its default, ``false`` disables a check."""

    macs_ratio: float | None = Field(default=None, gt=0, le=1, description="shipped / dense MACs")
    macs: int | None = Field(default=None, gt=0, description="MACs per sample")
    params: int | None = Field(default=None, gt=0)
    bytes: Sizes | None = Field(default=None, description="file size, or a table: form = bytes")
    activation_bytes: Sizes | None = Field(
        default=None,
        description="peak activation memory of one sample, by lifetimes, or a table: form = bytes",
    )
    resident_bytes: Sizes | None = Field(
        default=None,
        description="measured resident memory above the runtime's, or a table: form = bytes",
    )
    latency_ms: dict[Text, Positive] | None = Field(
        default=None,
        description="a table: runner = milliseconds per sample, one thread",
    )
    operators: OperatorSets | None = Field(
        default=None,
        description="operator set of a target, or a table: form = set; other operators are refused",
    )
    accuracy: float | None = Field(default=None, ge=0, le=100, description="percent, top-1")
    miou: float | None = Field(
        default=None, ge=0, le=100, description="percent, for segmentation instead of accuracy"
    )
    accuracy_drop: float | None = Field(
        # percentage points: far beyond the deviation of seeds, so that a collapse fails
        default=5.0,
        ge=0,
        le=100,
        description="percentage points that the file may lie below the network at the end of its "
        "dense phase; for segmentation, of mIoU",
    )
    latency_ratio: float | None = Field(
        default=1.0,
        gt=0,
        description="shipped / dense latency under the form's own runtime, one thread",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_check(cls, value: object) -> object:
        return None if value is False else value

    @field_serializer("accuracy_drop", "latency_ratio")
    def _none_is_false(self, value: float | None) -> float | bool:
        return False if value is None else value


class VerifySpec(Table):
    """Tolerances and budgets of the checks before a file ships."""

    tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="largest difference of an output, as a share of its largest value; the bound "
        "by rounding, measured against float64, is usually tighter",
    )
    input_range: tuple[float, float] | None = Field(
        default=None, description="range of random inputs; by default that of the data"
    )
    agreement: float = Field(
        default=1.0, ge=0, le=1, description="share of equal top-1 predictions, of images or pixels"
    )
    random_batches: int = Field(default=3, ge=1)
    runners: Annotated[tuple[Text, ...], Field(max_length=MOST_ENTRIES)] | None = Field(
        default=None,  # omitted from the text: keeps the digest of recipes without this key
        description="further runners to prove files on: qemu-aarch64, ssh://user@board",
    )
    budget: Budget = Budget()


class BundleSpec(Table):
    """Statements of the maker in a bundle's manifest."""

    release: Text = Field(default="", description="version of the bundle: 1.4.0")
    replaces: Text = Field(default="", description="oldest release that it may replace")
    licence: Text = Field(default="", description="SPDX identifier: Apache-2.0")
    intended_use: Text = Field(default="", description="intended and excluded uses")


class Recipe(Table):
    """A whole recipe. Each entry of ``passes`` and ``exports`` is a table: ``name`` and options."""

    name: Annotated[str, AfterValidator(folder_name)]
    description: Text = ""
    seed: int = Field(default=0, ge=0, lt=2**32)  # numpy's global generator takes 32 bits
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelSpec
    data: DataSpec = DataSpec()
    train: TrainSpec = NO_TRAINING
    passes: Annotated[tuple[Named, ...], AfterValidator(some)] = Field(
        alias="pass", max_length=MOST_ENTRIES
    )
    exports: Annotated[tuple[Named, ...], AfterValidator(some)] = Field(
        default=({"name": "to-onnx"},), alias="export", max_length=MOST_ENTRIES
    )
    verify: VerifySpec = VerifySpec()
    bundle: BundleSpec = BundleSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        train, stop, budget = self.train, self.train.stop, self.verify.budget
        per_pixel = self.data.name in PER_PIXEL
        if per_pixel and (train.mixup or train.cutmix):
            raise ValueError(
                f"has train.mixup or train.cutmix, but the masks of data.name = "
                f"{self.data.name!r} cannot be mixed: both must be 0"
            )
        wrong, right = ("accuracy", "miou") if per_pixel else ("miou", "accuracy")
        for key, table in (("train.stop", stop), ("verify.budget", budget)):
            if getattr(table, wrong) is not None:
                raise ValueError(
                    f"has {key}.{wrong}, which does not apply to data.name = {self.data.name!r}: "
                    f"it must be {key}.{right}"
                )
        return self
