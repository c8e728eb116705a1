"""Budgets of the device: a broken one fails the gate and names the place and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from senders import run
from ship_nets import Shipped

from prunec.catalogue import exporter
from prunec.deploy import timing
from prunec.deploy.checks import Check
from prunec.deploy.checks.limits import check_milliseconds
from prunec.deploy.exporter import Exporter, Source
from prunec.deploy.operator_sets import operator_set
from prunec.deploy.runner import Identity
from prunec.errors import PassError
from prunec.exporters.to_onnx import ToOnnx
from prunec.pipeline.budgets import check_device, require_judgeable
from prunec.pipeline.opened_recipe import OpenedRecipe
from prunec.recipe import load_recipe
from prunec.recipe.schema import OPERATOR_SETS, Budget

CODE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
                         nn.Linear(64, 3))
"""
RECIPE = """
name = "tight"
[model]
name = "a_tight_network:build"
input = ["1x12x12"]
[data]
name = "none"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
"""
TIGHT = """
macs = 10
params = 10
bytes = { onnx = 10, int8 = 1 }
activation_bytes = 10
resident_bytes = 10
operators = "ort-mobile"
[verify.budget.latency_ms]
onnxruntime = 1e-9
"""


def checks_of(budget: Budget, path: Path) -> dict[str, Check]:
    checks, untold = check_device(budget, ToOnnx(), path, None)
    assert not untold
    return {check.name: check for check in checks}


@pytest.mark.slow
def test_a_broken_budget_fails_in_json_and_junit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(timing, "_SECONDS", 0.2)
    Path("a_tight_network.py").write_text(CODE)
    Path("tight.toml").write_text(RECIPE + TIGHT)
    told = run("export", "tight.toml", "--json", "--junit", "j.xml")
    assert told.exit_code == 2, told.output
    checks = {c["name"]: c for c in json.loads(told.stdout)["forms"]["onnx"]["checks"]}
    places = {
        "budget: MACs": "Most are in 0 (",
        "budget: parameters": "4 (192), 0 (36)",
        "budget: bytes": "the file of onnx has",
        "budget: activation memory": "Cut channels there",
        "budget: resident memory": "when it is loaded",
        "budget: latency on onnxruntime": "rounds lie within",
        "budget: operators": "has no HardSwish at",
    }
    failures = {
        case.get("name"): case.find("failure").get("message")  # type: ignore[union-attr]
        for case in ElementTree.parse("j.xml").getroot().iter("testcase")
        if case.find("failure") is not None
    }
    assert set(failures) == set(places)
    for name, place in places.items():
        assert not checks[name]["passed"]
        assert place in checks[name]["message"], checks[name]
        assert "prunec train RECIPE --set verify.budget." in checks[name]["message"]
        assert failures[name] == checks[name]["message"]
    assert not Path("runs/tight-001/export/onnx/model.onnx").exists()


