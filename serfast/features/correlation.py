"""Candidates of the fundamental period: peaks of the normalised cross-correlation, for 16 frames side by side.

A frame compares a window with the same window a lag later. Both lie symmetrically about the frame's centre, so that a
glide is measured where the frame says it is; each loses its mean.

Source: Talkin (1995), A robust algorithm for pitch tracking.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, empty, inverse_root, load, local_maxima, lowest_bit, maximum, splat, store
from serfast.features.transposition import transpose

__all__ = [
    "LAG_GROUP",
    "MIN_PEAK",
    "N_CANDIDATES",
    "Candidates",
    "Correlator",
    "find_candidates",
    "n_samples_of_a_frame",
]

N_CANDIDATES = 7
MIN_PEAK = 0.2  # lower peaks cannot win
_STRIDE = 2  # samples of a window: products of samples below 1.5 kHz lie below 3 kHz, so half the rate tells their sum
LAG_GROUP = 8  # lags that share one window position; their centres differ by two samples at most
_BALLAST = (
    1e-2  # energy added to every window, relative to the utterance's mean: 20 dB below it correlations are halved
)


class Correlator(NamedTuple):
    """Sizes in samples of the decimated waveform."""

    hop: int
    window: int
    first_lag: int  # one less than can win
    n_lags: int  # whole groups, with one behind the last that can win
    reach: int  # samples that a frame needs before and behind its centre
    octaves: NDArray[np.float32]  # (lag): octaves above the lowest F0, of the lags that can win and the first


class Candidates(NamedTuple):
    """Peaks of every frame; those behind ``counts`` are void."""

    counts: NDArray[np.int64]  # (frame)
    lags: NDArray[np.float32]  # (frame, candidate)
    octaves: NDArray[np.float32]  # (frame, candidate): above the lowest F0
    heights: NDArray[np.float32]  # (frame, candidate): correlation, at most 1
    low_energy: NDArray[np.float32]  # (frame): mean square of the two hops about the centre


@kernel()
def find_candidates(decimated: NDArray[np.float32], count: int, correlator: Correlator) -> Candidates:
    """The highest peaks of ``count`` frames; frame t is centred on sample ``reach + t * hop`` of ``decimated``."""
    n_rows = n_samples_of_a_frame(correlator)
    whole = (count + LANES - 1) // LANES * LANES
    candidates = Candidates(
        np.zeros(whole, dtype=np.int64),
        np.empty((whole, N_CANDIDATES), dtype=np.float32),
        np.empty((whole, N_CANDIDATES), dtype=np.float32),
        np.empty((whole, N_CANDIDATES), dtype=np.float32),
        empty(whole),
    )
    starts, rows = correlator.hop * np.arange(LANES), empty(n_rows * LANES)
    statistics = empty(2 * (n_rows - correlator.window + 1) * LANES).reshape(2, -1)
    correlation = empty(correlator.n_lags * LANES)
    _fill_candidates(decimated, correlator, starts, rows, statistics, correlation, candidates)
    return candidates


@kernel()
def n_samples_of_a_frame(correlator: Correlator) -> int:
    """Samples that a frame is looked at through, whole registers."""
    return (2 * correlator.reach + LANES - 1) // LANES * LANES


@kernel()
def _fill_candidates(
    decimated: NDArray[np.float32],  # (sample)
    correlator: Correlator,
    starts: NDArray[np.int64],  # (lane): of frames
    rows: NDArray[np.float32],  # (sample about the centre, lane)
    statistics: NDArray[np.float32],  # (2, window position * lane)
    correlation: NDArray[np.float32],  # (lag, lane)
    candidates: Candidates,
) -> None:
    hop = correlator.hop
    for frame in range(0, candidates.counts.size, LANES):
        transpose(decimated[frame * hop :], starts, rows.size // LANES, rows, LANES)
        energy = splat(np.float32(0))
        for row in range(correlator.reach - hop, correlator.reach + hop):
            value = load(rows, row * LANES)
            energy = energy + value * value
        store(candidates.low_energy, frame, energy * splat(np.float32(1 / (2 * hop))))
        _window_statistics(rows, correlator.window, statistics[0], statistics[1])
        _correlate(rows, correlator, statistics[0], statistics[1], correlation)
        _pick_peaks(correlation, correlator, frame, candidates)


@kernel()
def _window_statistics(
    rows: NDArray[np.float32],  # (sample, lane)
    window: int,
    sums: NDArray[np.float32],  # (position, lane): sum over the window that starts there, over the root of its terms
    scales: NDArray[np.float32],  # (position, lane): 1 / root(energy about its mean + ballast)
) -> None:
    count, step = window // _STRIDE, _STRIDE * LANES
    zero = splat(np.float32(0))
    ballast, share = splat(np.float32(_BALLAST * count)), splat(np.float32(1 / np.sqrt(count)))
    for first in range(0, step, LANES):
        total, energy = splat(np.float32(0)), splat(np.float32(0))
        for at in range(first, first + (count - 1) * step, step):
            value = load(rows, at)
            total, energy = total + value, energy + value * value
        for at in range(first, sums.size, step):
            value = load(rows, at + (count - 1) * step)
            total, energy = total + value, energy + value * value
            scaled = total * share
            store(sums, at, scaled)
            store(scales, at, inverse_root(maximum(energy - scaled * scaled, zero) + ballast))
            value = load(rows, at)
            total, energy = total - value, energy - value * value


@kernel()
def _correlate(
    rows: NDArray[np.float32],  # (sample, lane)
    correlator: Correlator,
    sums: NDArray[np.float32],  # (position, lane)
    scales: NDArray[np.float32],  # (position, lane)
    correlation: NDArray[np.float32],  # (lag, lane)
) -> None:
    length = correlator.window * LANES
    for group in range(0, correlator.n_lags, LAG_GROUP):
        lag = correlator.first_lag + group
        start = (correlator.reach - correlator.window // 2 - (lag + LAG_GROUP // 2) // 2) * LANES
        shift = lag * LANES
        sum_0 = sum_1 = sum_2 = sum_3 = splat(np.float32(0))
        sum_4 = sum_5 = sum_6 = sum_7 = splat(np.float32(0))
        for at in range(start, start + length, _STRIDE * LANES):
            value, to = load(rows, at), at + shift
            sum_0 = sum_0 + value * load(rows, to)
            sum_1 = sum_1 + value * load(rows, to + LANES)
            sum_2 = sum_2 + value * load(rows, to + 2 * LANES)
            sum_3 = sum_3 + value * load(rows, to + 3 * LANES)
            sum_4 = sum_4 + value * load(rows, to + 4 * LANES)
            sum_5 = sum_5 + value * load(rows, to + 5 * LANES)
            sum_6 = sum_6 + value * load(rows, to + 6 * LANES)
            sum_7 = sum_7 + value * load(rows, to + 7 * LANES)
        to = group * LANES
        store(correlation, to, sum_0)
        store(correlation, to + LANES, sum_1)
        store(correlation, to + 2 * LANES, sum_2)
        store(correlation, to + 3 * LANES, sum_3)
        store(correlation, to + 4 * LANES, sum_4)
        store(correlation, to + 5 * LANES, sum_5)
        store(correlation, to + 6 * LANES, sum_6)
        store(correlation, to + 7 * LANES, sum_7)
        sum_left, scale_left = load(sums, start), load(scales, start)
        for index in range(LAG_GROUP):
            right = start + shift + index * LANES
            centred = load(correlation, to + index * LANES) - sum_left * load(sums, right)
            store(correlation, to + index * LANES, centred * scale_left * load(scales, right))


@kernel()
def _pick_peaks(
    correlation: NDArray[np.float32], correlator: Correlator, first_frame: int, candidates: Candidates
) -> None:
    # A parabola through a maximum and its neighbours gives place and height. Where peaks are too many, the weakest go.
    least = splat(np.float32(MIN_PEAK))
    for index in range(1, correlator.octaves.size):
        at = index * LANES
        bits = local_maxima(load(correlation, at - LANES), load(correlation, at), load(correlation, at + LANES), least)
        while bits:
            lane = lowest_bit(bits)
            bits &= bits - 1
            before, peak, after = correlation[at - LANES + lane], correlation[at + lane], correlation[at + LANES + lane]
            slope, curvature = np.float32(0.5) * (after - before), peak + peak - before - after
            shift = slope / curvature
            height = min(peak + np.float32(0.5) * slope * shift, np.float32(1))
            frame = first_frame + lane
            place = candidates.counts[frame]
            if place == N_CANDIDATES:
                place = np.argmin(candidates.heights[frame])
                if height <= candidates.heights[frame, place]:
                    continue
            else:
                candidates.counts[frame] += 1
            lag = np.float32(correlator.first_lag + index)
            candidates.lags[frame, place] = lag + shift
            candidates.octaves[frame, place] = correlator.octaves[index] - np.float32(1 / np.log(2)) * shift / lag
            candidates.heights[frame, place] = height
