"""Speech whose fundamental frequency is known exactly, and noise to put over it.

Two truths. *Glottal*: pulses of an own voice source through moving formants, with weak nasals, voiceless fricatives,
stops, pauses, jitter and shimmer; the truth is the contour that jitter perturbs. *World*: recordings analysed and built
anew by WORLD with a smoothed contour, which is the truth. A frame is voiced where the source that made it was.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["Signal", "add_babble", "add_white", "glottal_speech", "world_speech"]

RATE = 16000
OVERSAMPLING = 4
WORLD_HOP_S = 0.005
FINE_HOP_S = 0.001  # of the synthesis: WORLD lets F0 sink to half its value within half a hop of an unvoiced frame
WORLD_MIN_VOICED_S = 0.03
WORLD_SMOOTHING = 9  # frames of the Hann window over log F0: 45 ms

VOWELS_HZ = np.array(  # after Peterson and Barney (1952): men's i e a o u and a schwa, F1 to F3; F4 is set below
    [[270, 2290, 3010], [530, 1840, 2480], [730, 1090, 2440], [570, 840, 2410], [300, 870, 2240], [500, 1500, 2500]],
    dtype=float,
)
NASAL_HZ = np.array([260.0, 1100.0, 2200.0])
BANDWIDTHS_HZ = np.array([70.0, 100.0, 140.0, 220.0])

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Signal:
    """A waveform at 16 kHz with its F0 in hertz at every sample, 0 where it is unvoiced."""

    waveform: Waveform
    f0_hz: NDArray[np.float64]


def glottal_speech(seed: int) -> Signal:
    """Two to four seconds of a random speaker who says random syllables."""
    generator = np.random.default_rng(seed)
    rate = RATE * OVERSAMPLING
    female = generator.random() < 0.5
    base_hz = generator.uniform(160, 260) if female else generator.uniform(80, 150)
    tract = generator.uniform(1.1, 1.25) if female else generator.uniform(0.92, 1.05)
    phones = _random_phones(generator, generator.uniform(2, 4))
    count = int(sum(duration for _, duration in phones) * rate)
    contour_hz = _contour(generator, base_hz, count, rate)
    voiced, level, noise_level, formants_hz = _tracks(generator, phones, tract, count, rate)
    source, voiced = _glottal_source(
        contour_hz,
        voiced,
        rate,
        generator.uniform(0.5, 0.7),
        1 + generator.uniform(0.003, 0.012) * generator.standard_normal(5000),
        1 + generator.uniform(0.03, 0.08) * generator.standard_normal(5000),
    )
    breath = generator.uniform(0.01, 0.04) * generator.standard_normal(count) * voiced * source.std()
    frication = noise_level * generator.standard_normal(count)
    waveform = _formant_cascade(source * level + breath * level, formants_hz, BANDWIDTHS_HZ, rate)
    waveform /= np.abs(waveform).max()
    waveform += np.diff(frication, prepend=0.0) + 3e-4 * generator.standard_normal(count)
    return Signal(_decimated(0.5 * waveform), (contour_hz * voiced)[::OVERSAMPLING])


def world_speech(waveform: Waveform) -> Signal:
    """A recording at 16 kHz, resynthesised with a contour that is known."""
    import pyworld

    samples = waveform.astype(np.float64)
    raw_hz, times_s = pyworld.harvest(samples, RATE, f0_floor=60, f0_ceil=500, frame_period=1000 * WORLD_HOP_S)
    refined_hz = pyworld.stonemask(samples, raw_hz, times_s, RATE)
    aperiodicity = pyworld.d4c(samples, refined_hz, times_s, RATE, threshold=0.85)
    f0_hz = _smoothed(np.where(aperiodicity[:, 0] < 0.999, refined_hz, 0))
    envelope = pyworld.cheaptrick(samples, f0_hz, times_s, RATE)
    aperiodicity = pyworld.d4c(samples, f0_hz, times_s, RATE, threshold=0)
    aperiodicity[f0_hz == 0] = 1 - 1e-12
    fine_s = np.arange(round(times_s[-1] / FINE_HOP_S) + 1) * FINE_HOP_S
    built = pyworld.synthesize(
        _contour_at(fine_s, f0_hz), _rows_at(fine_s, envelope), _rows_at(fine_s, aperiodicity), RATE, 1000 * FINE_HOP_S
    )
    return Signal(built.astype(np.float32), _contour_at(np.arange(len(built)) / RATE, f0_hz))


def add_white(signal: Signal, snr_db: float, seed: int) -> Signal:
    """The signal with white noise ``snr_db`` below its mean power."""
    noise = np.random.default_rng(seed).standard_normal(len(signal.waveform))
    return _mixed(signal, noise, snr_db)


def add_babble(signal: Signal, voices: list[Waveform], snr_db: float, seed: int) -> Signal:
    """The signal with ``voices`` speaking at once, each of equal power, ``snr_db`` below its mean power."""
    generator = np.random.default_rng(seed)
    count = len(signal.waveform)
    babble = np.zeros(count)
    for voice in voices:
        looped = np.resize(np.roll(voice, int(generator.integers(len(voice)))), count)
        babble += looped / np.sqrt(np.mean(np.square(voice)) + 1e-12)
    return _mixed(signal, babble, snr_db)


def _mixed(signal: Signal, noise: NDArray[np.float64], snr_db: float) -> Signal:
    power = np.mean(np.square(signal.waveform, dtype=np.float64))
    gain = np.sqrt(power / np.mean(np.square(noise)) / 10 ** (snr_db / 10))
    return Signal((signal.waveform + gain * noise).astype(np.float32), signal.f0_hz)


def _random_phones(generator: np.random.Generator, duration_s: float) -> list[tuple[str, float]]:
    phones: list[tuple[str, float]] = [("pause", generator.uniform(0.1, 0.3))]
    while sum(duration for _, duration in phones) < duration_s:
        onset = generator.choice(["fricative", "stop", "nasal", "none"], p=[0.3, 0.25, 0.3, 0.15])
        if onset == "stop":
            phones += [("closure", generator.uniform(0.04, 0.08)), ("burst", generator.uniform(0.01, 0.03))]
        elif onset != "none":
            phones.append((onset, generator.uniform(0.05, 0.12)))
        phones.append(("vowel", generator.uniform(0.08, 0.25)))
        if generator.random() < 0.3:
            phones.append(("nasal", generator.uniform(0.05, 0.1)))
        if generator.random() < 0.12:
            phones.append(("pause", generator.uniform(0.1, 0.35)))
    return [*phones, ("pause", generator.uniform(0.1, 0.3))]


def _contour(generator: np.random.Generator, base_hz: float, count: int, rate: int) -> NDArray[np.float64]:
    """Declination, accents of up to half an octave, and a slow wander, kept within 65 to 450 Hz."""
    time_s = np.arange(count) / rate
    semitones = 2 - generator.uniform(1, 2) * time_s
    for _ in range(generator.integers(3, 8)):
        centre, width = generator.uniform(0, time_s[-1]), generator.uniform(0.08, 0.25)
        semitones += generator.uniform(-3, 7) * np.exp(-0.5 * ((time_s - centre) / width) ** 2)
    semitones += 0.3 * np.sin(2 * np.pi * generator.uniform(2, 5) * time_s + generator.uniform(0, 6))
    contour: NDArray[np.float64] = np.clip(base_hz * 2 ** (semitones / 12), 65, 450)
    return contour


def _tracks(
    generator: np.random.Generator, phones: list[tuple[str, float]], tract: float, count: int, rate: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Voicing, level of the voice, level of the noise and formants (sample, formant) of every sample."""
    voiced = np.zeros(count, dtype=bool)
    level, noise_level = np.zeros(count), np.zeros(count)
    knots, targets = [0.0], [VOWELS_HZ[5]]
    start_s = 0.0
    for name, duration_s in phones:
        part = slice(round(start_s * rate), round((start_s + duration_s) * rate))
        if name in ("vowel", "nasal"):
            voiced[part] = True
            level[part] = generator.uniform(0.4, 1) if name == "vowel" else generator.uniform(0.2, 0.45)
        if name in ("fricative", "burst"):
            noise_level[part] = generator.uniform(0.01, 0.06)
        knots.append(start_s + duration_s / 2)
        targets.append(NASAL_HZ if name == "nasal" else VOWELS_HZ[generator.integers(len(VOWELS_HZ))])
        start_s += duration_s
    time_s = np.arange(count) / rate
    formants_hz = np.stack([np.interp(time_s, knots, track) for track in np.array(targets).T], axis=1) * tract
    formants_hz = np.concatenate([formants_hz, np.full((count, 1), 3500 * tract)], axis=1)
    ramp = np.hanning(round(0.02 * rate))
    ramp /= ramp.sum()
    return voiced, np.convolve(level, ramp, "same"), np.convolve(noise_level, ramp, "same"), formants_hz


