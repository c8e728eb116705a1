"""Damaged and forged shards and indices: read rightly, or an error of ours that names the place."""

from __future__ import annotations

import json
import random
import tarfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from photographs import photograph, sample, spec_of, write_shards, write_tar

from prunec.batches.data import load_data
from prunec.batches.data_check import check_data
from prunec.datasets import shard_index
from prunec.errors import DataError, PrunecError
from prunec.recipe import DataSpec

CHANGED = 80


def labelled(root: Path, label: bytes, kind: str = "cls") -> Path:
    """Two shards; the last sample of the first has this label."""
    write_shards(root, {"train": [4], "val": [2]})
    more = [("odd.png", photograph(1, 1)), (f"odd.{kind}", label)]
    return write_tar(root / "train-000001.tar", [*sample(0), *more])


@pytest.mark.parametrize("label", [b"1000000", b"1000000000", b"9" * 20, b"4"])
def test_a_label_that_would_make_classes_without_samples_is_named(
    tmp_path: Path, label: bytes
) -> None:
    path = labelled(tmp_path, label)
    if label == b"4":  # three of five classes have samples
        assert load_data(spec_of(tmp_path), seed=0).classes == 5
        return
    with pytest.raises(DataError, match=rf"odd\.png is of class {label.decode()}, ") as caught:
        load_data(spec_of(tmp_path), seed=0)
    assert str(path) in caught.value.message
    assert "classes.txt" in caught.value.remedy


def test_classes_txt_says_how_many_there_are(tmp_path: Path) -> None:
    labelled(tmp_path, b"9")
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghij"))
    assert load_data(spec_of(tmp_path), seed=0).classes == 10
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    with pytest.raises(DataError, match=r"have the class 9, but classes\.txt names 3: .*odd\.png"):
        load_data(spec_of(tmp_path), seed=0)


@pytest.mark.parametrize("label", [b"", b"-1", b"1.0", b"1_0", b"0x1", b"1" * 21, bytes(10**6)])
def test_what_is_no_class_is_named_in_a_line(tmp_path: Path, label: bytes) -> None:
    labelled(tmp_path, label)
    with pytest.raises(DataError, match=r"odd\.cls holds .* not the number of a class") as caught:
        load_data(spec_of(tmp_path), seed=0)
    assert len(caught.value.message) < 300


def test_a_header_of_a_size_beyond_the_file_is_damage(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [4], "val": [2]})
    path = tmp_path / "train-000000.tar"
    for size in (10**15, -512):
        content = bytearray(path.read_bytes())
        info = tarfile.TarInfo("000000.cls")
        info.size = size
        block = info.tobuf(tarfile.GNU_FORMAT)
        content[:512] = block[:512]
        path.write_bytes(content)
        with pytest.raises(PrunecError, match=r"train-000000\.tar"):
            load_data(spec_of(tmp_path), seed=0)


@pytest.mark.parametrize("what", ["folder", "dangling"])
def test_a_shard_that_is_no_file_is_named(tmp_path: Path, what: str) -> None:
    write_shards(tmp_path, {"train": [4], "val": [2]})
    odd = tmp_path / "train-000001.tar"
    if what == "folder":
        odd.mkdir()
    else:
        odd.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PrunecError, match=r"train-000001\.tar cannot be read as a tar file"):
        load_data(spec_of(tmp_path), seed=0)


def forged(path: Path, change: Any) -> None:
    """The index with its content changed, and a digest that fits again."""
    content = json.loads(path.read_bytes())["shards"]
    change(content["train-000000.tar"])
    body = json.dumps(content, separators=(",", ":")).encode()
    digest = sha256(body).hexdigest()
    path.write_bytes(
        b'{"format":%d,"sha256":"%s","shards":%s}'
        % (shard_index.FORMAT, digest.encode(), body)
    )  # fmt: skip


FORGERIES: dict[str, Any] = {
    "text for a label": lambda s: s["labels"].__setitem__(0, "x"),
    "a float for an offset": lambda s: s["offsets"].__setitem__(0, 512.5),
    "true for a size": lambda s: s["sizes"].__setitem__(0, True),
    "a negative offset": lambda s: s["offsets"].__setitem__(0, -1),
    "beyond the file": lambda s: s["sizes"].__setitem__(0, 10**12),
    "beyond 64 bits": lambda s: s["labels"].__setitem__(0, 2**70),
    "a label too few": lambda s: s["labels"].pop(),
    "a number for a name": lambda s: s["members"].__setitem__(0, 3),
    "no list": lambda s: s.__setitem__("members", {"a": 1}),
    "a column too many": lambda s: s.__setitem__("more", []),
    "a column too few": lambda s: s.pop("labels"),
    "nothing": lambda s: s.clear(),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_an_index_that_cannot_be_is_made_anew(tmp_path: Path, name: str) -> None:
    write_shards(tmp_path, {"train": [6], "val": [2]})
    whole = load_data(spec_of(tmp_path), seed=0)
    index = tmp_path / "train.prunec-index.json"
    before = index.read_bytes()
    forged(index, FORGERIES[name])
    again = load_data(spec_of(tmp_path), seed=0)
    assert (again.train_size, again.labels) == (whole.train_size, whole.labels)
    assert index.read_bytes() == before


def test_an_edited_index_is_made_anew(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [6], "val": [2]})
    load_data(spec_of(tmp_path), seed=0)
    index = tmp_path / "train.prunec-index.json"
    before = index.read_bytes()
    index.write_bytes(before.replace(b'"labels":[0,1', b'"labels":[1,0'))
    load_data(spec_of(tmp_path), seed=0)
    assert index.read_bytes() == before


def outcome(spec: DataSpec) -> tuple[int, tuple[str, ...]] | str:
    try:
        data = load_data(spec, seed=0)
    except PrunecError as error:
        return str(error)
    return data.train_size, data.labels


@pytest.mark.slow
def test_changed_bytes_end_in_samples_or_in_an_error_of_ours(tmp_path: Path) -> None:
    """Mutants of shards and of indices: no traceback, and an index changes nothing it says."""
    write_shards(tmp_path, {"train": [5], "val": [2]})
    spec = spec_of(tmp_path)
    whole = load_data(spec, seed=0)
    files = [tmp_path / "train-000000.tar", tmp_path / "train.prunec-index.json"]
    sound = {path: path.read_bytes() for path in files}
    source = random.Random(0)
    slowest = 0.0
    for number in range(CHANGED):
        path = files[number % 2]
        content = bytearray(sound[path])
        for _ in range(source.choice((1, 1, 4))):
            place = source.randrange(len(content))
            content[place] = source.randrange(256)
        if source.random() < 0.2:
            del content[source.randrange(len(content)) :]
        path.write_bytes(content)
        begin = time.perf_counter()
        actual = outcome(spec)
        if path.suffix == ".json":
            assert actual == (whole.train_size, whole.labels)
        else:
            assert isinstance(actual, tuple) or len(actual) < 2000
        slowest = max(slowest, time.perf_counter() - begin)
        for other, before in sound.items():
            other.write_bytes(before)
    assert slowest < 2


def test_the_check_of_damaged_shards_is_a_finding(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [4], "val": [2]})
    (tmp_path / "train-000000.tar").write_bytes(b"junk" * 700)
    findings = check_data(spec_of(tmp_path), seed=0, report=lambda *_: None)
    assert not findings.passed
