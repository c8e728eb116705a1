"""Google's speech commands (Warden 2018, arXiv 1804.03209): a second of a spoken word a file.

    WORD/*.wav                16 kHz, one channel, 16 bits
    _background_noise_/*.wav  longer
    validation_list.txt       WORD/FILE.wav a line: left out of training
    testing_list.txt          the test split

Features are computed when a clip is read: half a millisecond, where all of them would be a gigabyte
held by every command that opens the set, most of which read none.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunec.datasets.log_mel import RATE, log_mel
from prunec.datasets.sequences import Standard, standard_of, unreadable
from prunec.datasets.sources import OnDisk
from prunec.errors import DamagedData, DataError
from prunec.recipe import DataSpec

SOURCE = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
NOISE = "_background_noise_"
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE, UNKNOWN = "silence", "unknown"
SHARE = 10  # a tenth as many clips of either as of the ten words
MEASURED = 512  # training clips that the standard is taken of


@dataclass(frozen=True)
class Clip:
    """A second of a file: from which sample on, and how loud."""

    path: str
    label: int
    start: int = 0
    volume: float = 1.0


class Clips:
    """Clips, each read when it is asked for; their names stand in one array, as photographs' do."""

    def __init__(
        self, folder: Path, clips: Sequence[Clip], standard: Standard | None = None
    ) -> None:
        self.folder, self.standard = folder, standard
        self.paths = np.array([os.fsencode(clip.path) for clip in clips])
        self.labels = torch.tensor([clip.label for clip in clips])
        self.starts = torch.tensor([clip.start for clip in clips])
        self.volumes = torch.tensor([clip.volume for clip in clips])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        samples = read_second(self._path(index), int(self.starts[index]))
        features = log_mel(samples * self.volumes[index])
        if self.standard is not None:
            features = self.standard(features)
        return features, int(self.labels[index])

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self._path(index))

    def kind(self, index: int) -> str:
        """Return what every clip is."""
        return "WAV, 16 kHz, 16 bits"

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation."""
        return torch.randperm(len(self), generator=generator)

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.paths[index])


def read_second(path: Path, start: int = 0) -> Tensor:
    """Return samples float32 [16000] in [−1, 1) from ``start`` on; zeros where the file ends.

    Raises:
        DamagedData: it is no WAV file of 16 kHz, one channel and 16 bits.
    """
    try:
        with wave.open(str(path), "rb") as file:
            found = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            if found != (RATE, 1, 16):
                raise wave.Error(
                    "it has {} Hz, {} channels and {} bits".format(*found)
                    + f", {RATE} Hz, 1 channel and 16 bits are wanted"
                )
            file.setpos(min(start, file.getnframes()))
            content = file.readframes(RATE)
    except (OSError, EOFError, wave.Error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it ends too early"
        raise unreadable(str(path), reason) from error
    if not content:
        raise unreadable(str(path), "it holds no sample")
    samples = torch.from_numpy(np.frombuffer(content[: len(content) // 2 * 2], "<i2").copy())
    return torch.nn.functional.pad(samples.float() / 32768, (0, RATE - len(samples)))


def read_words(spec: DataSpec) -> OnDisk:
    """Return the set of every word that has a folder.

    Raises:
        DataError: it is not there.
    """
    root = Path(spec.root)
    files = _files(root)
    labels = tuple(files)
    train, test = _split(root, files)

    def clips(names: Sequence[str]) -> list[Clip]:
        return [Clip(name, labels.index(name.partition("/")[0])) for name in names]

    return _standardised(root, clips(train), clips(test), labels)


def read_twelve(spec: DataSpec) -> OnDisk:
    """Return ten words, silence (noise of any loudness) and unknown (other words): twelve classes.

    Raises:
        DataError: it is not there, or lacks a word or noise.
    """
    root = Path(spec.root)
    files = _files(root)
    lacking = [word for word in WORDS if word not in files]
    noises = sorted(path.name for path in (root / NOISE).glob("*.wav"))
    if lacking or not noises:
        raise _missing(f"{root} lacks {', '.join(lacking) or f'{NOISE}/*.wav'}")
    generator = torch.Generator().manual_seed(0)  # of the set, not of a run
    halves = []
    for names in _split(root, files):
        known = [
            Clip(n, WORDS.index(word)) for n in names if (word := n.partition("/")[0]) in WORDS
        ]
        others = [n for n in names if n.partition("/")[0] not in WORDS]
        many = -(-len(known) // SHARE)
        picked = torch.randperm(len(others), generator=generator)[:many].tolist()
        unknown = [Clip(others[place], len(WORDS) + 1) for place in picked]
        silent = [_noise(root, noises[i % len(noises)], generator) for i in range(many)]
        halves.append([*known, *silent, *unknown])
    return _standardised(root, halves[0], halves[1], (*WORDS, SILENCE, UNKNOWN))


def _noise(root: Path, name: str, generator: torch.Generator) -> Clip:
    """A second anywhere in a file of noise, of any loudness."""
    try:
        with wave.open(str(root / NOISE / name), "rb") as file:
            room = max(file.getnframes() - RATE, 0)
    except (OSError, EOFError, wave.Error) as error:
        raise unreadable(str(root / NOISE / name), str(error) or "it ends too early") from error
    place, volume = torch.rand(2, generator=generator).tolist()
    return Clip(f"{NOISE}/{name}", len(WORDS), int(place * room), volume)


def _files(root: Path) -> dict[str, list[str]]:
    """Word → its files, both in order."""
    try:
        folders = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] not in "_.")
    except OSError:
        folders = []
    found = {
        word: sorted(f"{word}/{path.name}" for path in (root / word).glob("*.wav"))
        for word in folders
    }
    found = {word: names for word, names in found.items() if names}
    if not found:
        raise _missing(f"no WORD/*.wav was found in {root}")
    return found


def _split(root: Path, files: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Files of the training split and of the test split."""
    lists = []
    for name in ("validation_list.txt", "testing_list.txt"):
        try:
            lists.append(set((root / name).read_text("utf-8").split()))
        except (OSError, UnicodeDecodeError) as error:
            raise _missing(f"{root / name} cannot be read") from error
    everything = [name for names in files.values() for name in names]
    validation, testing = lists
    train = [name for name in everything if name not in validation and name not in testing]
    test = [name for name in everything if name in testing]
    for half, which in ((train, "training"), (test, "test")):
        if not half:
            raise _missing(f"{root} has no {which} file: its lists name all files, or none of them")
    return train, test


def _standardised(
    root: Path, train: Sequence[Clip], test: Sequence[Clip], labels: tuple[str, ...]
) -> OnDisk:
    """Both splits, by the standard of some training clips that lie evenly in it."""
    plain = Clips(root, train)
    measured = []
    for index in range(0, len(train), -(-len(train) // MEASURED)):
        try:
            measured.append(plain[index][0])
        except DamagedData:  # is told where it is trained on, and by `prunec data check`
            continue
    if not measured:
        raise _missing(f"no clip of {root} can be read")
    standard = standard_of(torch.stack(measured))
    first, second = (Clips(root, half, standard) for half in (train, test))
    return OnDisk(first, second, labels, standard=standard)


def _missing(what: str) -> DataError:
    return DataError(
        what,
        remedy=f"Fetch {SOURCE} and unpack it into the folder that data.root names.",
    )