@pytest.mark.slow
def test_a_form_is_timed_beside_the_dense_network_under_its_own_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ncnn opens no ONNX file: the dense network is converted too, and a changed one is seen."""
    for package in ("ncnn", "pnnx"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(timing, "_SECONDS", 0.2)
    code = CODE.replace("AdaptiveAvgPool2d(4)", "AvgPool2d(2)").replace("64", "100")
    # Something is cut: otherwise the file itself is the dense network's.
    zeros = "net[0].weight.data[0] = net[0].bias.data[0] = 0\n    return net\n"
    code = code.replace("return nn.Seq", "net = nn.Seq") + f"    {zeros}"
    Path("a_lean_network.py").write_text(code)
    recipe = RECIPE.replace("latency_ratio = false", "latency_ratio = 50")
    Path("tight.toml").write_text(recipe.replace("a_tight_network", "a_lean_network"))
    told = run("export", "tight.toml", "--ncnn", "--json")
    assert told.exit_code == 0, told.output
    names = [c["name"] for c in json.loads(told.stdout)["forms"]["ncnn"]["checks"]]
    assert "budget: latency / dense" in names
    twin = Path("runs/tight-001/export/ncnn/dense/model.bin")
    report = json.loads(Path("runs/tight-001/export/report.json").read_text())
    assert report["forms"]["ncnn"]["details"]["dense bytes"] > twin.stat().st_size
    twin.write_bytes(twin.read_bytes()[:-4] + b"\0\0\0?")
    again = json.loads(run("verify", "tight-001", "--json").stdout)["forms"]["ncnn"]["checks"]
    assert [c["name"] for c in again if not c["passed"]] == ["manifest"]
    cls = exporter("to-ncnn")
    write = cls.write

    def cut_alone(self: Exporter, source: Source, path: Path) -> None:
        if "dense" in path.parts:
            raise PassError("it has an operator of its own")
        write(self, source, path)

    monkeypatch.setattr(cls, "write", cut_alone)
    told = run("export", "tight-001", "--ncnn", "--json")
    reasons = json.loads(told.stdout)["forms"]["ncnn"]["details"]["not checked"]
    assert (
        "latency against dense: the dense network has no such file: it has an operator of its own"
        in reasons
    )


def test_budgets_that_are_kept_pass_and_none_is_measured_unasked(shipped: Shipped) -> None:
    assert checks_of(Budget(), shipped.path) == {}
    wide = Budget(activation_bytes={"onnx": 10**9}, latency_ms={"onnxruntime": 1e6})
    checks = checks_of(wide, shipped.path)
    assert all(check.passed for check in checks.values()), checks
    assert checks["budget: activation memory"].found == (8 + 8) * 16 * 16 * 4
    unfolded = checks_of(Budget(operators="ort-mobile"), shipped.path)["budget: operators"]
    assert unfolded.found == "BatchNormalization"
    of_another = Budget(activation_bytes={"int8": 1}, resident_bytes={"int8": 1}, bytes={"int8": 1})
    assert checks_of(of_another, shipped.path) == {}


def test_resident_memory_is_that_of_a_process_of_its_own(shipped: Shipped) -> None:
    check = checks_of(Budget(resident_bytes=1), shipped.path)["budget: resident memory"]
    assert 10_000 < int(str(check.found)) < 200_000_000


def test_a_runner_that_is_not_there_fails_and_one_of_other_files_is_reported(
    shipped: Shipped,
) -> None:
    checks, untold = check_device(
        Budget(latency_ms={"onnxruntim": 1.0}), ToOnnx(), shipped.path, None
    )
    assert not checks[0].passed
    assert "Did you mean 'onnxruntime'?" in checks[0].message
    openvino = shipped.path.with_suffix(".xml")
    _, untold = check_device(Budget(operators="xnnpack"), ToOnnx(), openvino, None)
    assert untold == ["operators of xnnpack: they are not those of .xml files"]


@pytest.mark.parametrize(
    ("stated", "forms", "told"),
    [
        ('"ort-mobile"', ["--fp16", "--ort"], ""),
        ('"ort-mobile"', ["--openvino"], 'operators = { onnx = "ort-mobile" }'),
        ('"ncnn-vulkan"', ["--ncnn"], 'operators = { ncnn = "ncnn-vulkan" }'),
        ('{ ncnn = "ncnn-vulkan", onnx = "xnnpack" }', ["--ncnn", "--openvino"], ""),
        ('{ ncnn = "ort-mobile" }', ["--ncnn"], "Sets for ncnn files: ncnn-vulkan."),
        ('{ c = "ort-mobile" }', ["--c"], "Sets for c files: none."),
        ('{ nccn = "ort-mobile" }', [], "Did you mean 'ncnn'?"),
        ('{ ncnn = "vulkan" }', [], 'found the text "vulkan"'),
        ('"ort_mobil"', [], "Did you mean 'ort-mobile'?"),
    ],
)
def test_a_set_of_other_operators_is_refused_before_the_export(
    stated: str, forms: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that says nothing of a form's files, unless another form alone is to keep it."""
    for package in ("ncnn", "pnnx", "openvino"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    Path("a_tight_network.py").write_text(CODE)
    Path("tight.toml").write_text(f"{RECIPE}operators = {stated}\n")
    if not told:
        opened = OpenedRecipe(lambda: load_recipe("tight.toml"), "tight.toml")
        names = [form.removeprefix("--") for form in forms]
        require_judgeable(opened, opened.exporters(names))
        return
    ended = run("export", "tight.toml", *forms)
    assert ended.exit_code == 1
    assert "operators" in ended.stderr
    assert told in ended.stderr
    assert not Path("runs").exists()


PARAM = """7767517
4 3
Input in 0 1 a 0=8 1=8 2=3
Convolution conv 1 1 a b 0=4 1=3
ExpandDims wide 1 1 b c
Squeeze narrow 1 1 c d
"""
IR = """<net name="n" version="11"><layers>
<layer id="0" name="in" type="Parameter" version="opset1"/>
<layer id="1" name="branch" type="If" version="opset8"><then_body><layers>
<layer id="0" name="up" type="Interpolate" version="opset11"/>
</layers></then_body></layer>
<layer id="2" name="own" type="Bent" version="extension"/>
</layers></net>
"""


@pytest.mark.parametrize(
    ("form", "target", "text", "lacking"),
    [
        ("ncnn", "ncnn-vulkan", PARAM, "ExpandDims, Squeeze"),
        ("openvino", "openvino-2022", IR, "extension.Bent, opset11.Interpolate"),
    ],
)
def test_operators_of_a_runtimes_own_file_are_judged(
    form: str, target: str, text: str, lacking: str, tmp_path: Path
) -> None:
    pytest.importorskip(form)
    writer = exporter(f"to-{form}")()
    path = tmp_path / f"model{writer.suffix}"
    path.write_text(text)
    checks, untold = check_device(Budget(operators={form: target}), writer, path, None)
    assert (untold, [(c.passed, c.found) for c in checks]) == ([], [(False, lacking)])
    assert check_device(Budget(operators={"onnx": target}), writer, path, None) == ([], [])


@pytest.mark.parametrize(
    ("target", "lacking"),
    [
        ("litert-builtin", "Erf"),
        ("xnnpack", "Erf, Exp (EXP), ReduceMax (REDUCE_MAX)"),
        ("microcontroller", "Erf"),
    ],
)
def test_an_onnx_file_lacks_what_its_conversion_would(
    tmp_path: Path, target: str, lacking: str
) -> None:
    """A cast of a constant is computed by the converter; each target lacks other operators."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4] x) => (float[N, 1] y) <float16[4] half = {1, 2, 3, 4}, float low = {0}> {
          scale = Cast<to = 1>(half)
          a = Mul(x, scale)  b = Clip(a, low)  c = Erf(b)  d = Exp(c)
          y = ReduceMax<axes = [1]>(d)
        }""")
    onnx.save(model, tmp_path / "model.onnx")
    checks, untold = check_device(Budget(operators=target), ToOnnx(), tmp_path / "model.onnx", None)
    assert (untold, [(c.passed, c.found) for c in checks]) == ([], [(False, lacking)])


