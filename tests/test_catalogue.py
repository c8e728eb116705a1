from __future__ import annotations

import copy
import importlib
import json
import random
import string
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from prunec import catalogue
from prunec.errors import PassError, PrunecError, RecipeError
from prunec.plugins import EXPORTERS
from prunec.recipe import load_recipe, loads, packaged_recipes, packaged_text

SOURCES = {
    "grow_wings": """
        class GrowWings(Training):
            \"\"\"Give it wings.\"\"\"
            adds: ClassVar[frozenset[str]] = frozenset({"winged"})
            forbids: ClassVar[frozenset[str]] = frozenset({"winged"})
            span: Annotated[float, Field(gt=0, le=20)]
            feathers: int = 8
            colours: tuple[str, ...] = ()
            def __post_init__(self):
                if self.span > 9:
                    raise PassError("no wing spans so far", remedy="Take 9.")
                if self.feathers < 0:
                    raise ValueError("cannot have fewer than no feathers")
    """,
    "clip_wings": """
        class ClipWings(Rewrite):
            needs: ClassVar[frozenset[str]] = frozenset({"winged"})
            drops: ClassVar[frozenset[str]] = frozenset({"winged"})
            adds: ClassVar[frozenset[str]] = frozenset({"clipped"})
    """,
    "paint_wings": """
        class PaintWings(Rewrite):
            needs: ClassVar[frozenset[str]] = frozenset({"winged"})
    """,
    "roost": """
        class Roost(Rewrite):
            forbids: ClassVar[frozenset[str]] = frozenset({"winged"})
    """,
    "wait_for_godot": """
        class WaitForGodot(Rewrite):
            needs: ClassVar[frozenset[str]] = frozenset({"godot"})
    """,
    "abstract": "class Abstract(Rewrite): pass",
    "misnamed": "class SomethingElse(Rewrite): pass",
    "unrelated": "class Unrelated: pass",
    "needs_a_library": "import no_such_library",
    "_private": "raise RuntimeError('not a pass')",
}
HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, ClassVar
from pydantic import Field
from prunec.contract import Rewrite, Training
from prunec.errors import PassError
"""
METHODS = """
    def train(self, artifact, context):
        raise NotImplementedError
    rewrite = train
