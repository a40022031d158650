"""Fundamental frequency: normalised cross-correlation, and one path through its peaks over the whole utterance.

1. The waveform loses its mean, is scaled to unit mean square, low-passed at 1.1 kHz and decimated to about 8 kHz.
2. Each frame compares a window of about 30 ms with the same window a lag later. Both lie symmetrically about the
   frame's centre, so that a glide is measured where the frame says it is. Correlations are made once per block
   of a hop and summed over the blocks of a window.
3. The highest peaks, refined by a parabola, are the frame's candidates; being unvoiced is one more.
4. Viterbi's algorithm picks the path of least cost.

Sources: Talkin (1995), A robust algorithm for pitch tracking; Boersma (1993), Accurate short-term analysis of the
fundamental frequency; Ghahremani et al. (2014), A pitch extraction algorithm tuned for automatic speech recognition.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from serfast.features.frames import frame_times_s, n_frames, prepare_waveform
from serfast.features.options import FeatureOptions

__all__ = ["Pitch", "log_f0", "pitch_path", "track_pitch"]

WINDOW_MS = 30.0  # two periods of a low voice, short enough for a glide
MAX_BLOCK_MS = 15.0  # longer hops are cut into several blocks
MIN_DECIMATED_RATE = 8000  # lags of 500 Hz then have 16 samples, and a parabola errs by about a cent
CUTOFF_HZ = 1100.0  # keeps two harmonics of the highest voices, drops fricatives
FILTER_MS = 4.0
N_CANDIDATES = 7
BALLAST = 1e-2  # energy added to every window, relative to the utterance's mean: 20 dB below it correlations are halved
MIN_PEAK = 0.3  # lower peaks cannot win
UNVOICED_STRENGTH = 0.6  # correlation that voicing needs; white noise in this band stays below it
OCTAVE_COST = 0.02  # correlation that a candidate an octave lower must gain, else multiples of a period would tie
JUMP_COST = 0.35  # per octave between two frames of 10 ms
VOICING_COST = 0.14  # per change between voiced and unvoiced in 10 ms
LAG_GROUP = 4  # lags that share one window position; their centres differ by one sample at most


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


class _Plan(NamedTuple):
    """Sizes in samples of the decimated waveform, unless said otherwise."""

    factor: int  # samples of the waveform per sample
    rate: float
    taps: NDArray[np.float32]  # (factor, tap): low-pass filter, one row per phase
    block: int
    blocks_per_hop: int
    blocks_per_window: int
    first_centre: int  # centre of frame 0
    first_lag: int  # lags of the correlation: one more than can win at either end, rounded up to whole groups
    n_lags: int
    margin: int  # zeros before the first and behind the last frame's centre


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
    options = options or FeatureOptions()
    f0_hz = pitch_path(prepare_waveform(waveform, sample_rate, options), options)
    return Pitch(f0_hz=f0_hz, voiced=f0_hz > 0, times_s=frame_times_s(len(f0_hz), options))


def pitch_path(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """Fundamental frequency in hertz (frame,), 0 where unvoiced, of a checked waveform at the options' sample rate."""
    plan = _plan(options)
    count = n_frames(len(samples), options)
    f0_hz = np.zeros(count, dtype=np.float32)
    decimated = _decimated(samples, count, plan)
    if decimated is None:
        return f0_hz
    window = plan.block * plan.blocks_per_window
    total = np.empty(len(decimated) - window + 1, dtype=np.float32)
    scale = np.empty_like(total)
    _window_statistics(decimated, window, BALLAST * window, total, scale)
    candidates_hz = np.zeros((count, N_CANDIDATES), dtype=np.float32)
    strengths = np.full((count, N_CANDIDATES), -np.inf, dtype=np.float32)
    _find_candidates(
        decimated,
        total,
        scale,
        (plan.margin + plan.first_centre, plan.block, plan.blocks_per_hop, plan.first_lag),
        (plan.rate, options.pitch_low_hz, options.pitch_high_hz),
        np.empty((plan.blocks_per_window, plan.n_lags), dtype=np.float32),
        np.empty(plan.n_lags, dtype=np.float32),
        candidates_hz,
        strengths,
    )
    per_hop = 10 / options.hop_ms
    origins = np.empty((count, N_CANDIDATES + 1), dtype=np.int8)
    _best_path(candidates_hz, strengths, JUMP_COST * per_hop, VOICING_COST * per_hop, origins, f0_hz)
    return f0_hz


