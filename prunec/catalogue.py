"""The one dynamic door: from a name in a recipe to the class in the file of that name.

``train-gdp`` is the class ``TrainGdp`` of ``passes/train_gdp.py``: the file is the registration.
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
        PassError: its file cannot be imported, or holds no such class.
    """
    from prunec.contract import Pass  # here: it imports torch, names need none

    found = _load(PASSES, name, "pass")
    if not issubclass(found, Pass) or inspect.isabstract(found) or found.pass_name() != name:
        raise PassError(f"{found.__module__}.{found.__name__} is not the pass {name!r}")
    return found


def pass_classes() -> dict[str, type[Pass]]:
    """Return every pass by its name, sorted by name."""
    return {name: pass_class(name) for name in pass_names()}


def pass_options(name: str) -> dict[str, Any]:
    """Return the JSON schema of a pass's options: types, defaults, ranges, what they are.

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
        PassError: its file cannot be imported, or holds no such class.
    """
    from prunec.deploy.exporter import Exporter

    found = _load(EXPORTERS, name, "exporter")
    if not issubclass(found, Exporter) or inspect.isabstract(found):
        raise PassError(f"{found.__module__}.{found.__name__} is not the exporter {name!r}")
    return found


def runner_names() -> tuple[str, ...]:
    """Return the names of all runners, sorted; imports none of them."""
    return plug_in_names(RUNNERS)


def runner(name: str) -> type[Runner]:
    """Return the class of the runner ``name``: ``onnxruntime`` is ``Onnxruntime``.

    Raises:
        RecipeError: there is no such runner.
        PassError: its file cannot be imported, or holds no such class.
    """
    from prunec.deploy.runner import Runner

    found = _load(RUNNERS, name, "runner")
    if not issubclass(found, Runner) or inspect.isabstract(found):
        raise PassError(f"{found.__module__}.{found.__name__} is not the runner {name!r}")
    return found


def runner_named(text: str) -> Runner:
    """Return the runner that a text means: ``openvino``, ``qemu-aarch64``, ``ssh://pi@board``.

    Raises:
        RecipeError: there is no such runner, or it has no such place.
        PassError: its runtime is not installed.
    """
    name, colon, place = text.partition("://")
    found = runner(name)
    return found.at(place) if colon else found()


def runner_for(suffix: str) -> Runner:
    """Return the first runner here that opens files of a suffix; runtimes not installed have none.

    Raises:
        RecipeError: there is none.
    """
    found = next(_opening(suffix), None)
    if found is None:
        raise RecipeError(
            f"no runner here opens {suffix} files",
            remedy=f"Install the runtime of one of: {', '.join(runner_names())}.",
        )
    return found


def runner_by(name: str, suffix: str) -> Runner:
    """Return the runner that a name means, or without one the first here, for files of a suffix.

    Raises:
        RecipeError: there is none, or it does not open such files.
        PassError: its runtime is not installed.
    """
    if not name:
        return runner_for(suffix)
    found = runner_named(name)
    if suffix not in found.suffixes:
        raise RecipeError(
            f"{name} opens no {suffix or 'such'} files",
            remedy=f"It opens {', '.join(sorted(found.suffixes))}.",
        )
    return found


def other_runners(suffix: str) -> tuple[Runner, ...]:
    """Return the further runners here that open files of a suffix, besides :func:`runner_for`'s."""
    return tuple(_opening(suffix))[1:]


def _opening(suffix: str) -> Iterator[Runner]:
    for name in runner_names():
        try:
            found = runner(name)
        except PassError:
            continue
        if found.unasked and suffix in found.suffixes:
            yield found()


def build_exporter(table: Mapping[str, Any], entry: str, source: str) -> Exporter:
    """Return an exporter, its options validated.

    Args:
        table: its ``name`` and its options.
        entry: where the table stands in ``source``, for errors.
        source: who names it, for errors.

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
        forms: further forms, with the defaults of their options.
        options: form → options that take the place of the recipe's.

    Raises:
        RecipeError: an unknown exporter, a wrong option, a form named twice, one that reads another
            which does not come before it, or options for a form that is not exported.
    """
    named = {str(table["name"]) for table in recipe.exports}
    more = [f"to-{form}" for form in forms if f"to-{form}" not in named]
    named_tables = [*recipe.exports, *({"name": name} for name in more)]
    tables = _with_options(named_tables, options or {}, source)
    built = tuple(
        build_exporter(table, f"export[{index}]", source) for index, table in enumerate(tables)
    )
    before: list[str] = []
    for index, writer in enumerate(built):
        place, form = f"{source}: export[{index}] ({writer.exporter_name()})", writer.form()
        if form in before:
            raise RecipeError(f"{place} stands twice", remedy="Leave one of them out.")
        if writer.reads and writer.reads not in before:
            raise RecipeError(
                f"{place} reads the {writer.reads} file",
                remedy=f'Put [[export]] name = "to-{writer.reads}" before it.',
            )
        before.append(form)
    return built