@njit
def _glottal_source(
    contour_hz: NDArray[np.float64],
    wanted: NDArray[np.bool_],
    rate: int,
    open_quotient: float,
    jitter: NDArray[np.float64],
    shimmer: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    # Derivative of the flow t^2 (1 - t) of each open phase (Klatt and Klatt 1990); whole periods only.
    source, voiced = np.zeros(contour_hz.size), np.zeros(contour_hz.size, dtype=np.bool_)
    place, number = 0.0, 0
    while place < contour_hz.size - 1:
        first = int(np.ceil(place))
        if not wanted[first]:
            place = first + 1.0
            continue
        halfway = min(first + int(rate / contour_hz[first] / 2), contour_hz.size - 1)
        period = rate / contour_hz[halfway] * jitter[number % jitter.size]
        open_phase = open_quotient * period
        for index in range(first, min(int(np.ceil(place + period)), contour_hz.size)):
            phase = (index - place) / open_phase
            voiced[index] = True
            if phase < 1:
                source[index] = shimmer[number % shimmer.size] * (2 * phase - 3 * phase * phase)
        place += period
        number += 1
    return source, voiced


@njit
def _formant_cascade(
    source: NDArray[np.float64], formants_hz: NDArray[np.float64], bandwidths_hz: NDArray[np.float64], rate: int
) -> NDArray[np.float64]:
    # Second-order resonators of unit gain at 0 Hz, one behind the other (Klatt 1980)
    signal = source.copy()
    for formant in range(bandwidths_hz.size):
        radius = np.exp(-np.pi * bandwidths_hz[formant] / rate)
        before, before_that = 0.0, 0.0
        for index in range(signal.size):
            b = 2 * radius * np.cos(2 * np.pi * formants_hz[index, formant] / rate)
            value = (1 - b + radius * radius) * signal[index] + b * before - radius * radius * before_that
            before, before_that = value, before
            signal[index] = value
    return signal


def _decimated(waveform: NDArray[np.float64]) -> Waveform:
    offset = np.arange(-96, 97)
    taps = np.sinc(0.97 * offset / OVERSAMPLING) * np.hanning(len(offset) + 2)[1:-1]
    return np.convolve(waveform, taps / taps.sum(), "same")[::OVERSAMPLING].astype(np.float32)


def _contour_at(time_s: NDArray[np.float64], f0_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """F0 between the frames of a contour, on a logarithmic scale; 0 where the nearest frame is unvoiced."""
    nearest = np.minimum(np.round(time_s / WORLD_HOP_S).astype(int), len(f0_hz) - 1)
    inside = np.flatnonzero(f0_hz)
    if len(inside) == 0:
        return np.zeros_like(time_s)
    contour = np.exp(np.interp(time_s, inside * WORLD_HOP_S, np.log(f0_hz[inside])))
    return np.where(f0_hz[nearest] > 0, contour, 0)


def _rows_at(time_s: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows (frame, bin) on straight lines between the frames, shape (time, bin)."""
    place = np.minimum(time_s / WORLD_HOP_S, len(rows) - 1)
    before = np.floor(place).astype(int)
    share = (place - before)[:, None]
    return (1 - share) * rows[before] + share * rows[np.minimum(before + 1, len(rows) - 1)]


def _smoothed(f0_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log F0 of each voiced stretch under a Hann window; stretches that are too short become unvoiced."""
    smoothed = np.zeros_like(f0_hz)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], f0_hz > 0, [0]])))
    window = np.hanning(WORLD_SMOOTHING + 2)[1:-1]
    for first, behind in zip(edges[::2], edges[1::2], strict=True):
        if (behind - first) * WORLD_HOP_S < WORLD_MIN_VOICED_S:
            continue
        padded = np.pad(np.log(f0_hz[first:behind]), WORLD_SMOOTHING // 2, mode="edge")
        smoothed[first:behind] = np.exp(np.convolve(padded, window / window.sum(), "valid"))
    return smoothed
