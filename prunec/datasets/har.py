"""UCI's Human Activity Recognition Using Smartphones: nine signals of 128 steps, six activities.

The folder as its archive unpacks it; SPLIT is ``train`` or ``test``:

    UCI HAR Dataset/activity_labels.txt                        1 WALKING …
    UCI HAR Dataset/SPLIT/y_SPLIT.txt                          a number a line, from 1
    UCI HAR Dataset/SPLIT/Inertial Signals/SIGNAL_SPLIT.txt    128 numbers a line
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
    """Return sequences float32 [N, 9, 1, 128] of both splits, each signal standardised.

    Raises:
        DataError: a file is missing; says which.
        DamagedData: a file does not hold what it should.
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
        raise unreadable(str(path), "it does not number the activities from 1, one a line")
    return tuple(" ".join(row[1:]).lower() for row in rows)


def _split(root: Path, split: str, classes: int) -> tuple[Tensor, Tensor]:
    folder = root / split
    path = folder / f"y_{split}.txt"
    labels = _numbers(path, 1, np.int64)[:, 0] - 1
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise unreadable(str(path), f"it holds a number that is not from 1 to {classes}")
    signals = []
    for signal in SIGNALS:
        path = folder / "Inertial Signals" / f"{signal}_{split}.txt"
        found = _numbers(path, STEPS, np.float32)
        if len(found) != len(labels):
            raise unreadable(
                str(path), f"it has {len(found)} lines, y_{split}.txt has {len(labels)}"
            )
        signals.append(torch.from_numpy(found))
    return torch.stack(signals, 1).unsqueeze(2), torch.from_numpy(labels)


def _numbers(path: Path, columns: int, kind: Any) -> Any:
    """Rows of finite numbers of a text file."""
    lines = _text(path).splitlines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file without lines
            found = np.loadtxt(lines, dtype=kind, ndmin=2)
    except ValueError as error:
        raise unreadable(str(path), str(error).partition(";")[0].rstrip(".")) from None
    if not len(found) or found.shape[1] != columns:
        many = found.shape[1] if len(found) else 0
        raise unreadable(str(path), f"it has {many} numbers a line, {columns} are wanted")
    if not np.isfinite(found).all():
        raise unreadable(str(path), "it holds a number that is not finite")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except UnicodeDecodeError:
        raise unreadable(str(path), "it is no text of numbers") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}",
            remedy=f"Fetch the archive from {SOURCE}, unpack it, and let data.root be the folder "
            f'that holds "{FOLDER}".',
        ) from error
