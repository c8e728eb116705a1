"""Bundles: the same bytes, a package that onnxruntime opens, checks without prunec, and harm."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime
import pytest
from devices import Beside
from onnx import numpy_helper
from PIL import Image
from senders import exported, run

from prunec.errors import PrunecError, RunError
from prunec.pipeline import elsewhere, opened_bundle, predict, verify_bundle, verify_bundle_on
from prunec.pipeline.bundles.bom import bill
from prunec.pipeline.bundles.elsewhere import checks_of
from prunec.pipeline.bundles.saying import interval
from prunec.store.records import DIGEST, record_digest

CODE = """
from torch import nn

def build(num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(64, num_classes))
"""
RECIPE = """
name = "sent"
[model]
name = "a_bundled_network:build"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
[bundle]
release = "1.4"
replaces = "1.2"
licence = "Apache-2.0"
intended_use = "clothes"
"""


BESIDES = ("--bom", "--golden-layers")


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its bundle as a zip, and what JUnit reads."""
    root = tmp_path_factory.mktemp("sender")
    wishes = ("--bundle", "b.zip", *BESIDES, "--junit", "j.xml", "--json")
    result = exported(root, "a_bundled_network", CODE, RECIPE, *wishes)
    (root / "out.json").write_text(result.stdout)
    return root


@pytest.fixture
def folder(sent: Path, tmp_path: Path) -> Path:
    """The bundle as a folder."""
    with zipfile.ZipFile(sent / "b.zip") as archive:
        archive.extractall(tmp_path / "b")
    return tmp_path / "b"


def said(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return dict(manifest["additional_metadata"]["prunec"])


def seal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and make all digests in it fit, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    ours = manifest["additional_metadata"]["prunec"]
    change(ours)
    model = (folder / "onnx/model.onnx").read_bytes()
    ours["forms"]["onnx"]["sha256"] = hashlib.sha256(model).hexdigest()
    (folder / "bom.cdx.json").write_bytes(bill(ours))
    for name in ours["files"]:
        data = (folder / name).read_bytes()
        ours["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ours[DIGEST] = record_digest(ours)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.slow
def test_the_verdict_is_json_and_junit(sent: Path) -> None:
    told = json.loads((sent / "out.json").read_text())
    assert told["passed"] is True
    suites = ElementTree.parse(sent / "j.xml").getroot()
    checks = told["forms"]["onnx"]["checks"]
    cases = [case.get("name") for case in suites.iter("testcase")]
    assert cases[: len(checks)] == [check["name"] for check in checks]
    assert suites.get("failures") == "0"


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sent)
    monkeypatch.syspath_prepend(str(sent))
    assert run("export", "sent-001", "--bundle", "again.zip", *BESIDES).exit_code == 0
    assert (sent / "again.zip").read_bytes() == (sent / "b.zip").read_bytes()
    assert run("export", "sent-001", "--bundle", "runs").exit_code == 1


def test_onnxruntime_opens_the_package(folder: Path) -> None:
    package = onnxruntime.ModelPackage.open(str(folder))
    (component,) = package.get_info()["components"]
    assert component["name"] == "onnx"
    context = onnxruntime.ModelPackageContext(str(folder))
    options = onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    session = context.select_component("onnx", options).create_session()
    inputs, expected = (np.load(folder / f"golden/{kind}_0.npy") for kind in ("input", "output"))
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_the_manifest_says_what_ships(folder: Path) -> None:
    told = said(folder)
    assert (told["release"], told["replaces"], told["licence"]) == ("1.4", "1.2", "Apache-2.0")
    form = told["forms"]["onnx"]
    (accuracy,) = form["metrics"]
    low, high = accuracy["interval_95"]
    assert accuracy["samples"] == 2000
    assert low < accuracy["percent"] < high
    model = onnx.load(folder / form["file"])
    assert form["opset"]["ai.onnx"] == model.opset_import[0].version
    assert form["ir_version"] == model.ir_version
    assert len(told["feeding"]["labels"]) == 10
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["prunec.feeding"]) == told["feeding"]
    assert "/" not in json.dumps(told["parent"])


