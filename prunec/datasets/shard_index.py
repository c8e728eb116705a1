"""Index of tar shards: shard, offset, size and label of every sample.

Shards are in the WebDataset format: plain tar files in which the files of a sample are adjacent and
share their name up to the first dot, `0017.jpg` and `0017.cls`. Once the headers are known, a
sample is a single read at a known offset. Shards therefore allow the same as images in folders: any
order, resuming at any step, parts per process; Python's tarfile is enough to read them. The index
is stored beside the shards with its digest; it is rebuilt if the digest does not fit, and for a
shard of changed size or time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import add
from pathlib import Path

from prunec.errors import DamagedData, DataError, RunError
from prunec.files import write_bytes_atomic
from prunec.wording import shortened, some_of

FORMAT = 2
IMAGES = ("jpg", "jpeg", "png", "webp")
LABEL = "cls"
END = bytes(tarfile.BLOCKSIZE)  # end mark of a tar file: a block of zeros
LONGEST_LABEL = 20  # bytes of a .cls file, with whitespace: more is not a class number
READERS = 8  # shards indexed concurrently, in threads: the time goes into waiting for the disk


@dataclass(frozen=True)
class Shard:
    """Samples of a tar file, in their order.

    Attributes:
        size: size of the file in bytes.
        modified: time of modification in nanoseconds.
        members: names of the images in the tar.
        offsets: offsets of their bytes.
        sizes: numbers of their bytes.
        labels: their classes.
    """

    size: int
    modified: int
    members: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[int]

    def is_of(self, path: Path) -> bool:
        """Return whether the file is unchanged since its headers were read."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (self.size, self.modified) == (status.st_size, status.st_mtime_ns)

    def is_sound(self) -> bool:
        """Return whether the types are right and every sample lies within the file."""
        columns = self.offsets, self.sizes, self.labels
        if any(type(column) is not list for column in (self.members, *columns)):
            return False
        if any(len(column) != len(self.members) for column in columns):
            return False
        numbers = (self.size, self.modified, *self.offsets, *self.sizes, *self.labels)
        if not all(type(value) is int and 0 <= value < 2**63 for value in numbers):
            return False
        ends = map(add, self.offsets, self.sizes)
        return max(ends, default=0) <= self.size and all(type(n) is str for n in self.members)


def indexed(paths: Sequence[Path], index: Path) -> list[Shard]:
    """Return the samples of shards, from the index or else from their headers.

    Args:
        paths: paths of tar files in one folder.
        index: file of the index; updated if it can be written.

    Raises:
        DamagedData: a shard is not a tar file, or is truncated.
        DataError: a sample has no label, or two.
    """
    known = _read_index(index)
    shards = {path: known[path] for path in paths if path in known and known[path].is_of(path)}
    missing = [path for path in paths if path not in shards]
    with ThreadPoolExecutor(READERS) as readers:
        read = list(readers.map(_shard_or_error, missing))
    broken = [one for one in read if isinstance(one, DamagedData)]
    shards |= {p: s for p, s in zip(missing, read, strict=True) if isinstance(s, Shard)}
    if missing:
        _write_index(index, shards)
    if broken:
        raise DamagedData(some_of(error.message for error in broken), remedy=broken[0].remedy)
    return [shards[path] for path in paths]


def _shard_or_error(path: Path) -> Shard | DamagedData:
    try:
        return read_shard(path)
    except DamagedData as error:
        return error


def read_shard(path: Path) -> Shard:
    """Read the samples of one shard from its headers; errors are those of :func:`indexed`."""
    samples: dict[str, _Sample] = {}
    try:
        status = path.stat()
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in _members(tar, status.st_size):
                _note(samples, tar, member, path)
            file.seek(tar.offset)
            ended = file.read(len(END)) == END
    except OSError as error:
        raise _broken(path, (error.strerror or str(error)).lower()) from error
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise _broken(path, str(error)) from error
    if not ended:  # tarfile takes a truncated or damaged header for the end
        raise _broken(path, f"it is damaged or cut off after {len(samples)} samples")
    samples_and_labels = [sample.checked(key, path) for key, sample in samples.items()]
    images = [image for image, _ in samples_and_labels]
    return Shard(
        size=status.st_size,
        modified=status.st_mtime_ns,
        members=[image.name for image in images],
        offsets=[image.offset_data for image in images],
        sizes=[image.size for image in images],
        labels=[label for _, label in samples_and_labels],
    )


