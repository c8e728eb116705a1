from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
from torch import nn, zeros
from typer.testing import CliRunner

import prunec
from prunec.artifact import Artifact, Step
from prunec.cli.commands import app
from prunec.cli.starter import DATA
from prunec.cost import Cost, LayerCost
from prunec.errors import Diverged, ParityError
from prunec.graph.rewriting.plan import Input
from prunec.inspection.groups import GroupSummary
from prunec.inspection.layers import Layer
from prunec.inspection.network import Inspection
from prunec.recipe import DataName, load_recipe, loads, packaged_recipes, packaged_text
from prunec.store.runs import RunFolder, latest_run

RECIPE = """
name = "small"
[model]
name = "resnet18"
[train]
epochs = 2
[[pass]]
name = "train-dense"
"""


@dataclass(frozen=True)
class FakeReport:
    passed: bool

    @property
    def forms(self) -> dict[str, FakeReport]:
        return {"onnx": self}

    def to_json(self) -> str:
        return json.dumps({"passed": self.passed})


class FakePipeline(ModuleType):
    """Stands in for prunec.pipeline: records calls, raises what it is told to."""

    def __init__(self) -> None:
        super().__init__("prunec.pipeline")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.passed = True

    def _called(self, name: str, *args: Any, **keys: Any) -> None:
        self.calls.append((name, args, keys))
        if self.error:
            raise self.error

    def prepare(self, recipe: Any, source: str, **keys: Any) -> SimpleNamespace:
        return SimpleNamespace(recipe=recipe, resume=False, **keys)

    def prepare_again(self, run: Any, **keys: Any) -> SimpleNamespace:
        return SimpleNamespace(recipe=run.recipe, resume=True, **keys)

    def train(self, prepared: SimpleNamespace, run: Any) -> Artifact:
        self._called("train", prepared.recipe, run, **vars(prepared))
        step = Step("train-dense", {}, (), (100, 50), (10, 10), None, 1.5, "", ("90.1 %",))
        return Artifact(module=nn.Identity(), example=(zeros(2, 1),), history=(step,))

    def export(self, run: Any, output: Any, forms: Any, *, options: Any) -> FakeReport:
        self._called("export", run, output, forms)
        self.options = options
        return FakeReport(self.passed)

    def verify(self, run: Any, onnx_file: Any) -> FakeReport:
        self._called("verify", run, onnx_file)
        return FakeReport(self.passed)

    def bench(self, run: Any) -> str:
        self._called("bench", run)
        return "dense 2 ms, shipped 1 ms"

    def inspect(self, subject: Any, inputs: tuple[Input, ...], *named: Any) -> Inspection:
        self._called("inspect", subject, inputs)
        cost = Cost((LayerCost("stem.0", "conv2d", 1500, 1500, 100, 25),), 110, 35)
        layer = Layer("stem.0", "conv2d", (3, 3), (16, 16), (1500, 1500), (100, 100), 25)
        groups = (
            GroupSummary("stem", 16, 12, ("stem.weight", "head.weight"), "", {"live": 12}),
            GroupSummary("head", 10, 10, ("head.weight",), "output", {"pinned: output": 10}),
        )
        return Inspection("net", inputs, cost, cost, (layer,), groups)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    import_module("prunec.page")  # with the true prunec.deploy.checks
    fake = FakePipeline()
    progress: Any = ModuleType("prunec.training.progress")
    progress.make_progress = lambda console: SimpleNamespace(console=console)
    verify: Any = ModuleType("prunec.deploy.checks")
    verify.render = lambda report, console, title: console.print(f"passed: {report.passed}")
    for name, module in {
        "pipeline": fake,
        "training.progress": progress,
        "deploy.checks": verify,
    }.items():
        monkeypatch.setitem(sys.modules, f"prunec.{name}", module)
    monkeypatch.setattr(prunec, "pipeline", fake, raising=False)
    monkeypatch.setattr("prunec.cli.selection.self_contained", lambda recipe, source: recipe)
    monkeypatch.setattr("prunec.cli.selection.trains", lambda recipe, source: True)
    return fake


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys\nfrom prunec.cli.commands import app\nfor line in sys.argv[1:]:\n"
        "    try: app(line.split())\n    except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'tomlkit', 'rich', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    lines = ["--help", "train --help", "recipes --help", "--version"]
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("train", "export", "verify", "bench", "inspect", "passes", "recipes", "init"):
        assert word in done.stdout


