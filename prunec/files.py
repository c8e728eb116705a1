"""Atomic writes: files are complete or absent, written beside their place and then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunec.errors import RunError
from prunec.wording import nearest

_REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space, then repeat the command.",
    errno.EDQUOT: "The disk quota is used up: free some space, then repeat the command.",
    errno.EROFS: "The file system is read-only: choose another folder.",
    errno.EACCES: "Permission is missing: choose another folder, or change its permissions.",
    errno.EPERM: "Permission is missing: choose another folder, or change its permissions.",
    errno.ENOTDIR: "A part of that path is a file: choose another folder.",
    errno.EISDIR: "That path is a folder: choose another name.",
}


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` completely or not at all; create missing folders.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_and_rename(path, data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, as :func:`write_bytes_atomic` does."""
    write_bytes_atomic(path, text.encode())


def link_atomic(path: Path, link: Path) -> None:
    """Give a file a second name, in place of another file or of none; create missing folders.

    Raises:
        OSError: the system refused; the file system may have no links.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    # In an unused folder: a link, unlike a file, cannot be made under a name that is taken.
    with tempfile.TemporaryDirectory(prefix=f".{link.name}-", dir=link.parent) as folder:
        made = Path(folder) / link.name
        made.hardlink_to(path)
        made.replace(link)
    _sync_folder(link.parent)


def cache_folder() -> Path:
    """Return prunec's folder in the user's cache, for reproducible data; it may not exist."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "prunec"


def require_writable(path: Path) -> None:
    """Check that ``path`` can be written: create its folder, write and remove a temporary file.

    Raises:
        RunError: the system refused (read-only, no permission, a folder of that name, …).
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block succeeds, rename it to ``path``.

    An existing folder is replaced; if the block fails, it stays unchanged.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def files_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path for ``path``, in an empty folder for it and files beside it.

    When the block succeeds, all files there are moved beside ``path``, ``path`` itself last; if it
    fails, everything stays unchanged.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield temporary / path.name
            # The main file last: it refers to the others, which must be there first.
            for made in sorted(temporary.iterdir(), key=lambda made: made.name == path.name):
                _into_place(made, path.parent / made.name)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _into_place(made: Path, place: Path) -> None:
    if made.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.chmod(0o666 & ~_umask())
    made.replace(place)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError on writing ``path`` into a RunError with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "Choose another folder, then repeat the command.")
        raise RunError(f"{path} cannot be written: {error.strerror or error}", remedy=remedy) from (
            error
        )


def _write_and_rename(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # Before the rename: after a power cut the new name must not lead to an empty file.
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        # The rename itself is only safe when the folder is.
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)  # the system reports the mask only when setting one
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder for fsync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def near_file(path: Path) -> str:
    """Return ``"Did you mean 'x'? "`` with the file of the nearest name, or an empty text."""
    try:
        there = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return ""
    near = nearest(path.name, there)
    return f"Did you mean {str(path.parent / near)!r}? " if near else ""
