"""Reading of a bundle from an untrusted source: none of its code runs, nothing is written outside.

A zip is unpacked into a temporary folder. Entries that leave the folder, links, special files and
files that the manifest does not declare are refused by name.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.errors import DamagedRecord, RunError
from prunec.pipeline.bundles.layout import (
    KEY,
    MANIFEST,
    SCHEMA,
    SIGNATURE,
    model_package,
    name_flaw,
)
from prunec.store.records import DIGEST, record_digest

# Bounds for hostile files, far above any real bundle: they keep a small zip from filling the disk.
MOST_FILES = 10_000
MOST_BYTES = 16 * 2**30
MOST_MANIFEST = 64 * 2**20
_REMEDY = "Ask its maker for the bundle again: prunec export RUN --bundle FILE.zip."


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read.

    Attributes:
        folder: folder of its files.
        said: prunec's section of its manifest.
        sealed: whether that section fits its own digest.
    """

    folder: Path
    said: Mapping[str, Any]
    sealed: bool

    @property
    def forms(self) -> dict[str, dict[str, Any]]:
        """Form → its entry in the manifest."""
        return dict(self.said["forms"])

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """File name → size and sha256, for every file but the manifest and the signature."""
        return dict(self.said["files"])


def is_bundle(path: Path) -> bool:
    """Return whether a path is a bundle: a zip, or a folder with a model package."""
    if path.is_dir():
        return (path / MANIFEST).is_file() and not (path / "run.json").exists()
    return path.is_file() and path.suffix.lower() == ".zip"


@contextmanager
def opened_bundle(path: Path) -> Iterator[Bundle]:
    """Yield a bundle; a zip is unpacked into a temporary folder for the duration of the block.

    Raises:
        DamagedRecord: a file is not allowed in a bundle, or does not fit the manifest.
        RunError: it cannot be read.
    """
    try:
        if path.is_dir():
            yield _read(path, path)
            return
        with tempfile.TemporaryDirectory(prefix="prunec-bundle-") as folder:
            _unpack(path, Path(folder))
            yield _read(Path(folder), path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _require_plain(path, entries)
            for entry in entries:
                place = folder / entry.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                # x: a second entry of the same name must not replace the first.
                with archive.open(entry) as source, place.open("xb") as target:
                    # 1 MiB at a time: an entry may be larger than the memory
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        raise _refused(path, f"it is not a valid zip: {error}") from None
    except FileExistsError as error:
        raise _refused(path, f"it has {Path(str(error.filename)).name} twice") from None


def _require_plain(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise _refused(path, f"it holds more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes")
    seen: set[str] = set()
    for entry in entries:
        # The upper half holds the mode of Unix.
        mode, name = entry.external_attr >> 16, entry.filename
        if wrong := name_flaw(name) or _kind_flaw(mode) or _packing_flaw(entry):
            raise _refused(path, f"its entry {name[:200]!r} {wrong}")
        if name.lower() in seen:
            raise _refused(path, f"it has the entry {name!r} twice")
        # Case: two entries may be one file on Windows and macOS.
        seen.add(name.lower())


def _kind_flaw(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "is a link"
    return "" if not stat.S_IFMT(mode) or stat.S_ISREG(mode) else "is not a regular file"


def _packing_flaw(entry: zipfile.ZipInfo) -> str:
    """Return what is wrong with how an entry is stored.

    Entries must be uncompressed, so that the declared size bounds what is unpacked.
    """
    if entry.flag_bits & 1:
        return "is encrypted"
    # zipfile cuts a name at a zero byte; another tool would read the rest.
    if entry.orig_filename != entry.filename:
        return "has two names"
    return "" if entry.compress_type == zipfile.ZIP_STORED else "is compressed"


def _read(folder: Path, path: Path) -> Bundle:
    names = _listed(folder, path)
    if MANIFEST not in names:
        raise _refused(path, f"it holds no {MANIFEST}")
    manifest = _parsed(folder / MANIFEST, path)
    said = _section(manifest, path)
    declared = {MANIFEST, *said["files"]}
    if undeclared := sorted(names - declared - {SIGNATURE}):
        raise _refused(path, f"its manifest does not declare {_some(undeclared)}")
    if missing := sorted(declared - names):
        raise _refused(path, f"it lacks {_some(missing)}")
    return Bundle(folder, said, said.get(DIGEST) == record_digest(said))


def _listed(folder: Path, path: Path) -> set[str]:
    """Return the names of all files in a folder; refuse links and special files."""
    names: set[str] = set()
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                if wrong := name_flaw(name) or _kind_of(entry):
                    raise _refused(path, f"{name[:200]!r} in it {wrong}")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    names.add(name)
        if len(names) + len(waiting) > MOST_FILES:
            raise _refused(path, f"it holds more than {MOST_FILES:,} files")
    return names


def _kind_of(entry: os.DirEntry[str]) -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    return "" if stat.S_ISDIR(mode) else _kind_flaw(mode)


def _parsed(file: Path, path: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_MANIFEST:
        raise _refused(path, f"its {MANIFEST} has more than {MOST_MANIFEST:,} bytes")
    try:
        manifest = json.loads(file.read_text("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"its {MANIFEST} is damaged: {str(error)[:200]}") from None
    if not isinstance(manifest, dict):
        raise _refused(path, f"its {MANIFEST} is not a JSON object")
    return manifest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    # Readers disagree on which of two equal keys counts.
    if len(value) != len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _section(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return prunec's section of the manifest, its structure checked."""
    more = manifest.get("additional_metadata")
    said = more.get(KEY) if isinstance(more, dict) else None
    if not isinstance(said, dict):
        raise RunError(f"{path} is a model package, but not one of prunec", remedy=_REMEDY)
    schema = said.get("schema")
    if schema != SCHEMA:
        raise RunError(
            f"{path} has the schema {str(schema)[:20]}; this prunec reads {SCHEMA}",
            remedy="Install the version of prunec that wrote it, or a later one.",
        )
    wrong = _shape_flaw(said)
    if wrong:
        raise _refused(path, f"its {MANIFEST}: {wrong}")
    # onnxruntime reads the other keys: they must not say something else.
    if manifest != model_package(said):
        raise _refused(path, f"its {MANIFEST} does not fit its section of prunec")
    return said


_PROGRAMS = (".c", ".py", ".so", ".dylib", ".dll", ".exe", ".sh")
"""Suffixes of programs, which may not be a form: verifying a bundle runs the files of its forms."""


def _shape_flaw(said: Mapping[str, Any]) -> str:
    files, forms = said.get("files"), said.get("forms")
    if not isinstance(files, dict) or not isinstance(forms, dict) or not forms:
        return "files or forms are missing"
    if not isinstance(said.get("golden"), dict) or not isinstance(said.get("feeding"), dict):
        return "golden or feeding is missing"
    for name, entry in files.items():
        if wrong := name_flaw(name) or _reserved(name):
            return f"the file {name[:200]!r} {wrong}"
        if not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
            return f"the file {name!r} has no size or digest"
    for form, entry in forms.items():
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or file not in files or not file.startswith(f"{form}/"):
            return f"the file of the form {form[:80]!r} is not declared"
        if file.lower().endswith(_PROGRAMS):
            return f"the form {form[:80]!r} is a program, which a bundle may not have"
    return ""


def _reserved(name: str) -> str:
    return "has a reserved name" if name.lower() in (SIGNATURE, MANIFEST) else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(name[:200] for name in names[:3])}{more}"


def _refused(path: Path, why: str) -> DamagedRecord:
    return DamagedRecord(f"{path} is refused: {why}", remedy=_REMEDY)
