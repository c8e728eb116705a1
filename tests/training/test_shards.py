"""Tar shards: every sample once an epoch, from any step, for any processes, found by an index."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from photographs import (
    all_of,
    noise,
    numbers,
    photograph,
    sample,
    spec_of,
    write_shards,
    write_tar,
)

from prunec.batches.data import load_data
from prunec.datasets import shard_index, shards
from prunec.datasets.shards import OpenFiles, spread_order
from prunec.errors import DamagedData, DataError
from prunec.processes import Processes

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shards(tmp_path, {"train": [7, 8, 9], "val": [4, 5]})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_sample_comes_once_an_epoch_with_its_label(root: Path) -> None:
    data = load_data(spec_of(root), seed=0)
    assert (data.train_size, data.test_size, data.labels) == (24, 9, ("0", "1", "2"))
    for epoch in (0, 1):
        images, labels = all_of(data.train_batches(epoch, 6))
        assert sorted(numbers(images)) == list(range(24))
        assert labels.tolist() == [number % 3 for number in numbers(images)]
    assert numbers(all_of(data.test_batches(4))[0]) == list(range(9))


def test_the_order_depends_on_seed_and_epoch_alone(root: Path) -> None:
    one, again, other = (load_data(spec_of(root), seed=seed).order(3) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, load_data(spec_of(root), seed=0).order(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_every_batch_and_any_step_is_a_beginning(root: Path, workers: int) -> None:
    data = load_data(spec_of(root, workers=workers), seed=0)
    whole = list(load_data(spec_of(root), seed=0).train_batches(2, 6))
    parts = [data.to(CPU, Processes(rank, 3)) for rank in range(3)]
    shared = zip(*(part.train_batches(2, 6, first=1) for part in parts), strict=True)
    for expected, of_ranks in zip(whole[1:], shared, strict=True):
        for whole_one, joined in zip(expected, all_of(of_ranks), strict=True):
            assert torch.equal(whole_one, joined)


@pytest.mark.parametrize("counts", [[1], [5, 1, 3], [40] * 50, [0, 4]])
def test_a_spread_order_holds_every_place_once(counts: list[int]) -> None:
    order = spread_order(torch.tensor(counts), generator())
    assert sorted(order.tolist()) == list(range(sum(counts)))


def test_a_batch_is_drawn_from_few_shards_and_a_shard_from_one_stretch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "SPREAD", 300)
    order = spread_order(torch.full((40,), 100), generator())
    shard = order // 100
    for one in range(40):
        times = (shard == one).nonzero().flatten()
        assert int(times.max() - times.min()) < 300 + 100 + 300
        assert not torch.equal(order[times], order[times].sort().values)
    mixed = [len(batch.unique()) for batch in shard.split(100)]
    assert min(mixed) >= 2
    assert max(mixed) <= 7


def test_a_small_set_is_shuffled_as_a_whole() -> None:
    """One shard in the order of its classes: the first half of an epoch holds half of each."""
    order = spread_order(torch.tensor([1000]), generator())
    assert 220 < int((order[:500] < 500).sum()) < 290


def test_the_index_is_written_once_and_made_anew_for_a_changed_shard(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    read = shard_index.read_shard
    monkeypatch.setattr(
        shard_index, "read_shard", lambda path: (seen.append(path.name), read(path))[1]
    )
    load_data(spec_of(root), seed=0)
    assert len(seen) == 5
    index = json.loads((root / "train.prunec-index.json").read_text("utf-8"))
    assert len(index["shards"]["train-000001.tar"]["offsets"]) == 8
    seen.clear()
    load_data(spec_of(root), seed=0)
    assert not seen
    write_tar(root / "train-000001.tar", sample(1) + sample(2))
    os.utime(root / "train-000000.tar", ns=(1, 1))
    assert load_data(spec_of(root), seed=0).train_size == 7 + 2 + 9
    assert sorted(seen) == ["train-000000.tar", "train-000001.tar"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1, "shards": {"train-000000.tar": {}}}'])
def test_an_index_that_is_not_ours_is_made_anew(root: Path, text: str) -> None:
    (root / "train.prunec-index.json").write_text(text)
    assert load_data(spec_of(root), seed=0).train_size == 24


def test_shards_in_a_folder_that_cannot_be_written_are_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refused)
    assert load_data(spec_of(root), seed=0).train_size == 24
    assert not list(root.glob("*.json"))


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_others_write_is_read(tmp_path: Path, style: int) -> None:
    """Long names, folders, other files of a sample, labels first or last, names of the hub."""
    key = f"photos/{'long' * 40}/n01440764_10026"
    entries = [
        ("__meta__", b"{}"),
        (f"{key}.JPEG", noise()),
        (f"{key}.json", b'{"width": 3}'),
        (f"{key}.mask.png", b"no image"),
        (f"{key}.cls", b"1\n"),
    ]
    for name in ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"):
        with tarfile.open(tmp_path / name, "w", format=style) as tar:
            folder = tarfile.TarInfo("photos")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        write_tar_in(tmp_path / name, entries, style)
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    data = load_data(spec_of(tmp_path), seed=0)
    assert (data.labels, data.train_size, data.test_size) == (("tench", "goldfish"), 1, 1)
    assert next(iter(data.test_batches(1)))[1].tolist() == [1]


def write_tar_in(path: Path, entries: list[tuple[str, bytes]], style: int) -> None:
    import io

    with tarfile.open(path, "a", format=style) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


A_PHOTOGRAPH = ("7.png", photograph(7, 1))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([A_PHOTOGRAPH], r"train-9\.tar: the sample 7 has no label"),
        ([("a/7.cls", b"1")], r"train-9\.tar: the sample a/7 has no image \(\.jpg"),
        ([A_PHOTOGRAPH, ("7.jpg", b"x")], "the sample 7 has two images"),
        ([("7.cls", b"1"), ("7.cls", b"1")], "the sample 7 has two labels"),
        ([A_PHOTOGRAPH, ("7.cls", b"cat")], r"7\.cls holds b'cat', which is not the number"),
        ([A_PHOTOGRAPH, ("7.cls", b"-1")], "which is not the number of a class"),
    ],
)
def test_a_sample_that_is_none_is_reported(
    root: Path, entries: list[tuple[str, bytes]], message: str
) -> None:
    write_tar(root / "train-9.tar", entries)
    with pytest.raises(DataError, match=message) as caught:
        load_data(spec_of(root), seed=0)
    assert caught.value.remedy


@pytest.mark.parametrize("keep", [0, 300, 700, 1500, 2048, 5 * 2048 + 100])
def test_a_shard_that_ends_early_is_reported(root: Path, keep: int) -> None:
    path = root / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedData, match=r"train-000002\.tar cannot be read as a tar file"):
        load_data(spec_of(root), seed=0)


def test_a_damaged_header_is_reported(root: Path) -> None:
    path = root / "train-000002.tar"
    content = bytearray(path.read_bytes())
    content[2048 + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedData, match="damaged or cut off after 1 samples"):
        load_data(spec_of(root), seed=0)


def test_a_shard_that_shrinks_while_it_is_read_is_reported(root: Path) -> None:
    data = load_data(spec_of(root), seed=0)
    os.truncate(root / "train-000002.tar", 100)
    with pytest.raises(DamagedData, match=r"train-000002\.tar: 0000.*the shard ends early"):
        list(data.train_batches(0, 6))


def test_missing_shards_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no shards train-\*\.tar were found") as caught:
        load_data(spec_of(tmp_path), seed=0)
    assert "data.root" in caught.value.remedy
    (tmp_path / "train-0.tar.gz").touch()
    with pytest.raises(DataError) as caught:
        load_data(spec_of(tmp_path), seed=0)
    assert "gunzip" in caught.value.remedy


def test_shards_without_a_sample_are_reported(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [0], "val": [1]})
    with pytest.raises(DataError, match=r"train-000000\.tar .* have no sample"):
        load_data(spec_of(tmp_path), seed=0)


def test_a_class_beyond_the_names_is_reported(root: Path) -> None:
    (root / "classes.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"have the class 2, but classes\.txt names 2"):
        load_data(spec_of(root), seed=0)


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "OPEN", 3)
    paths = [tmp_path / str(k) for k in range(8)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes(range(k, k + 9)))
    files = OpenFiles([str(path) for path in paths])
    for k in [0, 1, 2, 3, 0, 7, 6, 5, 4, 4, 0]:
        assert files.read(k, 2, 3) == bytes(range(k + 2, k + 5))
        assert len(files.handles) <= 3
    copy = pickle.loads(pickle.dumps(files))
    assert not copy.handles
    assert copy.read(5, 0, 1) == b"\x05"
