"""Construction of a recipe's network: torchvision's or timm's by name, others by their factory."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from prunec.errors import DataError, RecipeError
from prunec.models.edits import apply_edits
from prunec.models.hubs import refuse_network_of_hub
from prunec.models.second_head import take_head
from prunec.models.weights import apply_masks, load_backbone, load_weights
from prunec.recipe import ModelSpec
from prunec.seeding import seeded
from prunec.wording import did_you_mean, shortened, some_of

MODEL = 3  # part of the seed of initial weights: no other random number is drawn with it
CLASSES = 1000
"""Default number of classes, that of ImageNet, unless the factory has its own."""


def build_model(
    spec: ModelSpec, classes: int, *, seed: int, note: Callable[[str], None] = lambda _: None
) -> nn.Module:
    """Build the network on the CPU, in training mode; same spec and seed, same weights.

    It is built, then edited, then filled with pretrained weights. torch's global generator is left
    unchanged. An auxiliary head, used only in training, is removed.

    Args:
        spec: the recipe's ``model`` table.
        classes: number of classes; 0 for the factory's own.
        seed: seed of the initial weights.
        note: callback for a sentence on a head that stays random, because the weights have another
            number of classes.

    Raises:
        RecipeError: no such network, option or module.
        DataError: the weights are missing or do not fit.
    """
    module, anew = _built(spec, classes, seed)
    take_head(module)
    if anew:
        note(
            f"model.weights = {spec.weights!r} have another number of classes than {classes}: "
            f"{', '.join(anew)} start at random"
        )
    return module.train()


def build_auxiliary(spec: ModelSpec, classes: int, *, seed: int) -> nn.Module | None:
    """Return the auxiliary head that `build_model` removes; None where there is none.

    Raises:
        RecipeError, DataError: as in `build_model`.
    """
    return take_head(_built(spec, classes, seed)[0])


def unweighted(spec: ModelSpec) -> ModelSpec:
    """Return the same network without its pretrained weights."""
    return spec.model_copy(update={"weights": "", "backbone_weights": "", "masks": ""})


def _built(spec: ModelSpec, classes: int, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network, and the keys of a head that the weights did not fit."""
    left: tuple[str, ...] = ()
    with seeded(seed, MODEL):
        module = _construct(spec, classes)
        apply_edits(module, spec.edit)
        if spec.backbone_weights:
            load_backbone(module, spec.backbone_weights)
        if spec.weights:
            left = load_weights(module, spec.name, spec.weights, classes)
            _require_head(spec, left)
        if spec.masks:
            apply_masks(module, spec.masks)
    return module, left


def _require_head(spec: ModelSpec, left: tuple[str, ...]) -> None:
    """Refuse a head of another number of classes than the recipe states for the network."""
    if spec.classes and left:
        raise DataError(
            f"model.weights = {spec.weights!r} have another number of classes than "
            f"{spec.classes}: {', '.join(left)}",
            remedy="State their number of classes: --classes N, or model.classes = N.",
        )


def _construct(spec: ModelSpec, classes: int) -> nn.Module:
    refuse_network_of_hub(spec.name)
    kind, _, name = spec.name.partition(":")
    if kind == "timm":
        factory = _timm(name)
    elif ":" in spec.name:
        factory = _imported(kind, name)
    else:
        factory = _torchvision(spec.name)
    for word, key in (("weights", "weights"), ("weights_backbone", "backbone_weights")):
        if word in spec.options and ":" not in spec.name:
            raise RecipeError(
                f"model.options.{word}: weights cannot be an option of the network",
                remedy=f"Set model.{key} = {spec.options[word]!r}: they are loaded and checked.",
            )
    named = [word for word in OF_FILES if kind == "timm" and word in spec.options]
    if named:
        raise RecipeError(
            f"model.options.{named[0]}: timm would download or unpickle the file that it names",
            remedy="Set model.weights = FILE: weights are loaded without unpickling, and checked.",
        )
    if "num_classes" in spec.options:
        raise RecipeError(
            f"model.options: {shortened(spec.name)} refuses them: num_classes cannot be an option",
            remedy="num_classes comes from the data; without data, set model.classes = N.",
        )
    options = {word: _plain(value) for word, value in spec.options.items()}
    options |= _number_of_classes(factory, classes)
    try:
        module = factory(**options)
    except Exception as error:  # any exception: the factory is the user's or a library's
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(
            f"model.options: {shortened(spec.name)} refuses them: {shortened(reason, 500)}",
            remedy="See the arguments of that network; num_classes comes from the data.",
        ) from error
    if not isinstance(module, nn.Module):
        raise RecipeError(
            f"model.name = {spec.name!r} returned {type(module).__name__}, not a torch.nn.Module",
            remedy="Name a class or a function that returns the network.",
        )
    return module


