"""The tables of a recipe: which keys there are, their types, defaults and ranges."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from prunec.recipe.lengths import (
    Epochs,
    Share,
    in_epochs,
    in_whole_epochs,
    share_in_epochs,
    stated_wrong,
)

DataName = Literal[
    "embedded", "fashion-mnist", "cifar10", "cifar100", "imagenet", "imagefolder",
    "webdataset", "har", "speech-commands", "speech-commands-12", "voc-segmentation",
    "embedded-segmentation", "none",
]  # fmt: skip
PER_PIXEL: tuple[DataName, ...] = ("voc-segmentation", "embedded-segmentation")
"""Sets that have a class for every pixel."""

DEEPEST = 16
"""How many levels of arrays and tables an option may nest: more is an accident or an attack."""

MOST_PIXELS = 100_000_000
"""How many pixels an image may declare where a recipe says nothing else: 300 MB as RGB."""

PILLOWS_PIXELS = 178_956_970
"""How many Pillow opens at most."""

MOST_ENTRIES = 100
"""How many passes, exports, transforms or edits a recipe may list."""

LONGEST_NAME = 80
"""How many characters the name of a recipe may have."""


def plain(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as TOML can hold it, keys in one order, or raise ValueError.

    Arrays become lists; ``name`` is the first key, the others are sorted. Times are refused because
    no option is one, numbers that are not finite because they do not equal themselves.
    """
    if depth > DEEPEST:
        raise ValueError(f"is nested deeper than {DEEPEST} levels")
    match value:
        case bool():
            return value
        case str():
            return _encodable(value)
        case int():
            if not -(2**63) <= value < 2**63:
                raise ValueError("holds a whole number beyond 64 bits")
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"holds {value}, which is not a finite number")
            return value
        case list() | tuple():
            return [plain(item, depth + 1) for item in value]
        case dict():
            keys = sorted(value, key=lambda key: (key != "name", str(key)))
            return {_encodable(key): plain(value[key], depth + 1) for key in keys}
    raise ValueError(f"holds a {type(value).__name__}, which no key of a recipe takes")


def _encodable(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"has the key {_in_short(text)}, which is not text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"holds {_in_short(text)}, which is not valid Unicode") from None
    return text


def _in_short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def _named(table: dict[str, Any]) -> dict[str, Any]:
    if "name" not in table:
        raise ValueError("has no 'name'")
    if not isinstance(table["name"], str) or not table["name"]:
        raise ValueError(f"has a 'name' that is no text: {_in_short(table['name'])}")
    return table


def _folder_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) or len(text) > LONGEST_NAME:
        raise ValueError(
            f"must be a name for a folder: at most {LONGEST_NAME} letters, digits, '.', '_' or "
            f"'-', the first a letter or digit, found {_in_short(text)}"
        )
    return text


def _some(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    if not entries:
        raise ValueError("must hold at least one entry")
    return entries


Text = Annotated[str, AfterValidator(_encodable)]
Options = Annotated[dict[str, Any], AfterValidator(plain)]
Named = Annotated[dict[str, Any], AfterValidator(plain), AfterValidator(_named)]
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A TOML table: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False
    )


class ModuleEdit(Table):
    """One change of a built network: a module is rebuilt with other arguments, or becomes identity.

    ``{ module = "features.0.0", set = { stride = 1, in_channels = 1 } }`` or
    ``{ module = "maxpool", identity = true }``.
    """

    module: Text
    set: Options = Field(default_factory=dict)
    identity: bool = False

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if bool(self.set) == self.identity:
            raise ValueError("must hold either set = { … } or identity = true")
        return self


class ModelSpec(Table):
    """The network: a torchvision name, ``timm:name``, or ``package.module:factory``."""

    name: Text
    weights: Text = ""
    backbone_weights: Text = Field(
        default="", description="of the backbone alone: NETWORK:NAME of torchvision, or a file"
    )
    masks: Text = Field(default="", description="a file of masks: weights that count as zero")
    classes: int = Field(default=0, ge=0, description="0: as many as the data have")
    inputs: tuple[Text, ...] = Field(
        default=(), alias="input", description="without data: one sample of each, 3x224x224"
    )
    options: Options = Field(default_factory=dict)
    edit: tuple[ModuleEdit, ...] = ()


