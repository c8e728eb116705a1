"""Optional contents of a bundle: signature, bill of materials, intermediate values."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from senders import exported, run

from prunec.pipeline import verify_bundle
from prunec.pipeline.bundles.bom import bill
from prunec.pipeline.bundles.signing import signature
from prunec.store.records import DIGEST, record_digest

CODE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
                         nn.Linear(64, 3))
"""
RECIPE = """
name = "full"
[model]
name = "a_full_network:build"
input = ["1x12x12"]
[data]
name = "none"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
[bundle]
licence = "Apache-2.0"
intended_use = "tests"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that holds all but a signature."""
    root = tmp_path_factory.mktemp("maker")
    wishes = ("--bundle", "b.zip", "--bom", "--golden-layers", "--release", "2.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunec.deploy.timing._SECONDS", 0.2)
        exported(root, "a_full_network", CODE, RECIPE, *wishes)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(made / "b.zip") as archive:
        archive.extractall(tmp_path / "b")
    return tmp_path / "b"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (root / f"{name}.pem").write_bytes(private)
        (root / f"{name}.pub").write_bytes(public)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


@pytest.fixture
def signed(folder: Path, keys: Path) -> Path:
    (folder / "model.sig").write_bytes(signature(contents(folder), keys / "own.pem"))
    return folder