def _number_of_classes(factory: Callable[..., object], classes: int) -> dict[str, int]:
    """Return the keyword argument with the number of classes, if the factory takes one.

    For 0 classes, its own default applies, or 1000 where it has none.
    """
    try:
        taken = inspect.signature(factory).parameters
    except ValueError:  # builtins have no signature
        return {"num_classes": classes or CLASSES}
    named = taken.get("num_classes")
    if named is None and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return {}
    if not classes and (named is None or named.default is not inspect.Parameter.empty):
        return {}
    return {"num_classes": classes or CLASSES}


def timm_configuration(name: str) -> dict[str, Any]:
    """Return the ``size`` (H, W), ``mean`` and ``std`` of a timm network's images.

    Raises:
        RecipeError: timm is not installed, or has no such network.
    """
    _timm(name)
    models: Any = importlib.import_module("timm.models")
    known = models.get_pretrained_cfg(name)
    if known is None:
        return {}
    return {"size": tuple(known.input_size[1:]), "mean": known.mean, "std": known.std}


def _torchvision(name: str) -> Callable[..., object]:
    names = torchvision.models.list_models(torchvision.models)
    per_pixel = torchvision.models.list_models(torchvision.models.segmentation)
    if name not in (*names, *per_pixel):
        raise RecipeError(
            f"model.name = {shortened(name)!r} is not a classifier or a segmentation network of "
            "torchvision",
            remedy=did_you_mean(name, [*names, *per_pixel])
            + "Other networks: timm:NAME, or package.module:factory.",
        )
    builder: Callable[..., object] = torchvision.models.get_model_builder(name)
    # By default, segmentation networks download the weights of their backbone.
    return functools.partial(builder, weights_backbone=None) if name in per_pixel else builder


def _timm(name: str) -> Callable[..., object]:
    if importlib.util.find_spec("timm") is None:
        raise RecipeError(
            f"model.name = 'timm:{name}', but timm is not installed",
            remedy="Install it: pip install timm.",
        )
    timm: Any = importlib.import_module("timm")
    if not timm.is_model(name):
        raise RecipeError(
            f"model.name: timm has no network {name!r}",
            remedy=did_you_mean(name, timm.list_models()) or "See timm.list_models().",
        )

    return functools.partial(timm.create_model, name)


def _imported(path: str, name: str) -> Callable[..., object]:
    _require_network(path, name, None)
    # The current folder, as with `python -m prunec`, but last, so that it shadows no package; it
    # stays on the path, because the factory may import other modules when it is called.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(path)
    except (ImportError, TypeError, ValueError) as error:  # ValueError: a path, not a module name
        there = {file.stem for file in Path().glob("*.py")}
        near = "" if path in there else did_you_mean(path, sorted(there))
        if "/" in path or path.endswith(".py"):
            dotted = path.removesuffix(".py").strip("./").replace("/", ".")
            near = f"Use the module's dotted name: {dotted}:{name}. "
        raise RecipeError(
            f"model.name: module {path!r} cannot be imported: {error}",
            remedy=f"{near}Install its package, start prunec in the folder that holds it, or set "
            "PYTHONPATH to that folder.",
        ) from error
    factory = getattr(module, name, None)
    _require_network(path, name, factory)
    if not callable(factory):
        names = [word for word in dir(module) if callable(getattr(module, word))]
        raise RecipeError(
            f"model.name: {path} has no function or class {name!r}",
            remedy=f"{did_you_mean(name, names)}It has: {some_of(names) or 'none'}.",
        )
    return factory  # type: ignore[no-any-return] # callable() narrows to Callable[..., object]


def _require_network(path: str, name: str, factory: object) -> None:
    """Refuse functions that download, unpickle or start a process: they do not build networks.

    Raises:
        RecipeError: the module that is named, or the one that defines ``factory``, has such ones.
    """
    # A partial or another object has no module of definition of its own.
    named = inspect.isroutine(factory) or inspect.isclass(factory)
    written = str(getattr(factory, "__module__", "")) if named else ""
    for module in (path, written):
        root = module.partition(".")[0]
        if root in sys.stdlib_module_names or f"{module}.".startswith(NO_FACTORIES):
            raise RecipeError(
                f"model.name: {path}:{name} does not build a network: {module} downloads files or "
                "runs other code",
                remedy="Write a function that returns your network into a file of yours and name "
                "that: model.name = 'my_networks:build'.",
            )


NO_FACTORIES = (
    "torch.hub.", "torch.serialization.", "torch.package.", "torch.jit.", "torch.utils.",
    "torch.export.", "torch.multiprocessing.", "torch.distributed.", "pip.", "pickle.",
    "cloudpickle.", "dill.", "joblib.", "huggingface_hub.",
)  # fmt: skip
"""Prefixes of modules that download code, unpickle files or start processes."""
OF_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")
"""Arguments of timm's constructors that name files or URLs, which timm unpickles."""


def _plain(value: Any) -> Any:
    """Convert the tuples of a recipe into the lists that constructors expect."""
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
