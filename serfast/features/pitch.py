"""Fundamental frequency: normalised cross-correlation, and one path through its peaks over the whole utterance.

1. The waveform loses its mean, is scaled to unit mean square, low-passed at 1.5 kHz and decimated to about 8 kHz.
2. Peaks of the correlation of two windows of 15 ms, refined by a parabola, are a frame's candidates.
3. Correlation and energies, of the frame and its neighbours, say how likely the frame is to be voiced.
4. Viterbi's algorithm picks the path of least cost through candidates and unvoiced stretches.
5. The periods on the path are measured anew without the bias of moving formants, several at once where they are noisy,
   and a smooth contour goes through them.

Sources: Talkin (1995), A robust algorithm for pitch tracking; Boersma (1993), Accurate short-term analysis of the
fundamental frequency; Ghahremani et al. (2014), A pitch extraction algorithm tuned for automatic speech recognition.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfast.features.compilation import REORDERED, kernel
from serfast.features.correlation import LAG_GROUP, Candidates, Correlator, find_candidates, n_samples_of_a_frame
from serfast.features.frames import first_centre, frame_times_s, n_frames, prepare_waveform
from serfast.features.lanes import LANES, empty, even_lanes, load, odd_lanes, splat, store, zeros
from serfast.features.options import DEFAULT_OPTIONS, FeatureOptions
from serfast.features.path import best_path
from serfast.features.refinement import Refiner, make_refiner, refine_periods
from serfast.features.voicing import evidence, hop_energies, measures

__all__ = [
    "Pitch",
    "PitchPlan",
    "PitchTrack",
    "log_f0",
    "make_pitch_plan",
    "observe",
    "pitch_track",
    "standardised",
    "track_pitch",
]

WINDOW_MS = 15.0  # hardly more than a period of a low voice: short enough for a steep glide
MIN_DECIMATED_RATE = 8000  # lags of 500 Hz then have 16 samples, and a parabola errs by about a cent
CUTOFF_HZ = 1500.0  # keeps three harmonics of the highest voices, drops fricatives
FILTER_MS = 4.0
UNVOICED_STRENGTH = 0.9  # correlation that an unvoiced frame is worth where the evidence is even
EVIDENCE_SCALE = 0.2  # ... and how much less per unit of the logarithm of the odds


@dataclass(frozen=True)
class Pitch:
    """Fundamental frequency of every frame, aligned with the features of the same options.

    Attributes:
        f0_hz: fundamental frequency (frame,), float32, 0 where unvoiced.
        voiced: voicing decision (frame,), bool.
        times_s: centre of each frame (frame,), float64, seconds from the first sample.
    """

    f0_hz: NDArray[np.float32]
    voiced: NDArray[np.bool_]
    times_s: NDArray[np.float64]


class PitchTrack(NamedTuple):
    """What a path through an utterance finds, per frame.

    ``f0_hz`` (frame,) is 0 where unvoiced; ``odds`` (frame,) is the logarithm of the odds that the frame is voiced.
    """

    f0_hz: NDArray[np.float32]
    odds: NDArray[np.float32]


class PitchPlan(NamedTuple):
    """What depends on the options only."""

    hop: int
    hop_ms: float
    first: int  # centre of frame 0, in samples
    lead: int  # the same in the standardised waveform, which has zeros in front
    low_hz: np.float32
    high_hz: np.float32
    rate: np.float32  # of the decimated waveform
    taps: NDArray[np.float32]  # (phase, tap): low-pass filter, one row per sample that becomes one
    correlator: Correlator
    refiner: Refiner


def track_pitch(waveform: ArrayLike, sample_rate: int, options: FeatureOptions | None = None) -> Pitch:
    """Fundamental frequency and voicing of every frame of an utterance.

    Args:
        waveform: mono samples (sample,), floats or int16.
        sample_rate: samples per second of ``waveform``.
        options: pitch range and framing; the defaults of :class:`FeatureOptions` when None.

    Raises:
        TypeError: if ``waveform`` holds neither floats nor int16.
        ValueError: as :func:`serfast.features.extract` does.
    """
    options = options or DEFAULT_OPTIONS
    samples = prepare_waveform(waveform, sample_rate, options)
    f0_hz = pitch_track(samples, n_frames(len(samples), options), make_pitch_plan(options)).f0_hz
    return Pitch(f0_hz=f0_hz, voiced=f0_hz > 0, times_s=frame_times_s(len(f0_hz), options))


@kernel()
def pitch_track(samples: NDArray[np.float32], count: int, plan: PitchPlan) -> PitchTrack:
    """Pitch of ``count`` frames of a checked waveform at the options' sample rate."""
    f0_hz = np.zeros(count, dtype=np.float32)
    scaled = standardised(samples, count, plan)
    if scaled.size == 0:
        return PitchTrack(f0_hz, np.full(count, -np.inf, dtype=np.float32))
    decimated, candidates, observed = observe(scaled, count, plan)
    odds = evidence(observed, count)
    unvoiced = np.float32(UNVOICED_STRENGTH) - np.float32(EVIDENCE_SCALE) * odds
    periods = _periods(candidates, best_path(candidates, unvoiced, plan.hop_ms))
    refine_periods(decimated, plan.refiner, periods)
    for frame in range(count):
        if periods[frame] > 0:
            f0_hz[frame] = min(max(plan.rate / periods[frame], plan.low_hz), plan.high_hz)
    return PitchTrack(f0_hz, odds)


