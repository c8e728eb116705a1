"""Artifacts on disk: what is read back is what was written, and damage is told, not raised."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from masks import masked, unstructured_masks
from oracles import fresh_inputs, worst
from torch import nn
from zoo import ZOO

from prunec.artifact import Artifact, Step
from prunec.errors import RunError
from prunec.models.gates import attach_gates, gates_of
from prunec.models.state import weights_digest
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.zero_tiny_weights import ZeroTinyWeights
from prunec.store import artifacts
from prunec.store.artifacts import load_artifact, save_artifact
from prunec.store.records import record_text

NET = "residual"
KERNEL = "first.1.0.weight"


def build() -> nn.Module:
    """The recipe's network as its constructor makes it: with other weights than the stored."""
    module, _ = ZOO[NET]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.train()


@cache
def gated() -> Artifact:
    module, example = ZOO[NET]()
    gate = torch.rand(1, 12, 1, 1, dtype=torch.float64)
    gate[0, [1, 4, 5]] = 0.0
    attach_gates(module, {KERNEL: gate})
    step = Step(
        name="train-gdp",
        options={"dense_epochs": 2.5},
        facts=("gated", "trained"),
        macs=(10, 10),
        params=(5, 5),
        error=None,
        seconds=1.25,
        digest=weights_digest(module),
        notes=("a note", "another"),
        details={"gates": 12, "shares": [0.5, 1.0]},
    )
    return Artifact(module, example, history=(step,))


@cache
def absorbed() -> Artifact:
    return AbsorbGates()(gated())


@cache
def cut() -> Artifact:
    return RemoveChannels(round_to=2)(absorbed())


@cache
def folded() -> Artifact:
    return FoldBatchnorm()(cut())


@cache
def unstructured() -> Artifact:
    module, example = ZOO[NET]()
    masks = unstructured_masks(module, 0.3, seed=1)
    return RemoveChannels()(Artifact(masked(module, masks), example, masks=masks))


KINDS: dict[str, Callable[[], Artifact]] = {
    "gated": gated,
    "absorbed": absorbed,
    "cut": cut,
    "cut-and-folded": folded,
    "unstructured": unstructured,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_is_what_was_written(tmp_path: Path, kind: str) -> None:
    artifact = KINDS[kind]()
    save_artifact(artifact, tmp_path / "step")
    actual = load_artifact(tmp_path / "step", build)
    inputs = fresh_inputs(artifact.example, 3, 8)
    assert worst(artifact.module, actual.module, inputs) == 0
    assert weights_digest(actual.module) == weights_digest(artifact.module)
    assert not actual.module.training
    assert json.dumps([dataclasses.asdict(s) for s in actual.history]) == json.dumps(
        [dataclasses.asdict(s) for s in artifact.history]
    )
    assert actual.facts == artifact.facts
    assert actual.plans == artifact.plans
    assert actual.masks.keys() == artifact.masks.keys()
    assert all(torch.equal(actual.masks[name], mask) for name, mask in artifact.masks.items())
    assert all(torch.equal(a, b) for a, b in zip(actual.example, artifact.example, strict=True))
    ours, theirs = gates_of(actual.module), gates_of(artifact.module)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], gate) for name, gate in theirs.items())


def test_weights_that_a_step_left_as_they_were_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = absorbed()
    kept = ZeroTinyWeights(floor=0.0)(before)
    places = [tmp_path / name for name in ("before", "kept", "copied", "changed", "damaged")]
    save_artifact(before, places[0], "r")
    save_artifact(kept, places[1], "r", places[0])
    weights = [place / "weights.safetensors" for place in places]
    assert weights[1].samefile(weights[0])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links")))
        save_artifact(kept, places[2], "r", places[0])
    save_artifact(cut(), places[3], "r", places[0])
    for place, artifact in zip(places, (before, kept, kept, cut()), strict=False):
        actual = load_artifact(place, build, "r")
        assert weights_digest(actual.module) == weights_digest(artifact.module)
    assert not any(weights[0].samefile(other) for other in weights[2:4])
    weights[0].write_bytes(weights[0].read_bytes()[:-4] + bytes(4))
    save_artifact(kept, places[4], "r", places[0])
    assert weights_digest(load_artifact(places[4], build, "r").module) == kept.history[-1].digest