def _with_options(
    tables: Sequence[Mapping[str, Any]], options: Mapping[str, Mapping[str, Any]], source: str
) -> list[Mapping[str, Any]]:
    names = {str(table["name"]) for table in tables}
    for form in options:
        if f"to-{form}" not in names:
            raise RecipeError(
                f"{source} exports no {form}, and options for it are given",
                remedy=f"Ask for it too: --{form}",
            )
    return [{**t, **options.get(str(t["name"]).removeprefix("to-"), {})} for t in tables]


def build_passes(recipe: Recipe, source: str) -> tuple[Pass, ...]:
    """Return the recipe's passes, their options validated and their order checked.

    Args:
        recipe: the recipe.
        source: the recipe's file, for errors.

    Raises:
        RecipeError: an unknown pass, a wrong option, or an order in which a pass's needs are not
            met; nothing has run yet.
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
    """Say whether a pass of the recipe trains.

    Raises:
        RecipeError: as :func:`build_passes` has it.
    """
    return any(map(_trains, build_passes(recipe, source)))


def _trains(step: Pass) -> bool:
    from prunec.contract import Training  # here: it imports torch, names need none

    return isinstance(step, Training)


def _require_training(recipe: Recipe, source: str) -> None:
    if not recipe.train.epochs:
        raise RecipeError(
            f"{source}: train.epochs is missing, and a pass trains",
            remedy="Say for how many epochs: [train] epochs = 12.",
        )
    if recipe.data.name == "none":
        raise RecipeError(
            f"{source}: data.name = 'none', and a pass trains",
            remedy="Name the images: [data] name = 'imagefolder', say.",
        )


def _require_phases(passes: Sequence[Pass], epochs: int, source: str) -> None:
    """Refuse a training whose phases do not fit into its epochs."""
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
    """Return a recipe with the files that its passes' options name read into the options.

    What its pretrained weights expect of images stands in its data, where they say nothing. So its
    text and its digest say all that will be done. One that names neither stays as it is.

    Args:
        recipe: the recipe.
        source: the recipe's file, for errors.

    Raises:
        RecipeError: as :func:`build_passes` has it, or a file cannot be read.
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
    require_readable(dumps(whole), f"{source}, with the files that its passes name read into it")
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
            f"the {kind} {name!r} cannot be loaded: {error}", remedy=_installing(name)
        ) from error
    found = getattr(module, "".join(word.capitalize() for word in name.split("-")), None)
    if not isinstance(found, type):
        raise PassError(f"{path} holds no class for the {kind} {name!r}")
    return found


def _installing(name: str) -> str:
    """Say how what a plug-in imports is installed: by the extra of its name, where there is one."""
    extra = name.removeprefix("to-")
    try:
        extras = metadata("prunec").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    return f"Install it: pip install 'prunec[{extra}]'" if extra in extras else _INSTALL


_INSTALL = "Install what it imports."


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
        # JSON, because only there a strict schema takes an array as a tuple.
        return options_of.validate_json(json.dumps(options))
    except ValidationError as error:
        known = Known(lambda _: fields, options_of.json_schema)
        raise mistakes(error, source, known, place) from None
    except PrunecError as error:
        raise RecipeError(f"{source}: {place}: {error.message}", remedy=error.remedy) from error


@cache
def _options_of(cls: Any) -> TypeAdapter[Any]:
    """What reads the options of a pass or an exporter: made once, it takes milliseconds."""
    return TypeAdapter(cls)


def _check_order(passes: Sequence[Pass], source: str) -> None:
    facts: frozenset[str] = frozenset()
    for index, step in enumerate(passes):
        place = f"{source}: pass[{index}] ({step.pass_name()})"
        for fact in sorted(step.needs - facts):
            raise RecipeError(f"{place} needs {fact!r}", remedy=_supply(passes, index, fact))
        for fact in sorted(step.forbids & facts):
            raise RecipeError(
                f"{place} may not stand where {fact!r} holds", remedy=_remove(passes, index, fact)
            )
        facts = (facts - step.drops) | step.adds


def _supply(passes: Sequence[Pass], index: int, fact: str) -> str:
    """Say which pass must come before ``passes[index]`` so that ``fact`` holds there."""
    step = passes[index].pass_name()
    later = [other.pass_name() for other in passes[index + 1 :] if fact in other.adds]
    if later:
        return f"Move {later[0]} before {step}."
    ended = [other.pass_name() for other in passes[:index] if fact in other.drops]
    if ended and any(fact in other.adds for other in passes[:index]):
        return f"Move {step} before {ended[-1]}, after which it holds no more."
    adding = [name for name, cls in pass_classes().items() if fact in cls.adds]
    return f"Put {_or(adding)} before {step}." if adding else "No pass provides it."


def _remove(passes: Sequence[Pass], index: int, fact: str) -> str:
    """Say which pass must come before ``passes[index]`` so that ``fact`` holds no more."""
    step = passes[index].pass_name()
    later = [other.pass_name() for other in passes[index + 1 :] if fact in other.drops]
    if later:
        return f"Move {later[0]} before {step}."
    dropping = [name for name, cls in pass_classes().items() if fact in cls.drops]
    if dropping:
        return f"Put {_or(dropping)} before {step}."
    adding = [other.pass_name() for other in passes[:index] if fact in other.adds]
    return f"Move {step} before {_or(adding)}, which brings it about."


def _or(names: Sequence[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last
