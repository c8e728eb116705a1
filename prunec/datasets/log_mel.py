"""Log-mel features of a second of speech: 32 filters, windows of 25 ms, every 10 ms, 99 steps."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

RATE = 16_000  # samples per second
WINDOW, HOP, LENGTH = 400, 160, 512  # samples: window, distance of windows, FFT
FILTERS, STEPS = 32, 99  # 99 = (16,000 − 160) / 160 steps of 10 ms
LOWEST, HIGHEST = 20.0, 8000.0  # Hz: the lower limit of hearing, and half the sampling rate
FLOOR = 1e-6  # power below which samples count as silence; keeps the logarithm finite


def log_mel(samples: Tensor) -> Tensor:
    """Return log-mel features, float32 [32, 1, 99], of one second of samples [16000] in [−1, 1].

    log(power of a Hann window's spectrum · triangular mel filters + floor); the last window is
    padded with zeros.
    """
    lacking = (STEPS - 1) * HOP + WINDOW - len(samples)
    frames = torch.nn.functional.pad(samples, (0, lacking)).unfold(0, WINDOW, HOP)
    spectrum = torch.fft.rfft(frames * torch.hann_window(WINDOW), n=LENGTH)
    power = spectrum.real**2 + spectrum.imag**2
    return torch.log(power @ filters() + FLOOR).t().unsqueeze(1).contiguous()


@cache
def filters() -> Tensor:
    """Return the filters [257, 32]: triangles of height 1, evenly spaced in mel.

    mel(f) = 2595·log₁₀(1 + f/700) (O'Shaughnessy, Speech Communication, 1987).
    """
    ends = 2595 * torch.log10(1 + torch.tensor([LOWEST, HIGHEST], dtype=torch.float64) / 700)
    mel = torch.linspace(float(ends[0]), float(ends[1]), FILTERS + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    bins = torch.arange(LENGTH // 2 + 1, dtype=torch.float64).unsqueeze(1) * RATE / LENGTH
    rising = (bins - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins) / (hertz[2:] - hertz[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