@pytest.mark.slow
def test_the_passes_go_on_with_what_was_read_back(tmp_path: Path) -> None:
    save_artifact(absorbed(), tmp_path)
    again = FoldBatchnorm()(RemoveChannels(round_to=2)(load_artifact(tmp_path, build)))
    assert again.history[-1].digest == folded().history[-1].digest


def test_nothing_that_is_written_can_be_unpickled(tmp_path: Path) -> None:
    save_artifact(folded(), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"artifact.json", "weights.safetensors", "example.safetensors",
                     "masks.safetensors"}  # fmt: skip
    assert not any(path.read_bytes()[:2] == b"PK" for path in tmp_path.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "01-remove-channels"
    save_artifact(cut(), folder)
    return folder


FILES = ("artifact.json", "weights.safetensors", "example.safetensors", "masks.safetensors")


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


@pytest.mark.parametrize("damage", [_missing, _empty, _half, _garbage])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_a_run_error(
    whole: Path, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "step"
    shutil.copytree(whole, folder)
    damage(folder / file)
    with pytest.raises(RunError) as caught:
        load_artifact(folder, build)
    assert "step" in caught.value.message
    assert caught.value.remedy


def text(record: object) -> str:
    return record_text(record) if isinstance(record, dict) else json.dumps(record)


RECORDS: dict[str, object] = {
    "no object": [],
    "another format": {"format": 99},
    "no plans": {"format": 1},
    "a plan that is none": {"format": 1, "plans": [{"format": 1}], "gated": {}, "masks": {}},
    "a plan of another network": {
        "format": 1,
        "plans": [{"format": 1, "removed": {"nobody.weight:0": [1]}, "biases": [], "frozen": {},
                   "folded": []}],
        "gated": {},
        "masks": {},
        "history": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("record", RECORDS)
def test_a_wrong_record_is_a_run_error(whole: Path, tmp_path: Path, record: str) -> None:
    folder = tmp_path / "step"
    shutil.copytree(whole, folder)
    (folder / "artifact.json").write_text(text(RECORDS[record]))
    with pytest.raises(RunError, match="step"):
        load_artifact(folder, build)


@pytest.mark.parametrize("key", ["gated", "masks", "history"])
def test_a_record_that_lacks_a_part_is_a_run_error(whole: Path, tmp_path: Path, key: str) -> None:
    folder = tmp_path / "step"
    shutil.copytree(whole, folder)
    record = json.loads((folder / "artifact.json").read_text())
    del record[key]
    (folder / "artifact.json").write_text(record_text(record))
    with pytest.raises(RunError, match=f"damaged.*{key}"):
        load_artifact(folder, build)


def test_another_network_is_a_run_error(whole: Path) -> None:
    with pytest.raises(RunError) as caught:
        load_artifact(whole, lambda: ZOO["dense-net"]()[0])
    assert caught.value.remedy


def test_a_killed_save_leaves_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """artifact.json is written last: without it the step counts as not done."""

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prunec.store.artifacts.write_text_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        save_artifact(gated(), tmp_path / "step")
    with pytest.raises(RunError, match=r"artifact\.json is missing"):
        load_artifact(tmp_path / "step", build)


def test_masks_of_before_numpy_packed_them_can_be_read() -> None:
    """The bytes and the mask of 3×2×3×3 are those that an earlier version packed by itself."""
    packed = torch.tensor([56, 46, 50, 30, 248, 92, 128], dtype=torch.uint8)
    bits = "001110000010111000110010000111101111100001011100100000"
    mask = torch.tensor([bit == "1" for bit in bits]).reshape(3, 2, 3, 3)
    assert torch.equal(artifacts._unpacked(packed, [3, 2, 3, 3]), mask)
    assert torch.equal(artifacts._packed(mask), packed)
    with pytest.raises(ValueError, match="reshape"):
        artifacts._unpacked(packed[:-1], [3, 2, 3, 3])