def _members(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file of ``size`` bytes.

    Raises:
        tarfile.ReadError: a member does not follow the one before, or lies outside the file;
            tarfile itself would loop forever on such a header.
    """
    behind = 0
    for member in tar:
        ended = member.offset_data + member.size
        if member.size < 0 or member.offset < behind or ended > size:
            raise tarfile.ReadError(f"the header of {shortened(member.name)} is damaged")
        if member.sparse is not None:
            raise tarfile.ReadError(f"{shortened(member.name)} is a sparse file: not supported")
        behind = max(ended, member.offset + tarfile.BLOCKSIZE)
        yield member


@dataclass
class _Sample:
    """Files of a sample that were seen so far."""

    image: tarfile.TarInfo | None = None
    label: int | None = None

    def checked(self, key: str, path: Path) -> tuple[tarfile.TarInfo, int]:
        if self.image is not None and self.label is not None:
            return self.image, self.label
        lacks = "label (.cls)" if self.label is None else f"image ({_suffixes()})"
        raise DataError(f"{path}: the sample {key} has no {lacks}", remedy=_LAYOUT)


def _note(
    samples: dict[str, _Sample], tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path
) -> None:
    """Add a member of the tar to its sample; ignore files that are neither image nor label."""
    folder, _, file = member.name.rpartition("/")
    stem, _, suffix = file.partition(".")
    suffix = suffix.lower()
    if not (member.isfile() and stem and (suffix == LABEL or suffix in IMAGES)):
        return
    key = f"{folder}/{stem}" if folder else stem
    sample = samples.setdefault(key, _Sample())
    if (sample.label if suffix == LABEL else sample.image) is not None:
        kind = "labels" if suffix == LABEL else "images"
        raise DataError(f"{path}: the sample {key} has two {kind}", remedy=_LAYOUT)
    if suffix == LABEL:
        sample.label = _label(tar, member, path)
    else:
        sample.image = member


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    content = tar.extractfile(member) if member.size <= LONGEST_LABEL else None
    text = content.read() if content else b""
    if not text.strip().isdigit():
        held = f"holds {text!r}" if content else f"holds {member.size:,} bytes"
        raise DataError(
            f"{path}: {shortened(member.name)} {held}, which is not the number of a class",
            remedy="Write the class as a whole number from 0, in digits.",
        )
    return int(text)


def _broken(path: Path, reason: str) -> DamagedData:
    return DamagedData(
        f"{path} cannot be read as a tar file: {reason}",
        remedy="Write or download the shard again.",
    )


def _suffixes() -> str:
    return ", ".join(f".{suffix}" for suffix in IMAGES)


_LAYOUT = (
    f"A sample is an image ({_suffixes()}) and its label (.{LABEL}), two files with the same name "
    "up to the first dot; `docs/data.md` shows how to write shards."
)


def _read_index(path: Path) -> dict[Path, Shard]:
    """Read an index; empty where it is missing, of another format, or damaged."""
    try:
        text = path.read_bytes()
        body = text[len(_head(b"")) : -1]
        if not text.startswith(_head(body)):
            return {}
        shards = {path.parent / name: Shard(**s) for name, s in json.loads(body).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {shard: known for shard, known in shards.items() if known.is_sound()}


def _write_index(path: Path, shards: dict[Path, Shard]) -> None:
    content = {shard.name: vars(samples) for shard, samples in shards.items()}
    body = json.dumps(content, separators=(",", ":")).encode()
    # Shards are often on read-only storage; then every run reads the headers.
    with contextlib.suppress(RunError):
        write_bytes_atomic(path, _head(body) + body + b"}")


def _head(body: bytes) -> bytes:
    """Return the start of the text of an index: format and digest of the part on shards."""
    digest = hashlib.sha256(body).hexdigest()
    return f'{{"format":{FORMAT},"sha256":"{digest}","shards":'.encode()


def labels_of(shards: Iterable[Shard]) -> set[int]:
    """Return the classes of all samples."""
    return {label for shard in shards for label in shard.labels}
