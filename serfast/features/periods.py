"""What single periods of a voice say: harmonics-to-noise ratio, jitter and shimmer.

Periods are followed from mark to mark: the next mark lies where the waveform about it correlates best with that about
the last, near the period that the pitch tracker found.

Source: Boersma (1993), Accurate short-term analysis of the fundamental frequency; Boersma (2009), Should jitter be
measured by peak picking or by waveform matching?
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.frames import first_centre
from serfast.features.options import FeatureOptions

__all__ = ["Perturbation", "harmonicity", "perturbation"]

_LEAST_HNR_DB, _MOST_HNR_DB = -20.0, 40.0
_SHORTEST, _LONGEST = 0.8, 1.25  # of the period that is expected
_REACH_MS = 30.0  # before and behind a frame's centre


class Perturbation(NamedTuple):
    """Jitter and shimmer of every frame, shape (frame,)."""

    jitter: NDArray[np.float32]
    shimmer: NDArray[np.float32]


def harmonicity(
    samples: NDArray[np.float32], f0_hz: NDArray[np.float32], options: FeatureOptions
) -> NDArray[np.float32]:
    """Harmonics-to-noise ratio in decibels of every frame, shape (frame,)."""
    correlation = np.zeros(len(f0_hz))
    _correlate_periods(samples, f0_hz, options.sample_rate, first_centre(options), options.hop, correlation)
    limits = 10.0 ** (np.array([_LEAST_HNR_DB, _MOST_HNR_DB]) / 10)
    share = np.clip(correlation, *(limits / (1 + limits)))
    return (10 * np.log10(share / (1 - share))).astype(np.float32)


def perturbation(samples: NDArray[np.float32], f0_hz: NDArray[np.float32], options: FeatureOptions) -> Perturbation:
    """Change from period to period, of length and of peak."""
    shortest = options.sample_rate / options.pitch_high_hz * _SHORTEST
    most = int(len(samples) / shortest) + len(f0_hz) + 2
    marks, peaks = np.empty(most), np.empty(most)
    first, hop = first_centre(options), options.hop
    n_marks = _follow_periods(samples, f0_hz, options.sample_rate, first, hop, marks, peaks)
    found = Perturbation(np.zeros(len(f0_hz), dtype=np.float32), np.zeros(len(f0_hz), dtype=np.float32))
    reach = _REACH_MS * options.sample_rate / 1000
    _average_changes(marks[:n_marks], peaks[:n_marks], first, hop, reach, found)
    return found


@kernel()
def _correlation(samples: NDArray[np.float32], left: int, right: int, length: int) -> float:
    # Normalised, of two stretches inside the waveform; 0 if one is silent
    product, left_energy, right_energy = 0.0, 0.0, 0.0
    for index in range(length):
        a, b = np.float64(samples[left + index]), np.float64(samples[right + index])
        product += a * b
        left_energy += a * a
        right_energy += b * b
    energy = np.sqrt(left_energy * right_energy)
    return product / energy if energy > 0 else 0.0


@kernel()
def _best_shift(
    samples: NDArray[np.float32], left: int, length: int, shortest: int, longest: int
) -> tuple[float, float]:
    # Shift of the stretch at `left` that correlates best, refined by a parabola, and the correlation there; (0, 0) if
    # the waveform ends before
    if left < 0 or left + length + longest + 1 > samples.size:
        return 0.0, 0.0
    best, best_shift = -2.0, shortest
    for shift in range(shortest, longest + 1):
        value = _correlation(samples, left, left + shift, length)
        if value > best:
            best, best_shift = value, shift
    before = _correlation(samples, left, left + best_shift - 1, length)
    after = _correlation(samples, left, left + best_shift + 1, length)
    slope, curvature = 0.5 * (after - before), 2 * best - before - after
    if curvature <= 0 or abs(slope) > curvature:
        return float(best_shift), best
    return best_shift + slope / curvature, min(best + 0.5 * slope * slope / curvature, 1.0)


@kernel()
def _correlate_periods(
    samples: NDArray[np.float32],
    f0_hz: NDArray[np.float32],
    sample_rate: int,
    first: int,
    hop: int,
    correlation: NDArray[np.float64],  # (frame), zeros
) -> None:
    # Two periods before the centre with the two periods a period later, which lie half a period nearer to it.
    for frame in range(f0_hz.size):
        if f0_hz[frame] == 0:
            continue
        period = int(sample_rate / f0_hz[frame] + 0.5)
        left = first + frame * hop - period - period // 2
        left = max(0, min(left, samples.size - 3 * period - 4))
        _, correlation[frame] = _best_shift(samples, left, 2 * period, period - 2, period + 2)


@kernel()
def _follow_periods(
    samples: NDArray[np.float32],
    f0_hz: NDArray[np.float32],
    sample_rate: int,
    first: int,
    hop: int,
    marks: NDArray[np.float64],  # (mark): place in samples; NaN between two voiced stretches
    peaks: NDArray[np.float64],  # (mark): highest magnitude in the period about it
) -> int:
    n_marks = 0
    place = -1.0
    for frame in range(f0_hz.size):
        if f0_hz[frame] == 0:
            if place >= 0:
                marks[n_marks] = np.nan
                n_marks += 1
            place = -1.0
            continue
        expected = sample_rate / f0_hz[frame]
        half = int(expected / 2)
        centre = first + frame * hop
        if place < 0:
            start = max(half, centre - half)
            stop = min(samples.size - half, centre + half + 1)
            if start >= stop:
                continue
            place = start + np.argmax(np.abs(samples[start:stop]))
        while place <= centre + hop / 2:
            left = int(place + 0.5) - half
            shift, _ = _best_shift(samples, left, 2 * half, int(_SHORTEST * expected), int(_LONGEST * expected) + 1)
            if shift == 0:
                break
            marks[n_marks] = place
            peaks[n_marks] = np.abs(samples[left : left + 2 * half]).max()
            n_marks += 1
            place = int(place + 0.5) + shift
    return n_marks


@kernel()
def _average_changes(
    marks: NDArray[np.float64], peaks: NDArray[np.float64], first: int, hop: int, reach: float, found: Perturbation
) -> None:
    begin = 0
    for frame in range(found.jitter.size):
        centre = first + frame * hop
        while begin < marks.size and not marks[begin] >= centre - reach:
            begin += 1
        n_changes, length, change, peak, peak_change = 0, 0.0, 0.0, 0.0, 0.0
        index = begin + 2
        while index < marks.size and not marks[index] > centre + reach:
            period, before = marks[index] - marks[index - 1], marks[index - 1] - marks[index - 2]
            if not np.isnan(period + before):
                n_changes += 1
                length += period
                change += abs(period - before)
                peak += peaks[index - 1]
                peak_change += abs(peaks[index - 1] - peaks[index - 2])
            index += 1
        if n_changes > 0:
            found.jitter[frame] = change / length
            found.shimmer[frame] = peak_change / peak if peak > 0 else 0.0