@kernel()
def observe(
    scaled: NDArray[np.float32], count: int, plan: PitchPlan
) -> tuple[NDArray[np.float32], Candidates, NDArray[np.float32]]:
    """What ``count`` frames of a standardised waveform show.

    Returns the waveform low-passed and decimated, the candidates of the frames and their measures of voicing.
    """
    decimated = _decimated(scaled, plan.taps)
    candidates = find_candidates(decimated, count, plan.correlator)
    return decimated, candidates, measures(candidates, hop_energies(scaled, plan.hop, plan.lead, count))


@kernel()
def standardised(samples: NDArray[np.float32], count: int, plan: PitchPlan) -> NDArray[np.float32]:
    """The waveform with zero mean and unit mean square, between zeros; nothing if it is silent.

    Frame t is centred on sample ``lead + t * hop``. All that ``count`` frames look at is there, in whole registers.
    """
    total, squares = _sums(samples)
    mean = total / samples.size
    rms = math.sqrt(max(squares / samples.size - mean * mean, 0.0))
    if rms <= 1e-6 * abs(mean) or rms < 1e-30:
        return np.empty(0, dtype=np.float32)
    correlator, (n_phases, n_taps) = plan.correlator, plan.taps.shape
    whole = (count + LANES - 1) // LANES * LANES
    length = max((whole - 1) * correlator.hop + n_samples_of_a_frame(correlator) + LANES, plan.refiner.shortest)
    length = (length + 4 * LANES - 1) // (4 * LANES) * 4 * LANES  # blocks of the filter
    scaled: NDArray[np.float32] = zeros((length + n_taps) * n_phases)
    before = plan.lead - plan.first
    inside = scaled[max(before, 0) : before + samples.size]
    _standardise(samples[max(-before, 0) :], np.float32(mean), np.float32(1 / rms), inside)
    return scaled


@kernel()
def log_f0(f0_hz: NDArray[np.float32], interpolate: bool, without_voice: float, column: NDArray[np.float32]) -> None:
    """Write the natural logarithm of ``f0_hz`` (frame,) to ``column`` (frame,).

    Unvoiced frames hold the line between their voiced neighbours, or 0 if not ``interpolate``; ``without_voice`` in an
    utterance without a voiced frame.
    """
    before = -1
    for frame in range(f0_hz.size):
        column[frame] = 0
        if f0_hz[frame] > 0:
            column[frame] = np.log(f0_hz[frame])
            if interpolate:
                for between in range(before + 1, frame):
                    share = np.float32((between - before) / (frame - before))
                    left = column[before] if before >= 0 else column[frame]
                    column[between] = left + share * (column[frame] - left)
            before = frame
    if interpolate:
        column[before + 1 :] = column[before] if before >= 0 else np.float32(without_voice)


