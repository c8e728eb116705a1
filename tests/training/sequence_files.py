"""Sequences in folders, as the archives of HAR and of the speech commands unpack them."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from prunec.datasets.har import SIGNALS
from prunec.datasets.speech import WORDS

ACTIVITIES = (
    "WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING",
)  # fmt: skip


def write_har(root: Path, train: int = 12, test: int = 6) -> Path:
    """UCI's folder: noise about a mean and of a size that differ by signal."""
    folder = root / "UCI HAR Dataset"
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        (folder / split / "Inertial Signals").mkdir(parents=True)
        labels = "".join(f"{k % 6 + 1}\n" for k in range(count))
        (folder / split / f"y_{split}.txt").write_text(labels)
        for place, signal in enumerate(SIGNALS):
            rows = place + (place + 1) * generator.normal(size=(count, 128))
            text = "".join("".join(f" {v: .7e}" for v in row) + "\n" for row in rows)
            (folder / split / "Inertial Signals" / f"{signal}_{split}.txt").write_text(text)
    lines = "".join(f"{i} {name}\n" for i, name in enumerate(ACTIVITIES, 1))
    (folder / "activity_labels.txt").write_text(lines)
    return folder


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, dtype="<i2").tobytes())


def tone(hertz: float, seconds: float = 1.0, size: float = 8000) -> np.ndarray:
    times = np.arange(int(16000 * seconds)) / 16000
    return size * np.sin(2 * np.pi * hertz * times)


def write_speech(
    root: Path, each: int = 4, words: tuple[str, ...] = (*WORDS, "bed", "cat")
) -> Path:
    """Tones for words: of every word one clip for validation, one for test, the rest to train."""
    for place, word in enumerate(words):
        for k in range(each):
            seconds = 0.8 if k == 0 else 1.0
            write_wav(root / word / f"{k}_nohash_0.wav", tone(200 + 150 * place + k, seconds))
    write_wav(root / "_background_noise_" / "hum.wav", tone(50, 3.0))
    write_wav(root / "_background_noise_" / "hiss.wav", tone(5000, 2.0))
    for name, k in (("validation", 1), ("testing", 0)):
        (root / f"{name}_list.txt").write_text("".join(f"{w}/{k}_nohash_0.wav\n" for w in words))
    return root
