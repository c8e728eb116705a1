"""Mutants of bundles: each is caught, nothing of it runs, nothing is written beside it.

Every mutant says something else than the bundle: what is read of it differs, or nothing can be.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import slice_and_all
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.errors import PrunecError
from prunec.pipeline import verify_bundle
from prunec.pipeline.bundles.signing import signature
from prunec.store.records import DIGEST, record_digest

RECIPE = """
name = "mutable"
[model]
name = "a_mutable_network:build"
classes = 5
input = ["3x8x8"]
[data]
name = "none"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
"""
CODE = """
from torch import nn

def build(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))
"""
RAN = "from pathlib import Path; Path(__file__).with_name('ran').touch(); raise SystemExit\n"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a bundle, the manifest first."""
    root = tmp_path_factory.mktemp("maker")
    (root / "a_mutable_network.py").write_text(CODE)
    (root / "mutable.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        wishes = ["--bundle", "b.zip", "--bom", "--golden-layers", "--release", "3"]
        result = CliRunner().invoke(app, ["export", "mutable.toml", *wishes])
    assert result.exit_code == 0, result.output
    with zipfile.ZipFile(root / "b.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Files, mode: int = 0o100644) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.create_system = mode << 16, 3
            archive.writestr(entry, data)
    return target.getvalue()


def bits(files: Files, dice: random.Random) -> bytes:
    """A file of it with bits changed."""
    name = dice.choice(list(files))
    data = bytearray(files[name])
    for _ in range(dice.choice((1, 8, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return zipped({**files, name: bytes(data)})


def lengths(files: Files, dice: random.Random) -> bytes:
    """A file of it cut off, or longer."""
    name = dice.choice(list(files))
    data = files[name]
    cut = data[: dice.randrange(len(data))]
    return zipped({**files, name: dice.choice((cut, data + b"\0more"))})


def names(files: Files, dice: random.Random) -> bytes:
    """A file more, fewer, or under another name; with a script that must not run."""
    name = dice.choice(list(files))
    rest = {key: data for key, data in files.items() if key != name}
    elsewhere = ("../", "/", "onnx/../../", "./", "a//", "x\\..\\", "CON/", "golden/")
    place = dice.choice(elsewhere) + dice.choice(("check.py", "sitecustomize.py", "new"))
    return zipped(dice.choice((rest, {**rest, place: files[name]}, {**files, place: RAN.encode()})))


def modes(files: Files, dice: random.Random) -> bytes:
    """Entries that are links, pipes, devices or folders."""
    return zipped(files, dice.choice((0o120777, 0o010644, 0o020644, 0o060644, 0o040755, 0o140644)))


def said(files: Files, dice: random.Random) -> bytes:
    """A value of the manifest changed, its digest as it is."""
    manifest = json.loads(files["manifest.json"])
    _change(manifest, dice)
    return zipped({**files, "manifest.json": json.dumps(manifest).encode()})


def forged(files: Files, dice: random.Random) -> bytes:
    """A model or golden value changed, and every digest made to fit."""
    name = dice.choice([key for key in files if key.endswith(".npy")])
    data = bytearray(files[name])
    data[-4 * dice.randrange(1, 9) + 3] ^= 0x7F  # sign stays, exponent goes
    return zipped(_sealed({**files, name: bytes(data), "check.py": RAN.encode()}))


def bills(files: Files, dice: random.Random) -> bytes:
    """The bill of materials changed, or what it follows from, and every digest made to fit."""
    told = json.loads(files["bom.cdx.json"])
    _change(told, dice)
    changed = {**files, "bom.cdx.json": json.dumps(told, indent=1).encode()}
    if dice.random() < 0.5:
        manifest = json.loads(files["manifest.json"])
        ours = manifest["additional_metadata"]["prunec"]
        key = dice.choice(("release", "licence", "intended_use", "macs", "history", "tested_on"))
        ours[key] = dice.choice(("other", 7, None, ["x"]))
        changed = {**files, "manifest.json": json.dumps(manifest).encode()}
    return zipped(_sealed(changed))


def copies(files: Files, dice: random.Random) -> bytes:
    """The copy that gives values between layers changed, and every digest made to fit."""
    data = bytearray(files["onnx/layers.onnx"])
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    made = dice.choice((bytes(data), files["onnx/model.onnx"], b""))
    return zipped(_sealed({**files, "onnx/layers.onnx": made}))


def _sealed(files: Files) -> Files:
    """The files with a manifest whose digests fit."""
    manifest = json.loads(files["manifest.json"])
    ours = manifest["additional_metadata"]["prunec"]
    for key in ours["files"]:
        digest = hashlib.sha256(files[key]).hexdigest()
        ours["files"][key] = {"bytes": len(files[key]), "sha256": digest}
    ours[DIGEST] = record_digest(ours)
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def the_zip(files: Files, dice: random.Random) -> bytes:
    """The zip itself cut off."""
    whole = zipped(files)
    return whole[: dice.randrange(len(whole) - 22)]


def _change(value: Any, dice: random.Random) -> None:
    """Change one leaf, wherever it is, or take a key away."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = dice.choice(keys)
        inner = value[key]
        if isinstance(inner, (dict, list)) and inner and dice.random() < 0.9:
            value = inner
        elif isinstance(value, dict) and dice.random() < 0.3:
            del value[key]
            return
        else:
            other = [None, [], {}, "../x", -1, 1e9, "x" * 1000, [inner]]
            value[key] = dice.choice([one for one in other if one != inner])
            return


FAMILIES: tuple[Callable[[Files, random.Random], bytes], ...] = (
    bits, lengths, names, modes, said, forged, bills, copies, the_zip,
)  # fmt: skip


def keys(folder: Path) -> tuple[Path, Path]:
    """A pair of keys, private and public."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem, plain = (
        ec.generate_private_key(ec.SECP256R1()),
        forms.Encoding.PEM,
        forms.NoEncryption(),
    )
    folder.mkdir()
    own, public = folder / "key", folder / "pub"
    own.write_bytes(key.private_bytes(pem, forms.PrivateFormat.PKCS8, plain))
    kind = forms.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, kind))
    return own, public


def resigned(files: Files, other: Path, dice: random.Random) -> Files:
    """A signed bundle of other contents, or of another signature, or by another key."""
    signed = {name: data for name, data in files.items() if name != "model.sig"}
    match dice.randrange(5):
        case 0:  # sealed and signed again, by somebody else
            forged_ = _sealed({**signed, "check.py": RAN.encode()})
            return {**forged_, "model.sig": signature(forged_, other)}
        case 1:  # the same contents, by somebody else
            return {**signed, "model.sig": signature(signed, other)}
        case 2:  # not signed any more
            return signed
        case 3:  # other contents under the old signature
            return {
                **_sealed({**signed, "check.py": RAN.encode()}),
                "model.sig": files["model.sig"],
            }
    told = json.loads(files["model.sig"])
    envelope = told["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    _change(statement, dice)
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return {**files, "model.sig": json.dumps(told).encode()}


@slice_and_all(10, 200)
def test_mutants_of_signatures_are_caught(
    files: Files, tmp_path: Path, count: int, seed: int
) -> None:
    (own, public), (other, _) = keys(tmp_path / "own"), keys(tmp_path / "other")
    signed = {**files, "model.sig": signature(files, own)}
    place, dice = tmp_path / "b.zip", random.Random(seed)
    place.write_bytes(zipped(signed))
    assert verify_bundle(place, public).passed
    for number in range(count):
        place.write_bytes(zipped(resigned(signed, other, dice)))
        assert not verify_bundle(place, public).passed, number
        assert not list(tmp_path.rglob("ran"))


@slice_and_all(45, 900)
def test_mutants_of_bundles_are_caught(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int
) -> None:
    place = tmp_path / "received" / "b.zip"
    (tmp_path / "temporary").mkdir()
    place.parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(place.parent)
    dice = random.Random(seed)
    caught: Counter[str] = Counter()
    missed = []
    place.write_bytes(zipped(files))
    assert verify_bundle(place).passed
    for number in range(count):
        family = FAMILIES[number % len(FAMILIES)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubled names, when they are written
            place.write_bytes(family(files, dice))
        try:
            passed = verify_bundle(place).passed
        except PrunecError:
            passed = False
        missed += [(number, family.__name__)] if passed else []
        caught[family.__name__] += not passed
        there = sorted(path.name for path in tmp_path.rglob("*"))
        assert there == ["b.zip", "received", "temporary"], (number, family.__name__)
    print(dict(caught))
    assert not missed
