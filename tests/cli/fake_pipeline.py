"""A pipeline that records what the command line asks of it, and a recipe for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import nn, zeros
from typer.testing import CliRunner

from prunec.artifact import Artifact, Step
from prunec.cli.commands import app
from prunec.cost import Cost, LayerCost
from prunec.deploy.checks import Check
from prunec.deploy.checks.details import Details
from prunec.graph.rewriting.plan import Input
from prunec.inspection.groups import GroupSummary
from prunec.inspection.layers import Layer
from prunec.inspection.network import Inspection

RECIPE = """
name = "small"
[model]
name = "resnet18"
[train]
epochs = 2
[[pass]]
name = "train-dense"
"""


class Prepared(SimpleNamespace):
    """A prepared training, whose settings need not be measured."""

    def measuring(self, **keys: Any) -> Prepared:
        return self


@dataclass(frozen=True)
class FakeReport:
    passed: bool
    checks: tuple[Check, ...] = ()
    details: Details = field(default_factory=Details)

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
        return Prepared(recipe=recipe, resume=False, **keys)

    def prepare_again(self, run: Any, **keys: Any) -> SimpleNamespace:
        return Prepared(recipe=run.recipe, resume=True, **keys)

    def train(self, prepared: SimpleNamespace, run: Any) -> Artifact:
        self._called("train", prepared.recipe, run, **vars(prepared))
        step = Step("train-dense", {}, (), (100, 50), (10, 10), None, 1.5, "", ("90.1 %",))
        return Artifact(module=nn.Identity(), example=(zeros(2, 1),), history=(step,))

    def export(
        self, run: Any, output: Any, forms: Any, *, with_recipe: bool, **keys: Any
    ) -> FakeReport:
        assert with_recipe
        options = keys["options"]
        self._called("export", run, output, forms)
        self.options = options
        return FakeReport(self.passed)

    def verify(self, run: Any, onnx_file: Any, runners: Any) -> FakeReport:
        self._called("verify", run, onnx_file)
        return FakeReport(self.passed)

    def inspect(self, subject: Any, inputs: tuple[Input, ...], *named: Any) -> Inspection:
        self._called("inspect", subject, inputs)
        cost = Cost((LayerCost("stem.0", "conv2d", 1500, 1500, 100, 25),), 110, 35)
        layer = Layer("stem.0", "conv2d", (3, 3), (16, 16), (1500, 1500), (100, 100), 25)
        groups = (
            GroupSummary("stem", 16, 12, ("stem.weight", "head.weight"), "", {"live": 12}),
            GroupSummary("head", 10, 10, ("head.weight",), "output", {"pinned: output": 10}),
        )
        return Inspection("net", inputs, cost, cost, (layer,), groups)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)