class DataSpec(Table):
    """The images: which set, where it lies, how it is augmented, prepared and normalised.

    ``augment`` (training images) and ``prepare`` (test images, and training images where
    ``augment`` is empty) are torchvision v2 transforms, each a table with its class ``name`` and
    that class's arguments. Both must end at the same size.
    """

    name: DataName = "embedded"
    root: Text = "data"
    download: bool = True
    images: Literal["train", "trainaug"] = Field(
        default="train", description="of voc-segmentation: the list of training images"
    )
    augment: tuple[Named, ...] = Field(default=(), max_length=MOST_ENTRIES)
    prepare: tuple[Named, ...] = Field(default=(), max_length=MOST_ENTRIES)
    mean: Annotated[tuple[float, ...], AfterValidator(_some)] = (0.5,)
    std: Annotated[tuple[Positive, ...], AfterValidator(_some)] = (0.5,)
    workers: int = Field(default=0, ge=0)
    max_pixels: int = Field(
        default=MOST_PIXELS,
        ge=1,
        le=PILLOWS_PIXELS,
        description="that an image may declare: a larger one is refused before it is decoded",
    )

    @model_validator(mode="after")
    def _one_each_channel(self) -> Self:
        means, stds = len(self.mean), len(self.std)
        if means != stds and 1 not in (means, stds):
            raise ValueError(
                f"must hold as many numbers in mean as in std, found {means} and {stds}"
            )
        return self


class Schedule(Table):
    """How the learning rate runs after the warm-up: a factor of ``train.learning_rate``.

    cosine: end + (1 − end)·½(1 + cos πt), t from 0 to 1 · linear: 1 − (1 − end)·t · multistep:
    ``factor`` to the number of milestones passed · exponential: ``factor`` to the number of epochs
    · constant. It and the warm-up change with every step or with every epoch. ``milestones`` are
    shares of the training; a recipe whose numbers are 1 and more states ``milestones_epochs``.
    """

    name: Literal["cosine", "linear", "multistep", "exponential", "constant"] = "cosine"
    end: float = Field(default=0.0, ge=0, le=1, description="of cosine and linear")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = Field(
        default=None, description="shares of the training, of multistep"
    )
    milestones_epochs: tuple[Positive, ...] | None = Field(
        default=None, description="in epochs, in place of the shares"
    )
    factor: float = Field(default=0.1, gt=0, le=1, description="of multistep and exponential")
    per: Literal["step", "epoch"] = "step"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if wrong := stated_wrong(self, "milestones"):
            raise ValueError(wrong)
        stated = self.milestones or self.milestones_epochs or ()
        if (self.name == "multistep") != bool(stated):
            raise ValueError("must hold milestones with name = 'multistep', and with no other name")
        if list(stated) != sorted(set(stated)):
            raise ValueError("must hold milestones in ascending order")
        return self

    def at_epochs(self, epochs: int) -> tuple[float, ...]:
        """Return the milestones of a training of so many epochs, in epochs."""
        shares = self.milestones or ()
        return self.milestones_epochs or tuple(share_in_epochs(s, epochs) for s in shares)


class ParameterGroup(Table):
    """Parameters by name (``*`` stands for any text) with a rate and a decay of their own."""

    match: Text
    weight_decay: float | None = Field(default=None, ge=0)
    learning_rate: float = Field(default=1.0, ge=0, description="times train.learning_rate")


class Teacher(Table):
    """The dense network whose answers are learned too: (1 − share)·CE + share·T²·KL(teacher).

    It is the network that a run trained, or another one by name with its weights.
    """

    run: Text = Field(default="", description="a run's folder")
    model: ModelSpec | None = None
    share: float = Field(default=0.5, gt=0, le=1)
    temperature: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.run) == (self.model is not None):
            raise ValueError("must hold either run = … or model = { name = …, weights = … }")
        if self.model is not None and not self.model.weights:
            raise ValueError("must hold the weights of its model: nobody learns from a fresh one")
        return self


