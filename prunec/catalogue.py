"""Plug-ins by name: the only dynamic imports, from a name in a recipe to a class.

``train-gdp`` is the class ``TrainGdp`` of ``passes/train_gdp.py``: a plug-in is registered by its
file.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from prunec.errors import PassError, PrunecError, RecipeError
from prunec.models.own_images import with_own_images
from prunec.plugins import EXPORTERS, PASSES, RUNNERS, plug_in_names
from prunec.recipe import Recipe, dumps
from prunec.recipe.recipe import require_readable
from prunec.recipe.values import plain
from prunec.wording import Known, did_you_mean, mistakes, shortened

if TYPE_CHECKING:
    from prunec.contract import Pass
    from prunec.deploy.exporter import Exporter
    from prunec.deploy.runner import Runner

P = TypeVar("P", bound="Pass | Exporter")


def pass_names() -> tuple[str, ...]:
    """Return the names of all passes, sorted; imports none of them."""
    return plug_in_names(PASSES)


def pass_class(name: str) -> type[Pass]:
    """Return the class of the pass ``name``.

    Raises:
        RecipeError: there is no such pass.
        PassError: its file cannot be imported, or has no such class.
    """
    from prunec.contract import Pass  # here: it imports torch, which names do not need

    cls = _load(PASSES, name, "pass")
    if not issubclass(cls, Pass) or inspect.isabstract(cls) or cls.pass_name() != name:
        raise PassError(f"{cls.__module__}.{cls.__name__} is not the pass {name!r}")
    return cls


def pass_classes() -> dict[str, type[Pass]]:
    """Return all passes, name → class, sorted by name."""
    return {name: pass_class(name) for name in pass_names()}


def pass_options(name: str) -> dict[str, Any]:
    """Return the JSON schema of a pass's options: types, defaults, ranges, descriptions.

    Raises:
        RecipeError: there is no such pass.
        PassError: it cannot be loaded.
    """
    return _options_of(pass_class(name)).json_schema()


def exporter_names() -> tuple[str, ...]:
    """Return the names of all exporters, sorted; imports none of them."""
    return plug_in_names(EXPORTERS)


def exporter(name: str) -> type[Exporter]:
    """Return the class of the exporter ``name``: ``to-onnx`` is ``ToOnnx`` of ``to_onnx.py``.

    Raises:
        RecipeError: there is no such exporter.
        PassError: its file cannot be imported, or has no such class.
    """
    from prunec.deploy.exporter import Exporter

    cls = _load(EXPORTERS, name, "exporter")
    if not issubclass(cls, Exporter) or inspect.isabstract(cls):
        raise PassError(f"{cls.__module__}.{cls.__name__} is not the exporter {name!r}")
    return cls


def runner_names() -> tuple[str, ...]:
    """Return the names of all runners, sorted; imports none of them."""
    return plug_in_names(RUNNERS)


def runner(name: str) -> type[Runner]:
    """Return the class of the runner ``name``: ``onnxruntime`` is ``Onnxruntime``.

    Raises:
        RecipeError: there is no such runner.
        PassError: its file cannot be imported, or has no such class.
    """
    from prunec.deploy.runner import Runner

    cls = _load(RUNNERS, name, "runner")
    if not issubclass(cls, Runner) or inspect.isabstract(cls):
        raise PassError(f"{cls.__module__}.{cls.__name__} is not the runner {name!r}")
    return cls


def runner_named(text: str) -> Runner:
    """Return the runner that a text names: ``openvino``, ``qemu-aarch64``, ``ssh://pi@board``.

    Raises:
        RecipeError: there is no such runner, or it does not take this address.
        PassError: its runtime is not installed.
    """
    name, colon, place = text.partition("://")
    cls = runner(name)
    return cls.at(place) if colon else cls()


def runner_for(suffix: str) -> Runner:
    """Return the first installed runner that opens files of a suffix.

    Raises:
        RecipeError: there is none.
    """
    runner = next(_opening(suffix), None)
    if runner is None:
        raise RecipeError(
            f"no installed runner opens {suffix} files",
            remedy=f"Install the runtime of one of: {', '.join(runner_names())}.",
        )
    return runner


def runner_by(name: str, suffix: str) -> Runner:
    """Return the named runner, or for an empty name the first installed one, for a suffix.

    Raises:
        RecipeError: there is no such runner, or it does not open such files.
        PassError: its runtime is not installed.
    """
    if not name:
        return runner_for(suffix)
    runner = runner_named(name)
    if suffix not in runner.suffixes:
        raise RecipeError(
            f"{name} does not open {suffix or 'such'} files",
            remedy=f"It opens {', '.join(sorted(runner.suffixes))}.",
        )
    return runner


def other_runners(suffix: str) -> tuple[Runner, ...]:
    """Return all installed runners that open files of a suffix, except :func:`runner_for`'s."""
    return tuple(_opening(suffix))[1:]