"""
SOUND = ("clip-wings", "grow-wings", "paint-wings", "roost", "wait-for-godot")


@pytest.fixture
def aviary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of passes of which some are broken."""
    name = "aviary" + "".join(random.choices(string.ascii_lowercase, k=8))
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for file, body in SOURCES.items():
        text = textwrap.dedent(body).strip().replace("class ", "@dataclass(frozen=True)\nclass ")
        if file.replace("_", "-") in SOUND:
            text += METHODS
        (folder / f"{file}.py").write_text(f"{HEAD}\n{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "PASSES", name)
    importlib.invalidate_caches()
    return name


def only_sound(folder: str) -> None:
    package = Path(importlib.import_module(folder).__path__[0])
    for file in package.glob("*.py"):
        if file.name != "__init__.py" and file.stem.replace("_", "-") not in SOUND:
            file.unlink()


def recipe(*passes: dict[str, Any]) -> Any:
    tables = "\n".join(
        "[[pass]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for table in passes
    )
    return loads(f'name = "a"\n[model]\nname = "resnet18"\n[train]\nepochs = 2\n{tables}')


def build(*passes: dict[str, Any]) -> Any:
    return catalogue.build_passes(recipe(*passes), "a.toml")


GROW: dict[str, Any] = {"name": "grow-wings", "span": 1}
CLIP = {"name": "clip-wings"}
PAINT = {"name": "paint-wings"}
ROOST = {"name": "roost"}


def test_a_file_is_a_registration(aviary: str) -> None:
    only_sound(aviary)
    assert tuple(catalogue.pass_classes()) == SOUND == catalogue.pass_names()
    assert catalogue.pass_class("grow-wings").__name__ == "GrowWings"


def test_options_arrive_with_their_types(aviary: str) -> None:
    grown, clipped = build({**GROW, "colours": ["red", "blue"]}, CLIP)
    assert (grown.span, grown.feathers, grown.colours) == (1.0, 8, ("red", "blue"))
    assert isinstance(grown.span, float)
    assert clipped.pass_name() == "clip-wings"


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        ({}, "pass[0] (grow-wings).span is missing", "Add 'span'"),
        ({"span": "1"}, 'pass[0] (grow-wings).span must be a number, found the text "1"', ""),
        ({"span": 1, "feathers": 1.5}, "feathers must be a whole number, found the number 1.5", ""),
        ({"span": 1, "feathers": True}, "feathers must be a whole number, found true", ""),
        ({"span": 1, "colours": "red"}, 'colours must be an array, found the text "red"', ""),
        ({"span": 1, "colours": [1]}, "(grow-wings).colours[0] must be a text in quotes", ""),
        ({"span": 1, "feather": 3}, "unknown key pass[0] (grow-wings).feather", "'feathers'"),
        ({"span": 1, "pass_name": 3}, "unknown key pass[0] (grow-wings).pass_name", "Known keys"),
        ({"span": 1, "feathers": -1}, "cannot have fewer than no feathers", ""),
        ({"span": 0}, "must be greater than 0", "a number that is greater than 0 and at most 20."),
        ({"span": 10}, "pass[0] (grow-wings): no wing spans so far", "Take 9."),
    ],
)
def test_a_wrong_option_is_named(
    aviary: str, options: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        build({"name": "grow-wings", **options})
    assert caught.value.message.startswith("a.toml: ")
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_the_ranges_of_every_pass_can_be_told() -> None:
    for cls in catalogue.pass_classes().values():
        assert TypeAdapter(cls).json_schema()["type"] == "object"


def test_an_option_of_a_pass_without_options_is_refused(aviary: str) -> None:
    with pytest.raises(RecipeError, match="takes no options"):
        build(GROW, {**CLIP, "x": 1})


@pytest.mark.parametrize("name", ["grow-wing", "grow_wings", "GrowWings", "../roost", "-private"])
def test_an_unknown_pass_lists_the_nearest(aviary: str, name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(GROW, {"name": name})
    assert f"a.toml: pass[1]: there is no pass {name!r}" in caught.value.message
    assert "clip-wings, grow-wings" in caught.value.remedy


def test_the_nearest_name_is_offered(aviary: str) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'grow-wings'"):
        build({"name": "grow_wings"})


@pytest.mark.parametrize(
    ("passes", "message", "remedy"),
    [
        ([CLIP], "pass[0] (clip-wings) needs 'winged'", "Put grow-wings before clip-wings."),
        ([CLIP, GROW], "pass[0] (clip-wings) needs 'winged'", "Move grow-wings before clip-wings."),
        ([GROW, CLIP, PAINT], "pass[2] (paint-wings) needs", "Move paint-wings before clip-wings"),
        (
            [GROW, ROOST],
            "pass[1] (roost) may not run on a network that is 'winged'",
            "Put clip-wings before",
        ),
        ([GROW, ROOST, CLIP], "pass[1] (roost) may not run", "Move clip-wings before roost."),
        ([{"name": "wait-for-godot"}], "needs 'godot'", "No pass provides it."),
    ],
)
def test_an_impossible_order_says_what_to_move(
    aviary: str, passes: list[dict[str, Any]], message: str, remedy: str
) -> None:
    only_sound(aviary)
    with pytest.raises(RecipeError) as caught:
        build(*passes)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("passes", [[ROOST], [GROW, PAINT, CLIP, ROOST], [GROW, CLIP, GROW]])
def test_facts_and_nothing_else_decide_the_order(aviary: str, passes: list[dict[str, Any]]) -> None:
    assert len(build(*passes)) == len(passes)


@pytest.mark.parametrize("name", ["abstract", "misnamed", "unrelated", "needs-a-library"])
def test_a_broken_plug_in_is_an_error_of_ours(aviary: str, name: str) -> None:
    with pytest.raises(PassError, match=name):
        catalogue.pass_class(name)


def test_an_unknown_exporter_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match="there is no exporter 'to-tape'"):
        catalogue.exporter("to-tape")


def exporters(*tables: dict[str, Any], forms: tuple[str, ...] = ()) -> Any:
    named = recipe(ROOST).model_copy(update={"exports": tables})
    return catalogue.build_exporters(named, "a.toml", forms)


ONNX = {"name": "to-onnx"}
SMALL = """
from dataclasses import dataclass
from typing import ClassVar
from prunec.deploy.exporter import Exact
from prunec.deploy.written import Written

@dataclass(frozen=True)
class ToSmall(Exact):
    suffix: ClassVar[str] = ".small"
    reads: ClassVar[str] = "onnx"

    def write(self, source, path):
        raise NotImplementedError

    def read_back(self, path):
        return Written()
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporters, and one that reads another's file."""
    (tmp_path / "to_small.py").write_text(SMALL)
    package = importlib.import_module(EXPORTERS)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()


def test_an_exporter_is_a_file_with_options(workshop: None) -> None:
    assert {"to-onnx", "to-int8", "to-small"} <= set(catalogue.exporter_names())
    first, second = exporters({**ONNX, "opset": 20}, forms=("onnx", "small"))
    assert (first.form(), first.opset, second.form()) == ("onnx", 20, "small")


def test_a_form_brings_those_that_it_is_made_from() -> None:
    """In their order, whichever is asked for first."""
    for forms in (("c-int8",), ("c-int8", "int8"), ("onnx", "c-int8")):
        assert [made.form() for made in exporters(ONNX, forms=forms)] == ["onnx", "int8", "c-int8"]


@pytest.mark.parametrize(
    ("tables", "message", "remedy"),
    [
        ([{**ONNX, "opset": 99}], "export[0] (to-onnx).opset must be at most 25", "at least 9"),
        ([{**ONNX, "opsett": 19}], "unknown key export[0] (to-onnx).opsett", "'opset'"),
        ([ONNX, ONNX], "export[1] (to-onnx) is named twice", "Leave one"),
        ([ONNX, {"name": "to-onxn"}], "export[1]: there is no exporter 'to-onxn'", "'to-onnx'"),
        ([{"name": "to-small"}, ONNX], "export[0] (to-small) reads the onnx file", "to-onnx"),
    ],
)
def test_a_wrong_export_is_named(
    workshop: None, tables: list[dict[str, Any]], message: str, remedy: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        exporters(*tables)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_the_table_of_earlier_runs_is_one_exporter() -> None:
    text = 'name = "a"\n[model]\nname = "x"\n[train]\nepochs = 2\n[[pass]]\nname = "roost"\n'
    old = loads(f'{text}[export]\nformat = "onnx"\nopset = 19')
    assert old.exports == ({"name": "to-onnx", "opset": 19},)
    assert old == loads(f'{text}[[export]]\nname = "to-onnx"\nopset = 19')
    assert loads(text).exports == ({"name": "to-onnx"},)
    with pytest.raises(RecipeError, match="unknown key"):
        catalogue.build_exporters(loads(f'{text}[export]\nformat = "tflite"'), "a.toml")


def test_a_runner_is_a_file() -> None:
    assert "onnxruntime" in catalogue.runner_names()
    assert catalogue.runner_for(".onnx").runner_name() == "onnxruntime"
    with pytest.raises(RecipeError, match="there is no runner 'abacus'"):
        catalogue.runner("abacus")
    with pytest.raises(RecipeError, match=r"no installed runner opens \.tape files"):
        catalogue.runner_for(".tape")


@pytest.mark.parametrize("name", packaged_recipes())
def test_the_passes_of_a_packaged_recipe_build(name: str) -> None:
    packaged = load_recipe(name)
    built = catalogue.build_passes(packaged, name)
    assert [step.pass_name() for step in built] == [table["name"] for table in packaged.passes]
    assert catalogue.build_exporters(packaged, name)


def test_every_pass_says_what_it_does() -> None:
    for name, cls in catalogue.pass_classes().items():
        assert cls.pass_name() == name
        assert cls.__doc__
        assert not cls.__doc__.startswith(f"{cls.__name__}("), name


def test_overridden_options_reach_the_pass() -> None:
    first = catalogue.build_passes(load_recipe("gdp_mbv2", ["pass.train-gdp.macs_ratio=0.4"]), "")[
        0
    ]
    assert getattr(first, "macs_ratio") == 0.4  # noqa: B009


VALUES = [0, -1, 1, 2**80, 0.5, -0.0, True, "", "gdp", "\0", [], [1, "a"], {}, {"name": "x"}, [{}]]


def nodes(node: Any) -> list[tuple[Any, Any]]:
    inner = list(node.items()) if isinstance(node, dict) else []
    inner = list(enumerate(node)) if isinstance(node, list) else inner
    return [(node, key) for key, _ in inner] + [pair for _, item in inner for pair in nodes(item)]


def toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def never_a_traceback(text: str) -> None:
    try:
        mutant = loads(text, "mutant.toml")
        catalogue.build_passes(mutant, "mutant.toml")
        catalogue.build_exporters(mutant, "mutant.toml")
    except PrunecError as error:
        assert str(error).strip()  # noqa: PT017 — raising is allowed, not demanded


mutations = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])