@lru_cache(maxsize=16)
def make_pitch_plan(options: FeatureOptions) -> PitchPlan:
    """Sizes and filter of the analysis."""
    factor = max(
        divisor
        for divisor in range(1, options.hop + 1)
        if options.hop % divisor == 0 and (divisor == 1 or options.sample_rate >= divisor * MIN_DECIMATED_RATE)
    )
    rate, hop = options.sample_rate / factor, options.hop // factor
    window = 2 * round(WINDOW_MS * rate / 2000)
    first_lag = max(2, math.floor(rate / options.pitch_high_hz)) - 1
    last_lag = math.ceil(rate / options.pitch_low_hz)
    n_lags = -(-(last_lag + 2 - first_lag) // LAG_GROUP) * LAG_GROUP
    octaves = np.log2(rate / np.arange(first_lag, last_lag + 1) / options.pitch_low_hz)
    longest = first_lag + n_lags
    reach = max(hop, (window + longest) // 2 + LAG_GROUP)
    taps = _lowpass(options.sample_rate, factor)
    return PitchPlan(
        hop=options.hop,
        hop_ms=options.hop_ms,
        first=first_centre(options),
        lead=reach * factor + taps.size // 2,
        low_hz=np.float32(options.pitch_low_hz),
        high_hz=np.float32(options.pitch_high_hz),
        rate=np.float32(rate),
        taps=taps,
        correlator=Correlator(
            hop=hop,
            window=window,
            first_lag=first_lag,
            n_lags=n_lags,
            reach=reach,
            octaves=octaves.astype(np.float32),
        ),
        refiner=make_refiner(rate, hop, reach, longest),
    )


def _lowpass(sample_rate: int, factor: int) -> NDArray[np.float32]:
    # (phase, tap), the middle of the filter in the middle of all taps; pairs of registers of taps
    half = round(FILTER_MS * sample_rate / 2000)
    offset = np.arange(1 - half, half)
    weights = np.sinc(2 * CUTOFF_HZ / sample_rate * offset) * (0.54 + 0.46 * np.cos(np.pi * offset / half))
    n_taps = -(-len(weights) // (2 * LANES * factor)) * 2 * LANES
    taps = np.zeros(n_taps * factor)
    taps[offset + len(taps) // 2] = weights / weights.sum()
    return np.ascontiguousarray(taps.reshape(-1, factor).T, dtype=np.float32)


@kernel(fastmath=REORDERED)
def _sums(samples: NDArray[np.float32]) -> tuple[float, float]:
    # of the samples and of their squares
    total, squares = 0.0, 0.0
    for index in range(samples.size):  # an iterator would not be vectorised
        value = np.float64(samples[index])
        total += value
        squares += value * value
    return total, squares


@kernel()
def _standardise(samples: NDArray[np.float32], mean: np.float32, gain: np.float32, scaled: NDArray[np.float32]) -> None:
    # (sample) -> (sample), as many as both have
    for index in range(min(samples.size, scaled.size)):
        scaled[index] = (samples[index] - mean) * gain


@kernel()
def _decimated(scaled: NDArray[np.float32], taps: NDArray[np.float32]) -> NDArray[np.float32]:
    # Low-passed, taps (phase, tap); sample m of what comes out is the middle of the samples from m * phases on
    phases = empty(scaled.size).reshape(taps.shape[0], -1)
    _split_phases(scaled, phases)
    decimated: NDArray[np.float32] = empty(phases.shape[1] - taps.shape[1])
    _filter_phases(phases, taps, decimated)
    return decimated


@kernel()
def _split_phases(samples: NDArray[np.float32], phases: NDArray[np.float32]) -> None:
    # samples (sample * factor + phase) -> phases (factor, sample), whole registers
    factor = phases.shape[0]
    if factor == 2:  # the usual one, at 16 kHz
        even, odd = phases[0], phases[1]
        for at in range(0, even.size, LANES):
            low, high = load(samples, 2 * at), load(samples, 2 * at + LANES)
            store(even, at, even_lanes(low, high))
            store(odd, at, odd_lanes(low, high))
    else:
        for phase in range(factor):
            for index in range(phases.shape[1]):
                phases[phase, index] = samples[index * factor + phase]


@kernel()
def _filter_phases(phases: NDArray[np.float32], taps: NDArray[np.float32], filtered: NDArray[np.float32]) -> None:
    # phases (factor, sample + tap), taps (factor, tap) -> filtered (sample), whole blocks of four registers. Taps one
    # register apart share what is loaded.
    for at in range(0, filtered.size, 4 * LANES):
        sum_0 = sum_1 = sum_2 = sum_3 = splat(np.float32(0))
        far_0 = far_1 = far_2 = far_3 = splat(np.float32(0))
        for phase in range(taps.shape[0]):
            source, weights = phases[phase], taps[phase]
            for pair in range(0, weights.size, 2 * LANES):
                for tap in range(pair, pair + LANES):
                    first, near, far = at + tap, splat(weights[tap]), splat(weights[tap + LANES])
                    value_1, value_2 = load(source, first + LANES), load(source, first + 2 * LANES)
                    value_3 = load(source, first + 3 * LANES)
                    sum_0 = sum_0 + near * load(source, first)
                    sum_1, far_0 = sum_1 + near * value_1, far_0 + far * value_1
                    sum_2, far_1 = sum_2 + near * value_2, far_1 + far * value_2
                    sum_3, far_2 = sum_3 + near * value_3, far_2 + far * value_3
                    far_3 = far_3 + far * load(source, first + 4 * LANES)
        store(filtered, at, sum_0 + far_0)
        store(filtered, at + LANES, sum_1 + far_1)
        store(filtered, at + 2 * LANES, sum_2 + far_2)
        store(filtered, at + 3 * LANES, sum_3 + far_3)


@kernel()
def _periods(candidates: Candidates, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    # chosen (frame), -1 if unvoiced -> periods (frame) in samples of the decimated waveform, 0 if unvoiced
    periods = np.zeros(chosen.size, dtype=np.float32)
    for frame in range(chosen.size):
        if chosen[frame] >= 0:
            periods[frame] = candidates.lags[frame, chosen[frame]]
    return periods