class Stop(Table):
    """When training ends before its last epoch; the first that holds decides.

    ``accuracy``, ``miou`` and ``patience`` wait until the method has reached its budget. A patience
    of 1 and more, in a recipe, states ``patience_epochs``.
    """

    accuracy: float | None = Field(default=None, gt=0, le=100, description="percent, test images")
    miou: float | None = Field(
        default=None, gt=0, le=100, description="percent, of segmentation, in place of accuracy"
    )
    patience: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of the training without a better accuracy"
    )
    patience_epochs: int | None = Field(
        default=None, ge=1, description="in epochs, in place of the share"
    )
    minutes: float | None = Field(
        default=None, gt=0, description="of training, evaluation included"
    )

    @model_validator(mode="after")
    def _one_patience(self) -> Self:
        if wrong := stated_wrong(self, "patience"):
            raise ValueError(wrong)
        return self

    def patient_epochs(self, epochs: int) -> int | None:
        """Return how many of so many epochs may pass without a better accuracy; None: any."""
        if self.patience is None and self.patience_epochs is None:
            return None
        return in_whole_epochs(self, "patience", epochs, least=1)


def _named_optimizer(table: dict[str, Any]) -> dict[str, Any]:
    for key, home in (("lr", "train.learning_rate"), ("weight_decay", "train.weight_decay")):
        if key in table:
            raise ValueError(f"must leave {key} to {home}")
    return table


class TrainSpec(Table):
    """How weights are trained, by whichever method."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=128, ge=1, description="of all processes together")
    learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0, description="of kernels; norms, biases: none")
    optimizer: Annotated[Named, AfterValidator(_named_optimizer)] = Field(
        default={"name": "SGD", "momentum": 0.9},
        description="a class of torch.optim and its arguments",
    )
    groups: tuple[ParameterGroup, ...] = Field(default=(), alias="group")
    schedule: Schedule = Schedule()
    warmup: Share | None = Field(
        default=None, description="share of the training of linear rise from 0"
    )
    warmup_epochs: Epochs | None = Field(
        default=None, description="in epochs, in place of the share"
    )
    clip_norm: float = Field(default=0.0, ge=0, description="of all gradients; 0: no clipping")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0, description="α of its Beta(α, α); 0: none")
    cutmix: float = Field(default=0.0, ge=0, description="α of its Beta(α, α); 0: none")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay per step; 0: no average")
    teacher: Teacher | None = None
    auxiliary: float = Field(
        default=0.5, ge=0, description="weight of an auxiliary head's loss; 0: it does not train"
    )
    stop: Stop = Stop()
    ship: Literal["last", "best"] = Field(default="last", description="whose weights go on")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    compile: bool = False
    sync_batchnorm: bool = Field(default=True, description="statistics over all processes")
    checkpoint_minutes: float = Field(default=10.0, gt=0, description="at most between two")
    keep: int = Field(default=2, ge=1, description="checkpoints, beside the best")
    tensorboard: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if wrong := stated_wrong(self, "warmup"):
            raise ValueError(wrong)
        if self.rising >= self.epochs:
            raise ValueError(
                f"warms up for {self.rising:g} epochs but trains for {self.epochs}: "
                f"warmup_epochs must be less than epochs; a share fits any: warmup = 0.05"
            )
        late = [m for m in self.schedule.milestones_epochs or () if m >= self.epochs]
        if late:
            raise ValueError(
                f"trains for {self.epochs} epochs: schedule.milestones_epochs = {late[0]:g} is "
                "never reached; shares fit any: milestones = [0.5, 0.75]"
            )
        return self

    @property
    def rising(self) -> float:
        """Epochs of linear rise of the learning rate from 0."""
        return in_epochs(self, "warmup", self.epochs)


NO_TRAINING = TrainSpec.model_construct(epochs=0)
"""What a recipe without a training pass has in place of the table."""


class Budget(Table):
    """What the shipped network must keep; a key left out has its default, ``false`` is no check."""

    macs_ratio: float | None = Field(default=None, gt=0, le=1, description="shipped / dense MACs")
    bytes: int | None = Field(default=None, gt=0)
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
    budget: Budget = Budget()


class Recipe(Table):
    """A whole recipe. ``passes`` and ``exports`` hold a table each: its ``name``, its options."""

    name: Annotated[str, AfterValidator(_folder_name)]
    description: Text = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelSpec
    data: DataSpec = DataSpec()
    train: TrainSpec = NO_TRAINING
    passes: Annotated[tuple[Named, ...], AfterValidator(_some)] = Field(
        alias="pass", max_length=MOST_ENTRIES
    )
    exports: Annotated[tuple[Named, ...], AfterValidator(_some)] = Field(
        default=({"name": "to-onnx"},), alias="export", max_length=MOST_ENTRIES
    )
    verify: VerifySpec = VerifySpec()

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