def test_wilsons_interval_is_the_published_one() -> None:
    """81 of 263: Newcombe (1998) gives 0.2553 to 0.3662."""
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_the_script_needs_no_more_than_numpy_and_a_runtime(folder: Path, tmp_path: Path) -> None:
    source = (folder / "check.py").read_text("utf-8")
    imported = {
        name.partition(".")[0]
        for node in ast.parse(source).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    command = [sys.executable, "-I", str(folder / "check.py"), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "PASS"
    timed = told["forms"][0]["milliseconds"]
    assert 0 < timed["median"] <= timed["p95"]


def test_a_folder_and_a_zip_are_verified(sent: Path, folder: Path) -> None:
    for path in (sent / "b.zip", folder):
        report = verify_bundle(path)
        assert report.passed, report.merged()
        assert {*report.forms} == {"bundle", "onnx"}
    result = run("verify", folder, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["passed"] is True


def test_images_are_answered_from_every_place(
    sent: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    places = [sent / "b.zip", folder, folder / "onnx/model.onnx", sent / "runs/sent-001"]
    actual = [predict(place, [tmp_path / "a.png"])[0] for place in places]
    assert all(answer == actual[0] for answer in actual)
    session = onnxruntime.InferenceSession(str(folder / "onnx/model.onnx"))
    given = ((pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.5))[None, None]
    scores = session.run(None, {"input": given.astype(np.float32)})[0][0]
    assert actual[0].best[0][0] == said(folder)["feeding"]["labels"][int(scores.argmax())]
    assert actual[0].remark == ""
    told = run("predict", folder, tmp_path / "a.png", "--json")
    assert len(json.loads(told.stdout)[0]["best"]) == 5
    wrong = run("predict", folder, tmp_path / "none.png")
    assert wrong.exit_code == 1
    assert "none.png" in wrong.output


def test_what_says_nothing_of_its_feeding_is_reported(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "onnx/model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(PrunecError, match="does not describe its inputs"):
        predict(tmp_path / "bare.onnx", [])


# Zips that hold what a bundle may not: what is put in, and a word of the refusal.
HOSTILE = {
    "a parent": ("../evil.txt", 0o100644, "leaves the folder"),
    "a parent inside": ("onnx/../../evil.txt", 0o100644, "leaves the folder"),
    "an absolute name": ("/tmp/evil.txt", 0o100644, "leaves the folder"),
    "a drive": ("C:evil.txt", 0o100644, "a character"),
    "a link": ("onnx/link", 0o120777, "is a link"),
    "a pipe": ("onnx/pipe", 0o010644, "not a regular file"),
    "a folder": ("onnx/more/", 0o040755, "leaves the folder"),
    "a device of Windows": ("onnx/nul.txt", 0o100644, "not a valid name on every system"),
    "another file": ("onnx/more.txt", 0o100644, "does not declare onnx/more.txt"),
    "a name twice": ("onnx/model.onnx", 0o100644, "twice"),
    "nearly a name twice": ("onnx/MODEL.onnx", 0o100644, "twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_entry_is_refused_by_name(sent: Path, tmp_path: Path, case: str) -> None:
    name, mode, word = HOSTILE[case]
    path = tmp_path / "in" / "b.zip"
    path.parent.mkdir()
    shutil.copy(sent / "b.zip", path)
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr, entry.create_system = mode << 16, 3
        doubled = pytest.warns(UserWarning, match="Duplicate")
        with doubled if case == "a name twice" else nullcontext():
            archive.writestr(entry, b"evil")
    report = verify_bundle(path)
    (failure,) = report.forms["bundle"].failures
    assert word in failure.message
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["b.zip", "in"]
    with pytest.raises(PrunecError), opened_bundle(path):
        pass


def _shift(folder: Path) -> None:
    """Weights of the file moved by a hundredth."""
    path = folder / "onnx/model.onnx"
    model = onnx.load(path)
    floats = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    tensor = max(floats, key=lambda one: np.prod(one.dims))
    moved = numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name)
    moved.metadata_props.extend(tensor.metadata_props)
    tensor.CopyFrom(moved)
    onnx.save(model, path)


def _link(folder: Path) -> None:
    (folder / "onnx/model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "onnx/model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def _script(folder: Path) -> None:
    (folder / "check.py").write_text("raise SystemExit('the code of the bundle ran')")


def _pickled(folder: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    (folder / "golden/input_0.npy").write_bytes(file.getvalue())


def _manifest(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        place = manifest
        *path, last = key.split("/")
        for part in path:
            place = place[part]
        place[last] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


OURS = "additional_metadata/prunec"
HARM: dict[str, Callable[[Path], None]] = {
    "weights": _shift,
    "a link": _link,
    "the script": _script,
    "a golden value of objects": _pickled,
    "the licence": _manifest(f"{OURS}/licence", "none"),
    "a variant elsewhere": _manifest("components/onnx/variants/onnx/variant_directory", "../x"),
    "an unknown key": _manifest("extra", 1),
    "a file elsewhere": _manifest(f"{OURS}/files/..%2fx".replace("%2f", "\\"), {}),
    "a form without a file": _manifest(f"{OURS}/forms/onnx/file", "golden/input_0.npy"),
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_caught_and_nothing_runs(folder: Path, harm: str) -> None:
    HARM[harm](folder)
    assert not verify_bundle(folder).passed


def test_a_later_schema_is_no_damage(folder: Path) -> None:
    _manifest(f"{OURS}/schema", 2)(folder)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert "has the schema 2; this prunec reads 1" in " ".join(result.output.split())


def test_forged_digests_do_not_hide_other_answers(folder: Path) -> None:
    _shift(folder)
    seal(folder, lambda ours: None)
    failures = {check.name for check in verify_bundle(folder).forms["onnx"].failures}
    assert "golden values" in failures
    seal(folder, lambda ours: ours["forms"]["onnx"].update(tolerance=1e9))
    assert not verify_bundle(folder).passed


def test_forged_golden_objects_are_not_unpickled(folder: Path) -> None:
    _pickled(folder)
    seal(folder, lambda ours: None)
    failures = {check.name for check in verify_bundle(folder).forms["onnx"].failures}
    assert failures == {"golden values", "values between layers"}


@pytest.mark.parametrize("name", ["onnx/model.c", "onnx/run.so"])
def test_a_program_is_no_form(folder: Path, name: str) -> None:
    """Whatever runs such a file runs what the sender wrote."""
    (folder / name).write_bytes((folder / "onnx/model.onnx").read_bytes())

    def renamed(ours: dict[str, Any]) -> None:
        ours["files"][name] = ours["files"].pop("onnx/model.onnx")
        ours["forms"]["onnx"]["file"] = name

    seal(folder, renamed)
    (folder / "onnx/model.onnx").unlink()
    (failure,) = verify_bundle(folder).forms["bundle"].failures
    assert "the form 'onnx' is a program, which a bundle may not have" in failure.message
    result = run("predict", folder, folder / "golden" / "input_0.npy")
    assert result.exit_code == 1
    assert "is a program" in result.output


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Beside]:
    """A device that `--runner beside` names."""
    (tmp_path / "there").mkdir()
    device = Beside(temporary=str(tmp_path / "there"))
    monkeypatch.setattr(elsewhere, "runner_named", lambda _: device)
    yield device
    device.close()
    assert not list((tmp_path / "there").iterdir())


def test_a_bundle_is_checked_on_a_device_by_its_own_check(
    sent: Path, folder: Path, beside: Beside
) -> None:
    result = run("verify", sent / "b.zip", "--runner", "qemu-aarch64")  # a name that there is
    assert result.exit_code == 0, result.output
    assert "onnx on beside: " in result.output
    assert "ms per sample" in result.output
    report = verify_bundle_on(sent / "b.zip", ["beside"])
    names = {check.name for form in report.forms.values() for check in form.checks}
    assert {"beside: file digests", "beside: golden values", "golden values"} <= names
    assert report.forms["onnx"].details.other_runners == (beside.identity,)
    with (folder / "check.py").open("a") as file:
        file.write("print('more')\n")
    seal(folder, lambda _: None)
    with pytest.raises(RunError, match=r"check\.py of .* is not that of this prunec"):
        verify_bundle_on(folder, ["beside"])
    (folder / "golden" / "input_0.npy").write_bytes(b"")
    assert not verify_bundle_on(folder, ["beside"]).passed  # unsound here: it is sent nowhere


FOUND = {"form": "onnx", "verdict": "PASS", "why": "", "difference": 1e-7, "loaded": "x",
         "milliseconds": {"median": 1, "p95": 1, "spread": 0, "runs": 9}}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({}, True),
        ({"difference": 0.01}, False),  # whatever verdict was sent
        ({"difference": "inf", "verdict": "FAIL"}, False),
        ({"verdict": "FAIL", "why": "outputs differ"}, False),
        ({"verdict": "FAIL", "why": "it does not run: no memory", "difference": None}, False),
        ({"verdict": "not checked", "why": "no onnxruntime"}, None),
    ],
)
def test_what_a_device_found_is_judged_here(change: dict[str, Any], passed: bool | None) -> None:
    checks, _ = checks_of("onnx", {**FOUND, **change}, "board", "")
    assert [check.passed for check in checks] == ([] if passed is None else [passed])