def said(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return dict(manifest["additional_metadata"]["prunec"])


def seal(folder: Path) -> None:
    """Make all digests of the manifest fit, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    ours = manifest["additional_metadata"]["prunec"]
    for name in ours["files"]:
        data = (folder / name).read_bytes()
        ours["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ours[DIGEST] = record_digest(ours)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def failures(folder: Path, key: Path | None = None) -> dict[str, str]:
    report = verify_bundle(folder, key)
    return {check.name: check.message for form in report.forms.values() for check in form.failures}


@pytest.mark.slow
def test_a_signature_holds_in_every_place(signed: Path, keys: Path, tmp_path: Path) -> None:
    assert failures(signed, keys / "own.pub") == {}
    moved = shutil.move(signed, tmp_path / "under another name")
    assert failures(Path(moved), keys / "own.pub") == {}
    told = run("verify", moved)
    assert told.exit_code == 0
    assert "the signer is unknown without a public key" in " ".join(told.output.split())


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("harm", ["weights", "script", "garbage", "more"])
def test_a_bad_signature_fails(signed: Path, keys: Path, harm: str, with_key: bool) -> None:
    place = {"weights": "onnx/model.onnx", "script": "check.py", "garbage": "model.sig"}.get(harm)
    if place:
        data = (signed / place).read_bytes()
        (signed / place).write_bytes(data[:-9] + b"x" + data[-8:])
    if harm == "more":
        manifest = json.loads((signed / "manifest.json").read_text())
        manifest["additional_metadata"]["prunec"]["licence"] = "none"
        (signed / "manifest.json").write_text(json.dumps(manifest))
    seal(signed)
    assert "signature" in failures(signed, keys / "own.pub" if with_key else None)


def test_another_key_and_no_signature_fail(signed: Path, keys: Path) -> None:
    assert "not that of other.pub" in failures(signed, keys / "other.pub")["signature"]
    (signed / "model.sig").unlink()
    assert "is not signed" in failures(signed, keys / "own.pub")["signature"]
    assert failures(signed) == {}


def test_what_is_no_key_is_refused_before_anything_is_computed(
    made: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.pem").write_text("no key")
    for key in ("no.pem", "nowhere.pem", keys / "own.pub"):
        done = run("export", "r.toml", "--bundle", "b.zip", "--sign", key)
        assert done.exit_code == 1
        assert "is not a private key that can sign" in " ".join(done.stderr.split())
        assert "openssl ecparam" in done.stderr
    done = run("verify", made / "b.zip", "--key", "no.pem")
    assert done.exit_code == 2  # it is not signed
    shutil.copy(made / "b.zip", "s.zip")
    with zipfile.ZipFile("s.zip", "a") as archive:
        archive.writestr(zipfile.ZipInfo("model.sig"), b"{}")
    done = run("verify", "s.zip", "--key", "no.pem")
    assert done.exit_code == 1
    assert "no.pem is not a public key" in done.stderr


def test_the_command_signs(
    made: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunec.deploy.wishes import Wishes
    from prunec.pipeline.bundles import writing

    monkeypatch.setattr(writing, "_contents", lambda *_: contents_of(made / "b.zip"))
    monkeypatch.setattr(writing, "OpenedRun", lambda run: _Opened())
    wishes = Wishes(tmp_path / "b.zip", key=keys / "own.pem")
    report: Any = type("Report", (), {"forms": {"onnx": type("F", (), {"passed": True})}})
    writing.write_bundle(None, report, tmp_path / "b.zip", wishes)  # type: ignore[arg-type]
    assert failures(tmp_path / "b.zip", keys / "own.pub") == {}


class _Opened:
    def exporters(self, forms: object) -> list[Any]:
        return [type("Writer", (), {"form": staticmethod(lambda: "onnx"), "is_code": False})]


def contents_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_missing_package_is_reported_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    done = run("export", "r.toml", "--bundle", tmp_path / "b.zip", "--sign", "k.pem")
    assert done.exit_code == 1
    assert "pip install 'prunec[sign]'" in done.stderr


@pytest.mark.parametrize(
    "words", [["--bom"], ["--sign", "k"], ["--golden-layers"], ["--release", "1"]]
)
def test_what_is_of_a_bundle_needs_one(words: list[str]) -> None:
    done = run("export", *words)
    assert done.exit_code == 3
    assert "--bundle FILE.zip" in done.stderr
    assert run("verify", "a-run", "--key", "k").exit_code == 3


@pytest.mark.slow
def test_the_bill_of_materials_follows_the_schema(folder: Path) -> None:
    data = (folder / "bom.cdx.json").read_bytes()
    assert data == bill(said(folder)) == bill(said(folder))
    told = json.loads(data)
    model = told["metadata"]["component"]
    assert (model["name"], model["version"]) == ("full", "2.1")
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert model["modelCard"]["considerations"]["useCases"] == ["tests"]
    form = next(c for c in told["components"] if c["bom-ref"] == "form-onnx")
    assert form["hashes"][0]["content"] == said(folder)["forms"]["onnx"]["sha256"]
    valid = schema_of_cyclonedx()
    assert valid(data.decode()) is None
    metrics = {"name": "accuracy", "percent": 91.25, "samples": 80, "interval_95": [82.1, 96.0]}
    splits = {"train": "a" * 64, "test": "b" * 64}
    full = said(folder) | {
        "licence": "our own", "parent": {"checkpoint": {"name": "w.pth", "sha256": "c" * 64}},
        "data": {"name": "own", "samples": {"train": 2, "test": 1}, "sha256": splits},
    }  # fmt: skip
    full["forms"]["onnx"]["metrics"] = [metrics]
    assert valid(bill(full).decode()) is None
    assert bill(full) != data


def schema_of_cyclonedx() -> Callable[[str], object]:
    pytest.importorskip("cyclonedx")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str


def test_a_bill_that_says_otherwise_fails(folder: Path) -> None:
    text = (folder / "bom.cdx.json").read_text()
    (folder / "bom.cdx.json").write_text(text.replace("Apache-2.0", "MIT"))
    seal(folder)
    assert "bill of materials" in failures(folder)


def test_the_release_is_the_commands(folder: Path) -> None:
    assert said(folder)["release"] == "2.1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["package_version"] == "2.1"


def check_script(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-I", str(folder / "check.py"), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 3])
def test_the_first_layer_that_parts_is_named(folder: Path, place: int) -> None:
    code, told = check_script(folder, "--layers")
    assert code == 0, told
    assert "are equal within" in told["forms"][1]["why"]
    layers = said(folder)["forms"]["onnx"]["layers"]
    assert layers[0]["operator"] == "Conv"
    for later in (place, place + 2):
        path = folder / f"golden/layers/onnx/value_{later}.npy"
        file = io.BytesIO()
        np.save(file, np.load(path) * np.float32(1.01) + np.float32(0.1))
        path.write_bytes(file.getvalue())
    seal(folder)
    code, told = check_script(folder, "--layers")
    assert code == 2
    assert told["forms"][0]["verdict"] == "PASS"
    assert told["forms"][1]["layer"] == layers[place]["name"]
    assert layers[place]["node"] in told["forms"][1]["why"]
    assert layers[place]["node"] in failures(folder)["values between layers"]


def test_a_copy_that_is_of_another_file_fails(folder: Path) -> None:
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/layers.onnx")
    seal(folder)
    assert "not a copy of the file" in failures(folder)["values between layers"]


@pytest.mark.slow
def test_layers_of_other_runtimes_are_checked_on_both_sides(tmp_path: Path) -> None:
    """ncnn and OpenVINO give the values of the file itself: the bundle needs no copy."""
    for package in ("ncnn", "pnnx", "openvino"):
        pytest.importorskip(package)
    code = CODE.replace("AdaptiveAvgPool2d(4)", "AvgPool2d(2)").replace("64", "100")
    recipe = RECIPE.replace("a_full", "a_layered")
    wishes = ("--ncnn", "--openvino", "--bundle", "b", "--golden-layers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunec.deploy.timing._SECONDS", 0.2)
        exported(tmp_path, "a_layered_network", code, recipe, *wishes)
    folder = tmp_path / "b"
    checks = {f: [c.name for c in r.checks] for f, r in verify_bundle(folder).forms.items()}
    assert all("values between layers" in checks[form] for form in ("onnx", "ncnn", "openvino"))
    assert not failures(folder)
    assert [p.name for p in folder.rglob("layers.*")] == ["layers.onnx"]
    code_of, told = check_script(folder, "--layers")
    assert code_of == 0, told
    layers = [one for one in told["forms"] if "between layers" in one["form"]]
    assert [one["verdict"] for one in layers] == ["PASS"] * 3, layers
    for form in ("ncnn", "openvino"):
        shutil.copy(
            folder / f"golden/layers/{form}/value_0.npy",
            folder / f"golden/layers/{form}/value_1.npy",
        )
    seal(folder)
    code_of, told = check_script(folder, "--layers")
    assert code_of == 2
    parted = {one["form"].split(",")[0]: one["layer"] for one in told["forms"] if "layer" in one}
    forms = said(folder)["forms"]
    assert parted == {form: forms[form]["layers"][1]["name"] for form in ("ncnn", "openvino")}
    assert "values between layers" in failures(folder)