def log_f0(f0_hz: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """Natural logarithm of ``f0_hz`` (frame,); unvoiced frames hold what ``options.unvoiced`` says."""
    voiced = np.flatnonzero(f0_hz)
    if options.unvoiced == "zero":
        column = np.zeros(len(f0_hz), dtype=np.float32)
        column[voiced] = np.log(f0_hz[voiced])
        return column
    if len(voiced) == 0:
        middle = 0.5 * (math.log(options.pitch_low_hz) + math.log(options.pitch_high_hz))
        return np.full(len(f0_hz), middle, dtype=np.float32)
    return np.interp(np.arange(len(f0_hz)), voiced, np.log(f0_hz[voiced])).astype(np.float32)


@lru_cache(maxsize=16)
def _plan(options: FeatureOptions) -> _Plan:
    factor = max(
        divisor
        for divisor in range(1, options.hop + 1)
        if options.hop % divisor == 0 and (divisor == 1 or options.sample_rate >= divisor * MIN_DECIMATED_RATE)
    )
    rate = options.sample_rate / factor
    hop = options.hop // factor
    longest = MAX_BLOCK_MS * rate / 1000
    blocks_per_hop = min(parts for parts in range(1, hop + 1) if hop % parts == 0 and hop // parts <= longest)
    block = hop // blocks_per_hop
    blocks_per_window = 2 * math.ceil((WINDOW_MS * rate / 1000 / block - 1) / 2) + 1
    first_lag = max(2, math.floor(rate / options.pitch_high_hz)) - 1
    n_lags = math.ceil(rate / options.pitch_low_hz) + 2 - first_lag
    n_lags += -n_lags % LAG_GROUP
    return _Plan(
        factor=factor,
        rate=rate,
        taps=_lowpass(options.sample_rate, factor),
        block=block,
        blocks_per_hop=blocks_per_hop,
        blocks_per_window=blocks_per_window,
        first_centre=0 if options.center else options.n_fft // 2 // factor,
        first_lag=first_lag,
        n_lags=n_lags,
        margin=(block * blocks_per_window + first_lag + n_lags) // 2 + LAG_GROUP,
    )


def _lowpass(sample_rate: int, factor: int) -> NDArray[np.float32]:
    half = round(FILTER_MS * sample_rate / 2000)
    offset = np.arange(-half, half + 1)
    taps = np.sinc(2 * CUTOFF_HZ / sample_rate * offset) * (0.54 + 0.46 * np.cos(np.pi * offset / (half + 1)))
    padded = np.pad(taps / taps.sum(), (0, -len(taps) % factor))
    return np.ascontiguousarray(padded.reshape(-1, factor).T, dtype=np.float32)


def _decimated(samples: NDArray[np.float32], count: int, plan: _Plan) -> NDArray[np.float32] | None:
    """The low-passed waveform with ``margin`` zeros in front, of unit mean square; None if it is silent."""
    mean = samples.mean(dtype=np.float64)
    centred = samples - np.float32(mean)
    rms = math.sqrt(np.square(centred, dtype=np.float64).mean())
    if rms <= 1e-6 * abs(mean) or rms < 1e-30:
        return None
    centred *= np.float32(1 / rms)
    length = plan.first_centre + (count - 1) * plan.block * plan.blocks_per_hop + 2 * plan.margin
    n_phases, n_taps = plan.taps.shape
    lead = plan.margin * plan.factor + n_phases * n_taps // 2
    phases = np.zeros((length + n_taps) * plan.factor, dtype=np.float32)
    kept = centred[: len(phases) - lead]
    phases[lead : lead + len(kept)] = kept
    decimated = np.zeros(length, dtype=np.float32)
    _filter_phases(np.ascontiguousarray(phases.reshape(-1, plan.factor).T), plan.taps, decimated)
    return decimated


@njit(cache=True, nogil=True)
def _filter_phases(phases: NDArray[np.float32], taps: NDArray[np.float32], filtered: NDArray[np.float32]) -> None:
    # phases (factor, sample + tap), taps (factor, tap) -> filtered (sample), in pieces that stay in the first cache
    piece = 1024
    for first in range(0, filtered.size, piece):
        target = filtered[first : first + piece]
        for phase in range(taps.shape[0]):
            for tap in range(taps.shape[1]):
                weight = taps[phase, tap]
                source = phases[phase, first + tap : first + tap + target.size]
                for index in range(target.size):
                    target[index] += weight * source[index]


@njit(cache=True, nogil=True)
def _window_statistics(
    decimated: NDArray[np.float32],  # (sample)
    window: int,
    ballast: float,
    total: NDArray[np.float32],  # (position): sum of the window that starts there, over the root of its length
    scale: NDArray[np.float32],  # (position): 1 / sqrt(energy about its mean + ballast)
) -> None:
    total_sum, energy = 0.0, 0.0
    for index in range(decimated.size):
        value = np.float64(decimated[index])
        total_sum += value
        energy += value * value
        if index >= window:
            left = np.float64(decimated[index - window])
            total_sum -= left
            energy -= left * left
        if index >= window - 1:
            centred = max(energy - total_sum * total_sum / window, 0.0)
            total[index - window + 1] = total_sum / np.sqrt(window)
            scale[index - window + 1] = 1 / np.sqrt(centred + ballast)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _correlate_block(
    decimated: NDArray[np.float32], centre: int, block: int, first_lag: int, correlation: NDArray[np.float32]
) -> None:
    # correlation (lag): products of the block about `centre` and the block a lag later, both moved half a lag back
    for group in range(0, correlation.size, LAG_GROUP):
        lag = first_lag + group
        start = centre - block // 2 - (lag + LAG_GROUP // 2) // 2
        left, right = decimated[start : start + block], decimated[start + lag : start + lag + block + LAG_GROUP]
        sum_0 = sum_1 = sum_2 = sum_3 = np.float32(0)
        for index in range(left.size):
            value = left[index]
            sum_0 += value * right[index]
            sum_1 += value * right[index + 1]
            sum_2 += value * right[index + 2]
            sum_3 += value * right[index + 3]
        correlation[group], correlation[group + 1] = sum_0, sum_1
        correlation[group + 2], correlation[group + 3] = sum_2, sum_3


@njit(cache=True, nogil=True)
def _find_candidates(
    decimated: NDArray[np.float32],  # (sample)
    total: NDArray[np.float32],  # (position)
    scale: NDArray[np.float32],  # (position)
    places: tuple[int, int, int, int],  # centre of frame 0, block, blocks per hop, first lag
    limits: tuple[float, float, float],  # sample rate, lowest and highest F0 in hertz
    ring: NDArray[np.float32],  # (block of the window, lag)
    values: NDArray[np.float32],  # (lag)
    candidates_hz: NDArray[np.float32],  # (frame, candidate), zeros
    strengths: NDArray[np.float32],  # (frame, candidate), -inf: descending when done
) -> None:
    centre_0, block, blocks_per_hop, first_lag = places
    n_blocks = ring.shape[0]
    reach = n_blocks // 2
    done = -reach  # blocks are numbered by their place after the centre of frame 0
    for frame in range(candidates_hz.shape[0]):
        while done <= frame * blocks_per_hop + reach:
            _correlate_block(decimated, centre_0 + done * block, block, first_lag, ring[done % n_blocks])
            done += 1
        values[:] = 0
        for row in range(n_blocks):
            products = ring[row]
            for index in range(values.size):
                values[index] += products[index]
        start = centre_0 + (frame * blocks_per_hop - reach) * block - block // 2
        for index in range(values.size):
            lag = first_lag + index
            left = start - (lag - index % LAG_GROUP + LAG_GROUP // 2) // 2
            centred = values[index] - total[left] * total[left + lag]
            values[index] = centred * scale[left] * scale[left + lag]
        _pick_peaks(values, first_lag, limits, candidates_hz[frame], strengths[frame])


@njit(cache=True, nogil=True)
def _pick_peaks(
    values: NDArray[np.float32],  # (lag)
    first_lag: int,
    limits: tuple[float, float, float],
    candidates_hz: NDArray[np.float32],  # (candidate)
    strengths: NDArray[np.float32],  # (candidate)
) -> None:
    rate, low_hz, high_hz = limits
    last = strengths.size - 1
    for index in range(1, min(values.size - 1, int(np.ceil(rate / low_hz)) - first_lag + 1)):
        peak, before, after = values[index], values[index - 1], values[index + 1]
        if peak < MIN_PEAK or peak < before or peak <= after:
            continue
        slope, curvature = 0.5 * (after - before), 2 * peak - before - after
        f0_hz = min(max(rate / (first_lag + index + slope / curvature), low_hz), high_hz)
        height = min(peak + 0.5 * slope * slope / curvature, 1.0)
        strength = height + OCTAVE_COST * np.log2(f0_hz / low_hz)
        if strength <= strengths[last]:
            continue
        place = last
        while place > 0 and strengths[place - 1] < strength:
            strengths[place], candidates_hz[place] = strengths[place - 1], candidates_hz[place - 1]
            place -= 1
        strengths[place], candidates_hz[place] = strength, f0_hz


@njit(cache=True, nogil=True)
def _best_path(
    candidates_hz: NDArray[np.float32],  # (frame, candidate)
    strengths: NDArray[np.float32],  # (frame, candidate)
    jump_cost: float,  # per octave
    voicing_cost: float,
    origins: NDArray[np.int8],  # (frame, state): best state before; the last state is unvoiced
    f0_hz: NDArray[np.float32],  # (frame), zeros
) -> None:
    n_frames, unvoiced = candidates_hz.shape
    scores, scores_before = np.zeros(unvoiced + 1), np.zeros(unvoiced + 1)
    octaves, octaves_before = np.zeros(unvoiced + 1), np.zeros(unvoiced + 1)
    for frame in range(n_frames):
        for state in range(unvoiced + 1):
            if state < unvoiced and candidates_hz[frame, state] == 0:
                scores[state] = -np.inf
                continue
            best, origin = -np.inf, unvoiced
            if state < unvoiced:
                octaves[state] = np.log2(candidates_hz[frame, state])
            for previous in range(unvoiced + 1):
                if state < unvoiced and previous < unvoiced:
                    cost = jump_cost * abs(octaves[state] - octaves_before[previous])
                else:
                    cost = voicing_cost * ((state == unvoiced) != (previous == unvoiced))
                if scores_before[previous] - cost > best:
                    best, origin = scores_before[previous] - cost, previous
            origins[frame, state] = origin
            scores[state] = best + (strengths[frame, state] if state < unvoiced else UNVOICED_STRENGTH)
        if frame == 0:  # no state before: nothing was paid for a change
            scores[:unvoiced] = strengths[0]
            scores[unvoiced] = UNVOICED_STRENGTH
        scores, scores_before = scores_before, scores
        octaves, octaves_before = octaves_before, octaves
    state = int(np.argmax(scores_before))
    for frame in range(n_frames - 1, -1, -1):
        if state < unvoiced:
            f0_hz[frame] = candidates_hz[frame, state]
        state = origins[frame, state]