def test_time_within_its_noise_does_not_fail() -> None:
    identity = Identity("board", "1", "CPU")
    noisy = list(np.linspace(1.0, 3.0, 31))
    assert check_milliseconds(1.9, identity, noisy).passed
    assert check_milliseconds(1.9, identity, [1.5, 2.0]).passed
    assert not check_milliseconds(1.7, identity, [1.5, 2.0]).passed
    slow = check_milliseconds(1.9, identity, [x + 5 for x in noisy])
    assert not slow.passed
    assert "board 1, CPU" in slow.message


def test_operators_of_functions_and_branches_count(tmp_path: Path) -> None:
    body = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        g (float[4] x, bool c) => (float[4] y) {
          h = own.Bent(x)
          y = If(c) <then_branch = t () => (float[4] u) { u = Celu(h) },
                     else_branch = e () => (float[4] v) { v = Neg(h) }>
        }
        <domain: "own", opset_import: ["" : 18]>
        Bent (a) => (b) { b = Mish(a) }""")
    onnx.save(body, tmp_path / "m.onnx")
    missing = operator_set("ort-mobile").missing(ToOnnx().operators(tmp_path / "m.onnx"), ".onnx")
    assert set(missing) == {"Celu", "Mish"}


@pytest.mark.parametrize("name", OPERATOR_SETS)
def test_the_sets_are_of_operators_that_there_are(name: str) -> None:
    actual = operator_set(name)
    assert len(actual.operators) > 30 or set(actual.begins) == {actual.suffix}
    if actual.suffix == ".onnx":
        known = {schema.name for schema in onnx.defs.get_all_schemas()}
        assert {o for o in actual.operators if not o.startswith("com.microsoft.")} <= known
    elif actual.suffix == ".tflite":
        assert actual.operators <= operator_set("litert-builtin").operators


def test_layers_of_the_vulkan_set_run_on_vulkan() -> None:
    ncnn = pytest.importorskip("ncnn")
    for kind in operator_set("ncnn-vulkan").operators:
        assert ncnn.create_layer(kind).support_vulkan, kind
