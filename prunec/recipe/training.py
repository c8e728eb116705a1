"""The table ``train`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from prunec.recipe.lengths import (
    Epochs,
    Share,
    in_epochs,
    in_whole_epochs,
    share_in_epochs,
    stated_wrong,
)
from prunec.recipe.network_and_data import ModelSpec
from prunec.recipe.values import Named, Positive, Table, Text

FACTOR = 0.1
"""Default factor of the learning rate at each milestone: the usual step of He et al. 2016."""


class Schedule(Table):
    """Schedule of the learning rate after the warm-up, as a factor of ``train.learning_rate``.

    With t from 0 to 1: cosine: end + (1 − end)·½(1 + cos πt) · linear: 1 − (1 − end)·t · multistep:
    ``factor`` to the power of milestones passed · exponential: endᵗ, or without ``end``, ``factor``
    to the power of epochs passed · constant. The rate changes with every step or every epoch.
    ``milestones`` are shares of the training, ``milestones_epochs`` epochs.
    """

    name: Literal["cosine", "linear", "multistep", "exponential", "constant"] = "cosine"
    end: float = Field(default=0.0, ge=0, le=1, description="for cosine, linear, exponential")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = Field(
        default=None, description="shares of the training, for multistep"
    )
    milestones_epochs: tuple[Positive, ...] | None = Field(
        default=None, description="in epochs, in place of the shares"
    )
    factor: float = Field(default=FACTOR, gt=0, le=1, description="for multistep and exponential")
    per: Literal["step", "epoch"] = "step"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if wrong := stated_wrong(self, "milestones"):
            raise ValueError(wrong)
        if self.name == "exponential" and self.end and self.factor != FACTOR:
            raise ValueError(
                "must have end (the last rate) or factor (of each epoch) with name = "
                "'exponential', found both: leave one of them out"
            )
        stated = self.milestones or self.milestones_epochs or ()
        if (self.name == "multistep") != bool(stated):
            raise ValueError("must have milestones with name = 'multistep', and with no other name")
        if list(stated) != sorted(set(stated)):
            raise ValueError("must have milestones in ascending order")
        return self

    def at_epochs(self, epochs: int) -> tuple[float, ...]:
        """Return the milestones in epochs, for a training of ``epochs``."""
        shares = self.milestones or ()
        return self.milestones_epochs or tuple(share_in_epochs(s, epochs) for s in shares)


class ParameterGroup(Table):
    """Parameters by name (``*`` matches any text) with their own learning rate and decay."""

    match: Text
    weight_decay: float | None = Field(default=None, ge=0)
    learning_rate: float = Field(default=1.0, ge=0, description="times train.learning_rate")


class Teacher(Table):
    """Teacher of a distillation (Hinton et al. 2015): (1 − share)·CE + share·T²·KL(teacher).

    It is the network of a run, or one by name with its weights.
    """

    run: Text = Field(default="", description="a run's folder")
    model: ModelSpec | None = None
    # Temperature 4 is usual for images, Zagoruyko & Komodakis 2017 (arXiv:1612.03928).
    share: float = Field(default=0.5, gt=0, le=1)
    temperature: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.run) == (self.model is not None):
            raise ValueError("must have either run = … or model = { name = …, weights = … }")
        if self.model is not None and not self.model.weights:
            raise ValueError("must have weights of its model: random ones teach nothing")
        return self


class Stop(Table):
    """Conditions that end a training before its last epoch; the first that holds decides.

    ``accuracy``, ``miou`` and ``patience`` apply only after the method has reached its budget.
    """

    accuracy: float | None = Field(default=None, gt=0, le=100, description="percent, test images")
    miou: float | None = Field(
        default=None, gt=0, le=100, description="percent, for segmentation instead of accuracy"
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
        """Return the epochs that may pass without a better accuracy, of ``epochs``; None: any."""
        if self.patience is None and self.patience_epochs is None:
            return None
        return in_whole_epochs(self, "patience", epochs, least=1)


def _named_optimizer(table: dict[str, Any]) -> dict[str, Any]:
    for key, home in (("lr", "train.learning_rate"), ("weight_decay", "train.weight_decay")):
        if key in table:
            raise ValueError(f"must not have {key}: it is {home}")
    return table


class TrainSpec(Table):
    """Settings of training that are common to all methods."""

    epochs: int = Field(ge=1)
    # These four defaults are the CIFAR setting of He et al. 2016 (arXiv:1512.03385), its decay 5e-4
    # after Zagoruyko & Komodakis 2016 (arXiv:1605.07146).
    batch_size: int = Field(default=128, ge=1, description="over all processes together")
    learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0, description="of kernels, not of norms, biases")
    optimizer: Annotated[Named, AfterValidator(_named_optimizer)] = Field(
        default={"name": "SGD", "momentum": 0.9},
        description="class of torch.optim and its arguments",
    )
    groups: tuple[ParameterGroup, ...] = Field(default=(), alias="group")
    schedule: Schedule = Schedule()
    warmup: Share | None = Field(
        default=None, description="share of the training in which the rate rises from 0"
    )
    warmup_epochs: Epochs | None = Field(
        default=None, description="in epochs, in place of the share"
    )
    clip_norm: float = Field(default=0.0, ge=0, description="norm of all gradients; 0: no clipping")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0, description="α of its Beta(α, α); 0: none")
    cutmix: float = Field(default=0.0, ge=0, description="α of its Beta(α, α); 0: none")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay per step; 0: no average")
    teacher: Teacher | None = None
    # 0.5 as in torchvision's reference training of segmentation networks.
    auxiliary: float = Field(
        default=0.5, ge=0, description="weight of an auxiliary head's loss; 0: no such head"
    )
    stop: Stop = Stop()
    ship: Literal["last", "best"] = Field(default="last", description="epoch whose weights ship")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    compile: bool = False
    capture: Literal["auto"] | bool = Field(
        default="auto", description="whether a GPU's steps are recorded once and replayed"
    )
    sync_batchnorm: bool = Field(default=True, description="statistics over all processes")
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="longest time between two checkpoints"
    )
    checkpoint_epochs: int = Field(
        default=1, ge=1, description="epochs from one checkpoint at an epoch's end to the next"
    )
    keep: int = Field(default=2, ge=1, description="checkpoints to keep, besides the best")
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
        """Duration of the warm-up in epochs: the learning rate rises linearly from 0."""
        return in_epochs(self, "warmup", self.epochs)


NO_TRAINING = TrainSpec.model_construct(epochs=0)
"""Table ``train`` of a recipe without a training pass."""