def _opening(suffix: str) -> Iterator[Runner]:
    for name in runner_names():
        try:
            cls = runner(name)
        except PassError:
            continue
        # A runner that reaches another machine runs by name only.
        if cls.unasked and suffix in cls.suffixes:
            yield cls()


def build_exporter(table: Mapping[str, Any], entry: str, source: str) -> Exporter:
    """Return an exporter, its options validated.

    Args:
        table: its ``name`` and its options.
        entry: path of the table in ``source``, for errors.
        source: file or command that names it, for errors.

    Raises:
        RecipeError: an unknown exporter, or a wrong option.
    """
    return _build(table, entry, source, exporter)


def build_exporters(
    recipe: Recipe,
    source: str,
    forms: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Exporter, ...]:
    """Return the recipe's exporters, their options validated and their order checked.

    Args:
        recipe: the recipe.
        source: the recipe's file, for errors.
        forms: further forms, with default options, and before each the form that it reads.
        options: form → options that override the recipe's.

    Raises:
        RecipeError: an unknown exporter, a wrong option, a form named twice, a form before the form
            that it reads, or options for a form that is not exported.
    """
    named = {str(table["name"]) for table in recipe.exports}
    asked = dict.fromkeys(name for form in forms for name in _with_read(form))
    more = [name for name in asked if name not in named]
    named_tables = [*recipe.exports, *({"name": name} for name in more)]
    tables = _with_options(named_tables, options or {}, source)
    built = tuple(
        build_exporter(table, f"export[{index}]", source) for index, table in enumerate(tables)
    )
    before: list[str] = []
    for index, writer in enumerate(built):
        place, form = f"{source}: export[{index}] ({writer.exporter_name()})", writer.form()
        if form in before:
            raise RecipeError(f"{place} is named twice", remedy="Leave one of them out.")
        if writer.reads and writer.reads not in before:
            raise RecipeError(
                f"{place} reads the {writer.reads} file",
                remedy=f'Put [[export]] name = "to-{writer.reads}" before it.',
            )
        before.append(form)
    return built


def _with_read(form: str) -> list[str]:
    """Return the exporters of a form and of those that it is converted from, in order."""
    names = [f"to-{form}"]
    while read := exporter(names[0]).reads:
        names.insert(0, f"to-{read}")
    return names


def _with_options(
    tables: Sequence[Mapping[str, Any]], options: Mapping[str, Mapping[str, Any]], source: str
) -> list[Mapping[str, Any]]:
    names = {str(table["name"]) for table in tables}
    for form in options:
        if f"to-{form}" not in names:
            raise RecipeError(
                f"options for {form} are given, but {source} does not export it",
                remedy=f"Export it as well: --{form}",
            )
    return [{**t, **options.get(str(t["name"]).removeprefix("to-"), {})} for t in tables]


def build_passes(recipe: Recipe, source: str) -> tuple[Pass, ...]:
    """Return the recipe's passes, their options validated and their order checked.

    Args:
        recipe: the recipe.
        source: the recipe's file, for errors.

    Raises:
        RecipeError: an unknown pass, a wrong option, or an order in which the needs of a pass are
            not met; raised before any pass runs.
    """
    built = tuple(
        _build(table, f"pass[{index}]", source, pass_class)
        for index, table in enumerate(recipe.passes)
    )
    _check_order(built, source)
    if any(map(_trains, built)):
        _require_training(recipe, source)
        _require_phases(built, recipe.train.epochs, source)
    return built


def trains(recipe: Recipe, source: str) -> bool:
    """Return whether the recipe has a training pass.

    Raises:
        RecipeError: as in :func:`build_passes`.
    """
    return any(map(_trains, build_passes(recipe, source)))


def _trains(step: Pass) -> bool:
    from prunec.contract import Training  # here: it imports torch, which names do not need

    return isinstance(step, Training)


def _require_training(recipe: Recipe, source: str) -> None:
    if not recipe.train.epochs:
        raise RecipeError(
            f"{source}: train.epochs is missing, but a pass trains",
            remedy="State the number of epochs: [train] epochs = 12.",
        )
    if recipe.data.name == "none":
        raise RecipeError(
            f"{source}: data.name = 'none', but a pass trains",
            remedy="Name the images, for example: [data] name = 'imagefolder'.",
        )


def _require_phases(passes: Sequence[Pass], epochs: int, source: str) -> None:
    """Check that the phases of every training pass fit into its epochs."""
    from prunec.contract import Training

    for index, step in enumerate(passes):
        if isinstance(step, Training):
            try:
                step.phases(epochs)
            except PassError as error:
                place = f"{source}: pass[{index}] ({step.pass_name()})"
                what = error.message.removeprefix(step.pass_name()).lstrip(": ")
                raise RecipeError(f"{place}: {what}", remedy=error.remedy) from None


