"""Google's speech commands (Warden 2018, arXiv 1804.03209): one second of a spoken word per file.

    WORD/*.wav                16 kHz, one channel, 16 bits
    _background_noise_/*.wav  longer
    validation_list.txt       one WORD/FILE.wav per line: not used for training
    testing_list.txt          the test split

Features are computed when a clip is read, in half a millisecond. Computed in advance, they would
take a gigabyte in every command that opens the set, most of which read no clip.
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
SHARE = 10  # silence and unknown have a tenth of the ten words' clips each (Warden 2018, §7.1)
MEASURED = 512  # training clips from which mean and deviation are computed: a quarter second


@dataclass(frozen=True)
class Clip:
    """One second of a file, from sample ``start`` on, scaled by ``volume``."""

    path: str
    label: int
    start: int = 0
    volume: float = 1.0


class Clips:
    """Clips, each read on demand; names are kept in one array, as in ``FileImages``."""

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
        """Return the kind of a clip: the same for all."""
        return "WAV, 16 kHz, 16 bits"

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation."""
        return torch.randperm(len(self), generator=generator)

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.paths[index])


def read_second(path: Path, start: int = 0) -> Tensor:
    """Return one second of samples from ``start`` on, float32 [16000] in [−1, 1), zero-padded.

    Raises:
        DamagedData: it is not a WAV file of 16 kHz, one channel and 16 bits.
    """
    try:
        with wave.open(str(path), "rb") as file:
            format_of = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            if format_of != (RATE, 1, 16):
                raise wave.Error(
                    "it has {} Hz, {} channels and {} bits".format(*format_of)
                    + f", {RATE} Hz, 1 channel and 16 bits are needed"
                )
            file.setpos(min(start, file.getnframes()))
            content = file.readframes(RATE)
    except (OSError, EOFError, wave.Error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it ends too early"
        raise unreadable(str(path), reason) from error
    if not content:
        raise unreadable(str(path), "it has no sample")
    samples = torch.from_numpy(np.frombuffer(content[: len(content) // 2 * 2], "<i2").copy())
    # 2¹⁵: 16-bit samples lie in [−32768, 32767].
    return torch.nn.functional.pad(samples.float() / 32768, (0, RATE - len(samples)))


def read_words(spec: DataSpec) -> OnDisk:
    """Open the data set with one class per word that has a folder.

    Raises:
        DataError: the files are missing.
    """
    root = Path(spec.root)
    files = _files(root)
    labels = tuple(files)
    train, test = _split(root, files)

    def clips(names: Sequence[str]) -> list[Clip]:
        return [Clip(name, labels.index(name.partition("/")[0])) for name in names]

    return _standardised(root, clips(train), clips(test), labels)


def read_twelve(spec: DataSpec) -> OnDisk:
    """Open the data set with twelve classes: ten words, silence (noise), unknown (other words).

    Raises:
        DataError: the files are missing, or those of a word or of noise.
    """
    root = Path(spec.root)
    files = _files(root)
    lacking = [word for word in WORDS if word not in files]
    noises = sorted(path.name for path in (root / NOISE).glob("*.wav"))
    if lacking or not noises:
        raise _missing(f"{root} lacks {', '.join(lacking) or f'{NOISE}/*.wav'}")
    generator = torch.Generator().manual_seed(0)  # fixed: the data set is the same for every run
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
    """Return a random second of a file of noise, at a random volume."""
    try:
        with wave.open(str(root / NOISE / name), "rb") as file:
            room = max(file.getnframes() - RATE, 0)
    except (OSError, EOFError, wave.Error) as error:
        raise unreadable(str(root / NOISE / name), str(error) or "it ends too early") from error
    place, volume = torch.rand(2, generator=generator).tolist()
    return Clip(f"{NOISE}/{name}", len(WORDS), int(place * room), volume)


def _files(root: Path) -> dict[str, list[str]]:
    """Return word → its files, both sorted."""
    try:
        folders = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] not in "_.")
    except OSError:
        folders = []
    by_word = {
        word: sorted(f"{word}/{path.name}" for path in (root / word).glob("*.wav"))
        for word in folders
    }
    by_word = {word: names for word, names in by_word.items() if names}
    if not by_word:
        raise _missing(f"no WORD/*.wav was found in {root}")
    return by_word


def _split(root: Path, files: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Return the files of the training split and of the test split."""
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
            raise _missing(f"{root} has no {which} file: its lists name all files or none")
    return train, test


def _standardised(
    root: Path, train: Sequence[Clip], test: Sequence[Clip], labels: tuple[str, ...]
) -> OnDisk:
    """Standardise both splits by mean and deviation of evenly spaced training clips."""
    plain = Clips(root, train)
    measured = []
    for index in range(0, len(train), -(-len(train) // MEASURED)):
        try:
            measured.append(plain[index][0])
        except DamagedData:  # reported when it is trained on, and by `prunec data check`
            continue
    if not measured:
        raise _missing(f"no clip of {root} can be read")
    standard = standard_of(torch.stack(measured))
    first, second = (Clips(root, half, standard) for half in (train, test))
    return OnDisk(first, second, labels, standard=standard)


def _missing(what: str) -> DataError:
    return DataError(
        what,
        remedy=f"Download {SOURCE} and unpack it into the folder of data.root.",
    )
