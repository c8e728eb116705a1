"""UCI's Human Activity Recognition Using Smartphones: nine signals of 128 steps, six activities.

Layout of the unpacked archive; SPLIT is ``train`` or ``test``:

    UCI HAR Dataset/activity_labels.txt                        1 WALKING …
    UCI HAR Dataset/SPLIT/y_SPLIT.txt                          one number per line, from 1
    UCI HAR Dataset/SPLIT/Inertial Signals/SIGNAL_SPLIT.txt    128 numbers per line
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunec.datasets.sequences import standard_of, unreadable
from prunec.datasets.sources import InMemory, Split
from prunec.errors import DataError
from prunec.recipe import DataSpec

FOLDER = "UCI HAR Dataset"
SOURCE = "https://archive.ics.uci.edu/dataset/240"
SIGNALS = tuple(
    f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
STEPS = 128


def read_har(spec: DataSpec) -> InMemory:
    """Load sequences float32 [N, 9, 1, 128] of both splits, each signal standardised.

    Raises:
        DataError: a file is missing; names it.
        DamagedData: a file does not have the expected contents.
    """
    root = Path(spec.root)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    labels = _activities(root / "activity_labels.txt")
    (train, train_labels), (test, test_labels) = (
        _split(root, name, len(labels)) for name in ("train", "test")
    )
    standard = standard_of(train)
    return InMemory(
        Split(standard(train), train_labels),
        Split(standard(test), test_labels),
        labels,
        standard=standard,
    )


def _activities(path: Path) -> tuple[str, ...]:
    rows = [line.split() for line in _text(path).splitlines() if line.strip()]
    if not rows or [row[0] for row in rows] != [str(i + 1) for i in range(len(rows))]:
        raise unreadable(str(path), "it does not number the activities from 1, one per line")
    return tuple(" ".join(row[1:]).lower() for row in rows)


def _split(root: Path, split: str, classes: int) -> tuple[Tensor, Tensor]:
    folder = root / split
    path = folder / f"y_{split}.txt"
    labels = _numbers(path, 1, np.int64)[:, 0] - 1
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise unreadable(str(path), f"it has a number that is not from 1 to {classes}")
    signals = []
    for signal in SIGNALS:
        path = folder / "Inertial Signals" / f"{signal}_{split}.txt"
        values = _numbers(path, STEPS, np.float32)
        if len(values) != len(labels):
            raise unreadable(
                str(path), f"it has {len(values)} lines, y_{split}.txt has {len(labels)}"
            )
        signals.append(torch.from_numpy(values))
    return torch.stack(signals, 1).unsqueeze(2), torch.from_numpy(labels)


def _numbers(path: Path, columns: int, kind: Any) -> Any:
    """Read rows of finite numbers from a text file."""
    lines = _text(path).splitlines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is refused below
            rows = np.loadtxt(lines, dtype=kind, ndmin=2)
    except ValueError as error:
        raise unreadable(str(path), str(error).partition(";")[0].rstrip(".")) from None
    if not len(rows) or rows.shape[1] != columns:
        many = rows.shape[1] if len(rows) else 0
        raise unreadable(str(path), f"it has {many} numbers per line, {columns} are needed")
    if not np.isfinite(rows).all():
        raise unreadable(str(path), "it has a number that is not finite")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except UnicodeDecodeError:
        raise unreadable(str(path), "it is not a text of numbers") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}",
            remedy=f"Download the archive from {SOURCE}, unpack it, and set data.root to the "
            f'folder of "{FOLDER}".',
        ) from error
