"""A voice of known jitter, one that glides, and noise, for the tests and for what is frozen from other programs."""

import numpy as np
from numpy.typing import NDArray

RATE = 16000
PERTURBATIONS = ((0.005, 0.02), (0.012, 0.06))  # jitter and shimmer of the voices that Praat measured

__all__ = ["PERTURBATIONS", "RATE", "gliding_voice", "pulsed_voice", "steep_noise"]


def gliding_voice(sample_rate: int = RATE, duration_s: float = 1.5) -> NDArray[np.float32]:
    """A gliding voice, then breath noise 50 dB below, then silence."""
    count = int(sample_rate * duration_s)
    phase = 2 * np.pi * np.cumsum(np.geomspace(90, 260, count)) / sample_rate
    voice = sum(np.sin(order * phase) / order**1.5 for order in range(1, 30))
    noise = 0.003 * np.random.default_rng(1).standard_normal(count)
    place = np.arange(count) / count
    return (0.2 * np.where(place < 0.5, voice + noise, np.where(place < 0.8, noise, 0))).astype(np.float32)


def steep_noise(duration_s: float = 1.0) -> NDArray[np.float32]:
    """Noise of 16-bit steps whose lowest bands are 80 dB below its highest."""
    noise = np.random.default_rng(0).integers(-200, 201, int(RATE * duration_s))
    return np.diff(noise, n=6).astype(np.float32) / 32768


def pulsed_voice(jitter: float, shimmer: float, duration_s: float = 2.0) -> NDArray[np.float32]:
    """Damped resonances at 140 Hz; periods and peaks scatter normally about their means."""
    generator = np.random.default_rng(0)
    count = int(RATE * duration_s)
    time_s = np.arange(count) / RATE
    waveform = np.zeros(count)
    place_s = 0.01
    while place_s < duration_s - 0.02:
        since_s = np.maximum(time_s - place_s, 0)
        gain = 1 + shimmer * generator.standard_normal()
        waveform += gain * np.exp(-since_s * 700) * np.sin(2 * np.pi * 600 * since_s)
        place_s += (1 + jitter * generator.standard_normal()) / 140
    return (0.3 * waveform).astype(np.float32)
