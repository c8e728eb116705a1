"""The recipe as a whole: its tables, their types, defaults and ranges."""

from __future__ import annotations

from typing import Annotated, Literal, Self

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
from prunec.wording import did_you_mean, found


def sizes(value: object) -> int | dict[str, int]:
    """Return a limit in bytes for every form, or one a form, if it is one."""
    named = value if isinstance(value, dict) else {}
    known = [name.removeprefix("to-") for name in plug_in_names(EXPORTERS)]
    for form in named:
        if form not in known:
            near = did_you_mean(form, known) or f"There are {', '.join(known)}."
            raise ValueError(f"names a form {form!r} that there is not. {near.rstrip()}")
    numbers = list(named.values()) or [value]
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(
            f"must be a whole number of bytes above 0, or a table of such by form, found "
            f"{found(value)}"
        )
    return named or numbers[0]


_WHOLE = {"type": "integer", "exclusiveMinimum": 0}
Sizes = Annotated[
    int | dict[str, int],
    PlainValidator(sizes),
    WithJsonSchema({"anyOf": [_WHOLE, {"type": "object", "additionalProperties": _WHOLE}]}),
]
"""A limit in bytes for every form, or one a form: ``{ onnx = 2_000_000, int8 = 600_000 }``."""


class Budget(Table):
    """What the shipped network must keep; a key left out has its default, ``false`` is no check."""

    macs_ratio: float | None = Field(default=None, gt=0, le=1, description="shipped / dense MACs")
    macs: int | None = Field(default=None, gt=0, description="of one sample")
    params: int | None = Field(default=None, gt=0)
    bytes: Sizes | None = Field(default=None, description="of the file, or a table: form = bytes")
    activation_bytes: Sizes | None = Field(
        default=None,
        description="peak activation memory of one sample, by lifetimes, or a table: form = bytes",
    )
    resident_bytes: Sizes | None = Field(
        default=None,
        description="resident memory beyond the runtime's, measured, or a table: form = bytes",
    )
    latency_ms: dict[Text, Positive] | None = Field(
        default=None,
        description="a table: runner = milliseconds of one sample, one thread",
    )
    operators: Literal["ort-mobile", "litert-builtin", "xnnpack", "microcontroller"] | None = Field(
        default=None, description="the operator set of a target: no other operator may ship"
    )
    accuracy: float | None = Field(default=None, ge=0, le=100, description="percent, top-1")
    miou: float | None = Field(
        default=None, ge=0, le=100, description="percent, of segmentation, in place of accuracy"
    )
    accuracy_drop: float | None = Field(
        default=5.0,
        ge=0,
        le=100,
        description="percentage points that the file may lie below the network as it was when its "
        "dense phase ended; of segmentation: of mIoU",
    )
    latency_ratio: float | None = Field(
        default=1.0, gt=0, description="shipped / dense latency under onnxruntime, one thread"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_check(cls, value: object) -> object:
        return None if value is False else value

    @field_serializer("accuracy_drop", "latency_ratio")
    def _none_is_false(self, value: float | None) -> float | bool:
        return False if value is None else value


class VerifySpec(Table):
    """What is compared before a file ships."""

    tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="largest difference of an output, as a share of its largest value; rounding of "
        "the network, measured against float64, allows less",
    )
    input_range: tuple[float, float] | None = Field(
        default=None, description="random inputs lie between these; by default as the data do"
    )
    agreement: float = Field(
        default=1.0, ge=0, le=1, description="share of equal top-1 answers, of images or of pixels"
    )
    random_batches: int = Field(default=3, ge=1)
    runners: Annotated[tuple[Text, ...], Field(max_length=MOST_ENTRIES)] | None = Field(
        default=None,  # left out of the text: the digest is that of recipes from before
        description="what files are proven on besides this machine: qemu-aarch64, ssh://user@board",
    )
    budget: Budget = Budget()


class BundleSpec(Table):
    """What a bundle says of itself besides what is found: who may use it, for what."""

    release: Text = Field(default="", description="of what ships, as its maker counts: 1.4.0")
    replaces: Text = Field(default="", description="the oldest release that it may replace")
    licence: Text = Field(default="", description="an SPDX name: Apache-2.0")
    intended_use: Text = Field(default="", description="what it is meant for, and what not")


class Recipe(Table):
    """A whole recipe. ``passes`` and ``exports`` hold a table each: its ``name``, its options."""

    name: Annotated[str, AfterValidator(folder_name)]
    description: Text = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
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
                f"mixes images (train.mixup, train.cutmix), and the masks of data.name = "
                f"{self.data.name!r} cannot be mixed: both must be 0"
            )
        wrong, right = ("accuracy", "miou") if per_pixel else ("miou", "accuracy")
        for key, table in (("train.stop", stop), ("verify.budget", budget)):
            if getattr(table, wrong) is not None:
                raise ValueError(
                    f"has {key}.{wrong}, which data.name = {self.data.name!r} knows nothing of: it "
                    f"must be {key}.{right}"
                )
        return self
