"""The tables ``model`` and ``data`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_serializer, model_validator

from prunec.recipe.values import MOST_ENTRIES, Named, Options, Positive, Table, Text, some

DataName = Literal[
    "embedded", "fashion-mnist", "cifar10", "cifar100", "imagenet", "imagefolder",
    "webdataset", "har", "speech-commands", "speech-commands-12", "voc-segmentation",
    "embedded-segmentation", "none",
]  # fmt: skip
PER_PIXEL: tuple[DataName, ...] = ("voc-segmentation", "embedded-segmentation")
"""Data sets with one class per pixel."""

MOST_PIXELS = 100_000_000
"""Default of the largest number of pixels that an image may declare: 300 MB as RGB."""

PILLOWS_PIXELS = 178_956_970
"""Largest number of pixels that Pillow opens: twice its limit against decompression bombs."""


class ModuleEdit(Table):
    """One edit of a built network: a module with other arguments, or replaced by identity.

    ``{ module = "features.0.0", set = { stride = 1, in_channels = 1 } }`` or
    ``{ module = "maxpool", identity = true }``.
    """

    module: Text
    set: Options = Field(default_factory=dict)
    identity: bool = False

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if bool(self.set) == self.identity:
            raise ValueError("must have either set = { … } or identity = true")
        return self


class ModelSpec(Table):
    """The network: a torchvision name, ``timm:name``, or ``package.module:factory``."""

    name: Text
    weights: Text = ""
    backbone_weights: Text = Field(
        default="", description="weights of the backbone: NETWORK:NAME of torchvision, or a file"
    )
    masks: Text = Field(default="", description="a file of masks: weights that count as zero")
    classes: int = Field(default=0, ge=0, description="number of classes; 0: that of the data")
    inputs: tuple[Text, ...] = Field(
        default=(), alias="input", description="without data: shape of one sample: 3x224x224"
    )
    options: Options = Field(default_factory=dict)
    edit: tuple[ModuleEdit, ...] = ()


class DataSpec(Table):
    """The images: data set, folder, augmentation, preparation and normalisation.

    ``augment`` (training images) and ``prepare`` (test images, and training images where
    ``augment`` is empty) are torchvision v2 transforms, each a table with its class ``name`` and
    that class's arguments. Both must end at the same size.
    """

    name: DataName = "embedded"
    root: Text = "data"
    download: bool = True
    images: Literal["train", "trainaug"] = Field(
        default="train", description="list of training images of voc-segmentation"
    )
    augment: tuple[Named, ...] = Field(default=(), max_length=MOST_ENTRIES)
    prepare: tuple[Named, ...] = Field(default=(), max_length=MOST_ENTRIES)
    # With std = 0.5: pixels from 0…1 to −1…1.
    mean: Annotated[tuple[float, ...], AfterValidator(some)] = (0.5,)
    std: Annotated[tuple[Positive, ...], AfterValidator(some)] = (0.5,)
    workers: int = Field(default=0, ge=0)
    decode: Literal["workers", "device"] | None = Field(
        default=None,  # omitted from the text: keeps the digest of recipes without this key
        description="where JPEGs of folders and shards become pixels: by the workers, or by the "
        "GPU's decoder, whose pixels differ a little; by default by the workers",
    )
    max_pixels: int = Field(
        default=MOST_PIXELS,
        ge=1,
        le=PILLOWS_PIXELS,
        description="largest number of pixels of an image: a larger one is refused undecoded",
    )

    @field_serializer("decode")
    def _usual_decoder(self, value: str) -> str | None:
        # The default is left out: recipes of before this key keep their digest.
        return None if value == "workers" else value

    @model_validator(mode="after")
    def _one_each_channel(self) -> Self:
        means, stds = len(self.mean), len(self.std)
        if means != stds and 1 not in (means, stds):
            raise ValueError(
                f"must have as many numbers in mean as in std, found {means} and {stds}"
            )
        return self
