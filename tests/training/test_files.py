"""Files are whole or not there, and a refusal of the system comes with its remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunec.errors import RunError
from prunec.files import folder_atomic, write_bytes_atomic, write_text_atomic
from prunec.tensor_files import read_tensors, write_tensors


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_contents_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text_atomic(path, "first")
    write_text_atomic(path, "zweite ε")
    assert path.read_text("utf-8") == "zweite ε"
    assert names(path.parent) == ["b.txt"]


def test_a_new_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_text_atomic(path, "good")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match="No space left") as caught:
        write_text_atomic(path, "bad")
    assert "free some space" in caught.value.remedy
    assert path.read_text() == "good"
    assert names(tmp_path) == ["file"]


def test_a_file_where_a_folder_should_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        write_bytes_atomic(tmp_path / "file" / "below", b"x")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with folder_atomic(target) as place:
        (place / "a").write_text("1")
        assert not target.exists()
    assert names(target) == ["a"]
    with pytest.raises(ZeroDivisionError), folder_atomic(target) as place:
        (place / str(1 // 0)).touch()
    assert names(target) == ["a"]
    assert names(tmp_path) == ["folder"]
    with folder_atomic(target) as place:
        (place / "b").write_text("2")
    assert names(target) == ["b"]


def test_tensors_survive_shared_memory_strides_and_types(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {
        "base": base,
        "view": base[1:],
        "transposed": base.T,
        "scalar": torch.tensor(3),
        "mask": base > 4,
        "gradient": torch.ones(2, requires_grad=True),
        "half": base.to(torch.bfloat16),
    }
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("content", [None, b"", b"not tensors at all", b"\xff" * 64])
def test_missing_and_damaged_tensors_are_reported(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"t\.safetensors (cannot be read|is damaged|is missing)"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-1] + b"\x7f", "last is not what was written"),
        (lambda data: b"fjrst".join(data.rsplit(b"first", 1)), "first is not what was written"),
        (lambda data: data[:-9] + bytes(9), "last is not what was written"),
        (lambda data: data[:40], "its digest is not the recorded one"),
    ],
)
def test_the_tensor_that_was_damaged_is_named(
    tmp_path: Path, change: Callable[[bytes], bytes], told: str
) -> None:
    path = tmp_path / "t.safetensors"
    digest = write_tensors(path, {"first": torch.ones(3), "last": torch.arange(12.0)})
    assert read_tensors(path, digest).keys() == {"first", "last"}
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RunError, match=told):
        read_tensors(path, digest)