@given(st.sampled_from(packaged_recipes()), st.randoms(use_true_random=False), st.integers(1, 4))
@mutations
def test_mutated_recipes_never_give_a_traceback(name: str, rng: random.Random, times: int) -> None:
    document = tomllib.loads(packaged_text(name))
    for _ in range(times):
        places = nodes(document)
        if not places:
            break
        node, key = rng.choice(places)
        match rng.randrange(4):
            case 0 if isinstance(node, dict):
                node[rng.choice([f"{key}s", str(key)[1:], "name", "é", ""])] = node.pop(key)
            case 1:
                del node[key]
            case 2 if isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            case _:
                node[key] = copy.deepcopy(rng.choice(VALUES))  # it may be changed, too
    never_a_traceback(
        "\n".join(f"{json.dumps(key)} = {toml(item)}" for key, item in document.items())
    )


@given(st.sampled_from(packaged_recipes()), st.randoms(use_true_random=False), st.integers(1, 6))
@mutations
def test_corrupted_text_never_gives_a_traceback(name: str, rng: random.Random, times: int) -> None:
    text = packaged_text(name)
    for _ in range(times):
        at, length = rng.randrange(len(text) + 1), rng.choice([0, 1, 1, 1, 5, 40])
        new = rng.choice(["", "", "0", "-", '"', "[", "]", "=", "\n", ".", "\0", "e9", "name"])
        text = text[:at] + new + text[at + length :]
    never_a_traceback(text)