def test_waiting_threads_sleep_unless_the_user_says_otherwise() -> None:
    code = "import os, prunec.cli.commands; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**kept, **given}
        )
        assert done.stdout.strip() == expected


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prunec", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("prunec 0.")


@pytest.mark.parametrize(
    ("words", "index", "expected", "absent"),
    [
        ("prunec train gdp_res", 2, "gdp_resnet20", "gdp_mbv2"),
        ("prunec train sm", 2, "small.toml", "gdp_mbv2"),
        ("prunec recipes show gdp_m", 3, "gdp_mbv2_imagenet", "gdp_resnet20"),
        ("prunec init resnet18 ima", 3, "imagefolder", "cifar10"),
        ("prunec ve", 1, "verify", "train"),
        ("prunec inspect resnet1", 2, "resnet18", "resnet50"),
        ("prunec train gdp_mbv2 --set train.e", 4, "train.epochs=", "train.batch_size"),
        ("prunec train gdp_mbv2 --set pass.", 4, "pass.train-gdp.macs_ratio=", "train.epochs"),
        ("prunec init resnet18 sm", 3, "small/", "small.toml"),
        ("prunec init resnet18 embedded --method ri", 5, "rigl", "gdp"),
        ("prunec passes show train-g", 3, "train-gdp", "train-str"),
    ],
)
def test_the_shell_completes(words: str, index: int, expected: str, absent: str) -> None:
    Path("small").mkdir()
    environment = {
        **os.environ,
        "_PRUNEC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(index),
    }
    code = "from prunec.cli.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert expected in done.stdout
    assert absent not in done.stdout


def test_train_makes_a_run_and_says_what_comes_next(pipeline: FakePipeline) -> None:
    result = run("train", "small.toml", "--set", "train.epochs=3", "--device", "cpu")
    assert result.exit_code == 0, result.output
    made = latest_run(Path("runs"))
    assert made.path == Path("runs/small-001")
    [(_, (recipe, given), keys)] = pipeline.calls
    assert recipe == made.recipe
    assert recipe.train.epochs == 3
    assert given == made
    assert keys["device"] == "cpu"
    assert keys["resume"] is False
    assert made.status == "trained"
    assert "runs/small-001" in result.stdout
    assert "prunec export --onnx" in result.stdout
    assert "100 → 50 (50.0 %)" in result.stdout