def self_contained(recipe: Recipe, source: str) -> Recipe:
    """Return a recipe whose text and digest determine everything that a run does.

    Files that options of passes name are read into the options; mean, deviation and size of the
    pretrained weights' images are filled in where the data section leaves them out.

    Args:
        recipe: the recipe.
        source: the recipe's file, for errors.

    Raises:
        RecipeError: as in :func:`build_passes`, or a file cannot be read.
    """
    tables = []
    for index, step in enumerate(build_passes(recipe, source)):
        table = recipe.passes[index]
        try:
            read = step.read()
        except PassError as error:
            place = f"{source}: pass[{index}] ({step.pass_name()})"
            raise RecipeError(f"{place}: {error.message}", remedy=error.remedy) from None
        tables.append(plain({**table, **read}) if read else table)
    whole = with_own_images(recipe.model_copy(update={"passes": tuple(tables)}))
    # The densities of a file became part of the text, which has a largest length.
    require_readable(dumps(whole), f"{source}, with the files that its passes name")
    return whole


def _load(package: str, name: str, kind: str) -> type:
    names = plug_in_names(package)
    if name not in names:
        raise RecipeError(
            f"there is no {kind} {shortened(name)!r}",
            remedy=f"{did_you_mean(name, names)}There are: {', '.join(names)}.",
        )
    path = f"{package}.{name.replace('-', '_')}"
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise PassError(
            f"the {kind} {name!r} cannot be imported: {error}", remedy=_installing(name)
        ) from error
    cls = getattr(module, "".join(word.capitalize() for word in name.split("-")), None)
    if not isinstance(cls, type):
        raise PassError(f"{path} has no class for the {kind} {name!r}")
    return cls


def _installing(name: str) -> str:
    """Return the remedy that installs a plug-in's dependencies: the extra of its name, if any.

    ``to-executorch-int8`` has the extra of ``to-executorch``.
    """
    words = f"{name.removeprefix('to-')}-"
    try:
        extras = metadata("prunec").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    extra = next((extra for extra in extras if words.startswith(f"{extra}-")), "")
    return f"Install it: pip install 'prunec[{extra}]'" if extra else _INSTALL


_INSTALL = "Install the package that it imports."


def _build(
    table: Mapping[str, Any], entry: str, source: str, class_of: Callable[[str], type[P]]
) -> P:
    name = table["name"]
    place = f"{entry} ({shortened(name)})"
    try:
        cls = class_of(name)
    except RecipeError as error:
        raise RecipeError(f"{source}: {entry}: {error.message}", remedy=error.remedy) from None
    options = {key: value for key, value in table.items() if key != "name"}
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    options_of: TypeAdapter[P] = _options_of(cls)  # type: ignore[arg-type] # every class has a hash
    try:
        # As JSON: pydantic's strict mode accepts an array for a tuple only in JSON.
        return options_of.validate_json(json.dumps(options))
    except ValidationError as error:
        known = Known(lambda _: fields, options_of.json_schema)
        raise mistakes(error, source, known, place) from None
    except PrunecError as error:
        raise RecipeError(f"{source}: {place}: {error.message}", remedy=error.remedy) from error


@cache
def _options_of(cls: Any) -> TypeAdapter[Any]:
    """Return the validator of a plug-in's options; cached: building it takes milliseconds."""
    return TypeAdapter(cls)


def _check_order(passes: Sequence[Pass], source: str) -> None:
    facts: frozenset[str] = frozenset()
    for index, step in enumerate(passes):
        place = f"{source}: pass[{index}] ({step.pass_name()})"
        for fact in sorted(step.needs - facts):
            raise RecipeError(f"{place} needs {fact!r}", remedy=_supply(passes, index, fact))
        for fact in sorted(step.forbids & facts):
            raise RecipeError(
                f"{place} may not run on a network that is {fact!r}",
                remedy=_remove(passes, index, fact),
            )
        facts = (facts - step.drops) | step.adds


def _supply(passes: Sequence[Pass], index: int, fact: str) -> str:
    """Return the remedy that makes ``fact`` hold before ``passes[index]``."""
    step = passes[index].pass_name()
    later = [other.pass_name() for other in passes[index + 1 :] if fact in other.adds]
    # The smallest change first: a pass of the recipe moves before another is added.
    if later:
        return f"Move {later[0]} before {step}."
    ended = [other.pass_name() for other in passes[:index] if fact in other.drops]
    if ended and any(fact in other.adds for other in passes[:index]):
        return f"Move {step} before {ended[-1]}, which ends it."
    adding = [name for name, cls in pass_classes().items() if fact in cls.adds]
    return f"Put {_or(adding)} before {step}." if adding else "No pass provides it."


def _remove(passes: Sequence[Pass], index: int, fact: str) -> str:
    """Return the remedy that ends ``fact`` before ``passes[index]``."""
    step = passes[index].pass_name()
    later = [other.pass_name() for other in passes[index + 1 :] if fact in other.drops]
    if later:
        return f"Move {later[0]} before {step}."
    dropping = [name for name, cls in pass_classes().items() if fact in cls.drops]
    if dropping:
        return f"Put {_or(dropping)} before {step}."
    adding = [other.pass_name() for other in passes[:index] if fact in other.adds]
    return f"Move {step} before {_or(adding)}, which causes it."


def _or(names: Sequence[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last