def test_the_device_is_the_recipes_unless_named(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    run("train", "small.toml", "--set", "device=cuda")
    assert [keys["device"] for _, _, keys in pipeline.calls] == ["auto", "cuda"]
    assert run("train", "small.toml", "--device", "tpu").exit_code == 2


def test_runs_lie_where_option_or_variable_say(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "small.toml", "--runs", "a/b").exit_code == 0
    monkeypatch.setenv("PRUNEC_RUNS", "c")
    assert run("train", "small.toml").exit_code == 0
    assert Path("a/b/small-001/run.json").is_file()
    assert Path("c/small-001/run.json").is_file()


def test_ctrl_c_leaves_a_run_that_continues(pipeline: FakePipeline) -> None:
    pipeline.error = KeyboardInterrupt()
    stopped = run("train", "small.toml")
    assert stopped.exit_code == 130
    assert "prunec train --resume runs/small-001" in stopped.stderr
    assert "Traceback" not in stopped.output
    assert latest_run(Path("runs")).status == "interrupted"
    pipeline.error = None
    for again in (["runs/small-001"], [], ["small"], ["small.toml"]):
        RunFolder(Path("runs/small-001")).mark("interrupted")
        assert run("train", "--resume", *again).exit_code == 0
        assert pipeline.calls[-1][2]["resume"] is True
        assert pipeline.calls[-1][1][1].path.name == "small-001"


def test_ctrl_c_elsewhere_ends_without_a_traceback(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    pipeline.error = KeyboardInterrupt()
    result = run("export")
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"


def test_a_failed_training_is_marked_and_explained(pipeline: FakePipeline) -> None:
    pipeline.error = Diverged("the loss is nan at epoch 1", remedy="Lower train.learning_rate.")
    result = run("train", "small.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: the loss is nan at epoch 1\nremedy: Lower train.learning_rate.\n"
    )
    assert latest_run(Path("runs")).status == "failed"


def test_a_wrong_recipe_leaves_no_run(folder: Path) -> None:
    (folder / "small.toml").write_text(RECIPE.replace("train-dense", "train-densely"))
    result = run("train", "small.toml")
    assert result.exit_code == 1
    assert "there is no pass 'train-densely'" in result.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("arguments", [["export"], ["export", "--onnx", "small-001"]])
def test_export_takes_the_latest_run_or_one(pipeline: FakePipeline, arguments: list[str]) -> None:
    run("train", "small.toml")
    result = run(*arguments, "-o", "out.onnx")
    assert result.exit_code == 0, result.output
    assert "passed: True" in result.stdout
    name, (given, output, forms), _ = pipeline.calls[-1]
    assert (name, given.path.name, output) == ("export", "small-001", Path("out.onnx"))
    assert pipeline.options == {}
    assert run("export", "small-001", "--opset", "13", "--ir-version", "7").exit_code == 0
    assert pipeline.options == {"onnx": {"opset": 13, "ir_version": 7}}
    assert forms == (("onnx",) if "--onnx" in arguments else ())


def test_a_failed_gate_exits_with_two(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    pipeline.passed = False
    assert run("export").exit_code == 2
    assert run("verify").exit_code == 2
    spoiled = run("verify", "--json", "--onnx", "spoiled.onnx")
    assert spoiled.exit_code == 2
    assert json.loads(spoiled.stdout) == {"passed": False}
    assert pipeline.calls[-1][1][1] == Path("spoiled.onnx")
    pipeline.error = ParityError("not equal")
    assert run("verify").exit_code == 2


def test_bench_prints_what_it_measured(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    assert "shipped 1 ms" in run("bench").stdout


def test_inspect_shows_layers_and_groups(pipeline: FakePipeline) -> None:
    result = run("inspect", "resnet18")
    assert result.exit_code == 0, result.output
    assert pipeline.calls[-1][1] == ("resnet18", ())
    for text in ("stem.0", "1,500", "100.0 %", "75.0 %", "12/16", "stem, head", "pinned: output"):
        assert text in result.stdout
    seen = json.loads(run("inspect", "resnet18", "--json").stdout)
    assert seen["cost"]["layers"][0]["macs"] == seen["cost"]["macs"] == 1500
    assert seen["groups"][1]["pinned"] == "output"
    assert seen["refusals"] == {"output": 10}


def test_inspect_takes_inputs_by_their_sizes(pipeline: FakePipeline) -> None:
    assert run("inspect", "net", "--input", "1x28x28", "--input", "16:int64").exit_code == 0
    assert pipeline.calls[-1][1][1] == (Input((2, 1, 28, 28), "float32"), Input((2, 16), "int64"))
    for wrong in ("1x", "0x3", "3x3:float33", "3x3:nn", ""):
        result = run("inspect", "net", "--input", wrong)
        assert result.exit_code == 1
        assert "is no input" in result.stderr
        assert "3x224x224" in result.stderr


def test_inspect_prefers_a_run(pipeline: FakePipeline) -> None:
    run("train", "small.toml")
    for arguments in ([], ["small-001"], ["runs/small-001"], ["small"]):
        assert run("inspect", *arguments).exit_code == 0
        assert pipeline.calls[-1][1][0].path.name == "small-001"


def test_passes_are_listed_from_their_classes() -> None:
    from prunec.catalogue import pass_classes

    result = run("passes")
    assert result.exit_code == 0
    for name, cls in pass_classes().items():
        assert name in result.stdout
        shown = run("passes", "show", name)
        assert shown.exit_code == 0, shown.output
        assert all(fact in shown.stdout for fact in cls.needs | cls.adds)


def test_recipes_are_listed_and_shown() -> None:
    listed = run("recipes")
    assert listed.exit_code == 0, listed.output
    assert all(name in listed.stdout for name in packaged_recipes())
    assert run("recipes", "show", "gdp_mbv2.toml").stdout == packaged_text("gdp_mbv2")
    assert "train" in json.loads(run("recipes", "schema").stdout)["properties"]
    unknown = run("recipes", "show", "gdp_mbv")
    assert unknown.exit_code == 1
    assert "Did you mean 'gdp_mbv2'?" in unknown.stderr


CHANNELS = {
    "embedded": 1, "fashion-mnist": 1, "embedded-segmentation": 1,
    "har": 9, "speech-commands": 32, "speech-commands-12": 32,
}  # fmt: skip


@pytest.mark.parametrize("data", DATA)
def test_init_writes_a_recipe_that_loads(data: str) -> None:
    pytest.importorskip("prunec.models.building")
    result = run("init", "resnet18", data)
    assert result.exit_code == 0, result.output
    path = Path(f"resnet18_{data.replace('-', '_')}.toml")
    recipe = load_recipe(str(path))
    assert recipe.name == path.stem
    assert (recipe.model.name, recipe.data.name) == ("resnet18", data)
    channels = CHANNELS.get(data, 3)
    edits = [{"in_channels": channels}] if channels != 3 else []
    assert [dict(edit.set) for edit in recipe.model.edit] == edits
    assert path.read_text().count("#") > 15


def test_init_knows_every_data_set() -> None:
    assert set(DATA) == set(get_args(DataName)) - {"none"}


def test_init_overwrites_nothing() -> None:
    before = Path("small.toml").read_text()
    result = run("init", "resnet18", "embedded", "-o", "small.toml")
    assert result.exit_code == 1
    assert "small.toml exists already" in result.stderr
    assert Path("small.toml").read_text() == before


def test_init_names_the_nearest_data_set() -> None:
    result = run("init", "resnet18", "cifar")
    assert result.exit_code == 1
    assert "Did you mean 'cifar10'?" in result.stderr


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "can be written")]
)
def test_a_full_or_read_only_disk_is_explained(
    pipeline: FakePipeline, number: int, text: str
) -> None:
    run("train", "small.toml")
    pipeline.error = OSError(number, os.strerror(number), "/mnt/model.onnx")
    result = run("export")
    assert result.exit_code == 1
    assert f"/mnt/model.onnx: {os.strerror(number).lower()}" in result.stderr
    assert text in result.stderr


def test_the_terminal_gets_lines_that_can_be_copied_without_markup(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipeline.error = Diverged("pass[0] is [red]", remedy="Mend it.")
    result = run("train", "small.toml")
    assert "│" not in result.stderr
    assert "pass[0] is [red]" in result.stderr
    assert "Mend it." in result.stderr


def test_a_recipe_of_a_run_is_the_one_that_ran(pipeline: FakePipeline) -> None:
    run("train", "small.toml", "--set", "seed=7")
    text = Path("runs/small-001/recipe.toml").read_text()
    assert loads(text).seed == 7
