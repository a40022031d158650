"""Periods of voiced frames, measured anew without the bias of moving formants, and smoothed.

A formant that moves from one period to the next shifts the phases of the harmonics near it, and with them the peak of
the correlation. So both windows that a period sets apart pass through a filter that takes out their own strongest
resonance, then through one damped resonance for both, without which the noise beside the formant would come up. The
estimate holds where the windows have what they share, seldom quite at the centre of the frame. A frame that this
measures badly, for a voice that bends so little, is measured again with windows that several periods set apart: the
same error of the lag is a smaller one of the period. A smooth contour goes through what is measured, the nearer the
better the windows of a frame agree. Frames at the ends of a voiced stretch whose windows do not agree become unvoiced.

Source: Markel (1972), The SIFT algorithm for fundamental frequency estimation. The constants are fitted to the
development signals of ``benchmarks/pitch_accuracy.py``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.contour import mean_bend, smooth_contour
from serfast.features.lanes import LANES, empty, inverse_root, load, local_maxima, lowest_bit, maximum, splat, store
from serfast.features.transposition import transpose

__all__ = ["Refiner", "make_refiner", "refine_periods"]

_WINDOW_MS = 22.0  # its square, which weighs the correlation, has half its height over 8 ms
_SEARCH_MS = 0.5  # before and behind the period that is refined
_FAR_SEARCH_MS = 0.9  # before and behind several periods
_FAR_LAG_MS = 15.0  # that these come near to
_MOST_PERIODS = 8
_PREDICTOR_RATE = 4000  # of the samples that predict each other: the waveform ends below half of it
_BALLAST = 0.01  # noise that the predictor expects, relative to the energy
_DAMPING = 0.8  # of the common resonance, per sample of the predictor
_DELAY_MS = 0.75  # a vocal tract sounds on after each pulse: the waveform tells of the pitch a little earlier
_MOST_DISSENT = 0.6  # 1 less the correlation, over which a frame at the end of a stretch becomes unvoiced
_TRUST = 1.0  # dissent at which the estimate before and the refined one count alike
_LEAST_ERROR = 9.6  # cents: deviation of the period of a voice from its trend
_ERROR = 220.0  # cents: what is added where the windows do not agree, for the fourth root of dissent over curvature
_FAR_ERROR = 155.0  # cents: the same of windows that several periods set apart
_SMALL_ERROR = 15.0  # cents: no frame is measured again below it
_SMALL_SHARE = 0.5  # ... nor below this share of what the voice bends
_CENTS = 1200 / math.log(2)


class Refiner(NamedTuple):
    """Sizes in samples of the decimated waveform, and the weights of the correlation."""

    hop: int
    hop_ms: float
    lead: int  # of the waveform before where frame 0 is measured
    window: NDArray[np.float32]  # whole pairs of strides
    search: int  # lags before and behind the period; with the period itself, whole threes
    far_search: int  # ... before and behind several periods
    far_lag: float
    stride: int  # between the samples of the predictor, and of the correlation
    n_rows: int  # of a side: the window and what is searched, whole registers
    shortest: int  # waveform that can be looked at


class _Peaks(NamedTuple):
    """The highest peak of each frame's correlation, shape (frame,)."""

    lags: NDArray[np.float64]  # 0 without a peak
    dissent: NDArray[np.float64]  # 1 less the correlation
    errors: NDArray[np.float64]  # root of dissent over curvature
    places: NDArray[np.float64]  # samples behind the centre of the frame where the windows have what they share


def make_refiner(rate: float, hop: int, reach: int, longest: int) -> Refiner:
    """Prepare for a waveform of ``rate`` samples per second with periods up to ``longest``."""
    stride = round(rate / _PREDICTOR_RATE)
    length = round(_WINDOW_MS * rate / 1000 / (2 * stride)) * 2 * stride
    search, far_search = (1 + 3 * round((reach_ms * rate / 1000 - 1) / 3) for reach_ms in (_SEARCH_MS, _FAR_SEARCH_MS))
    n_rows = -(-(length + 2 * far_search) // LANES) * LANES
    far_lag, longest_refined = _FAR_LAG_MS * rate / 1000, longest + search
    return Refiner(
        hop=hop,
        hop_ms=1000 * hop / rate,
        lead=reach + round(_DELAY_MS * rate / 1000),
        window=(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32),
        search=search,
        far_search=far_search,
        far_lag=far_lag,
        stride=stride,
        n_rows=n_rows,
        shortest=n_rows + math.ceil(max(2 * longest_refined, far_lag + longest_refined)),
    )


@kernel()
def refine_periods(decimated: NDArray[np.float32], refiner: Refiner, periods: NDArray[np.float32]) -> None:
    """Replace the ``periods`` (frame,) of voiced frames, in samples, by refined ones, or by 0, which is unvoiced.

    Args:
        decimated: waveform (sample,) of at least ``shortest`` samples, the centre of frame t at ``reach + t * hop``.
        refiner: sizes.
        periods: estimates within half a millisecond.
    """
    count, voiced = periods.size, np.flatnonzero(periods)
    peaks = _Peaks(np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count))
    cents, variances, places = np.zeros(count), np.zeros(count), np.zeros(count)
    multiples = np.ones(count)
    _find_peaks(decimated, refiner, refiner.search, voiced, multiples, periods, peaks)
    for frame in voiced:
        if peaks.lags[frame] > 0:
            share = peaks.dissent[frame] / (peaks.dissent[frame] + _TRUST)
            periods[frame] += (1 - share) * (peaks.lags[frame] - periods[frame])
        cents[frame] = _CENTS * math.log(periods[frame])
        variances[frame] = _LEAST_ERROR * _LEAST_ERROR + _ERROR * _ERROR * peaks.errors[frame]
        places[frame] = peaks.places[frame]
    for direction in (1, -1):
        _trim(peaks.dissent[::direction], variances[::direction])
    bend = mean_bend(cents, variances, refiner.hop_ms)
    least = _SMALL_ERROR * _SMALL_ERROR + _SMALL_SHARE * _SMALL_SHARE * bend * bend
    noisy = np.flatnonzero(variances > least)
    for frame in noisy:
        multiples[frame] = min(max(int(refiner.far_lag / periods[frame] + 0.5), 2), _MOST_PERIODS)
    _find_peaks(decimated, refiner, refiner.far_search, noisy, multiples, periods, peaks)
    for frame in noisy:
        if peaks.lags[frame] > 0:
            share = variances[frame] / (variances[frame] + _FAR_ERROR * _FAR_ERROR * peaks.errors[frame])
            cents[frame] += share * (_CENTS * math.log(peaks.lags[frame] / multiples[frame]) - cents[frame])
            places[frame] += share * (peaks.places[frame] - places[frame])
            variances[frame] *= 1 - share
    for frame in voiced:
        places[frame] /= refiner.hop
    smooth_contour(cents, variances, places, bend)
    for frame in voiced:
        periods[frame] = math.exp(cents[frame] / _CENTS) if variances[frame] > 0 else 0.0


@kernel()
def _find_peaks(
    decimated: NDArray[np.float32],
    refiner: Refiner,
    search: int,
    frames: NDArray[np.int64],
    multiples: NDArray[np.float64],  # (frame), of the periods
    periods: NDArray[np.float32],  # (frame)
    peaks: _Peaks,  # of the frames
) -> None:
    length, n_rows = refiner.window.size, refiner.n_rows
    starts = np.zeros(LANES, dtype=np.int64)
    rows, centres = empty(2 * n_rows * LANES).reshape(2, -1), empty(LANES)
    correlation = empty((2 * search + 1) * LANES)
    for first in range(0, frames.size, LANES):
        group = frames[first : first + LANES]
        for side in range(2):
            for lane in range(group.size):
                frame = group[lane]
                lag = int(multiples[frame] * periods[frame] + 0.5)
                left = refiner.lead + frame * refiner.hop - (length + lag) // 2
                inside = min(max(left, 0), decimated.size - n_rows - lag)
                starts[lane] = inside + side * (lag - search)
                peaks.lags[frame], peaks.places[frame] = lag, inside - left
            transpose(decimated, starts, n_rows, rows[side], LANES)
        _equalise(rows, search, refiner)
        _correlate(rows[0], rows[1], refiner, correlation, centres)
        _read_peaks(correlation, centres, group, peaks)


@kernel()
def _resonances(left: NDArray[np.float32], right: NDArray[np.float32], refiner: Refiner) -> tuple[Any, Any, Any, Any]:
    # For each side the two coefficients that predict a sample from those one and two strides before, by the
    # autocorrelation method
    window, stride = refiner.window, refiner.stride
    left_energy = right_energy = splat(np.float32(1e-6))
    left_one = left_two = right_one = right_two = splat(np.float32(0))
    left_before = left_before_that = right_before = right_before_that = splat(np.float32(0))
    for index in range(0, window.size, stride):
        weight, at = splat(window[index]), index * LANES
        value = weight * load(left, at)
        left_energy = left_energy + value * value
        left_one, left_two = left_one + value * left_before, left_two + value * left_before_that
        left_before, left_before_that = value, left_before
        value = weight * load(right, at)
        right_energy = right_energy + value * value
        right_one, right_two = right_one + value * right_before, right_two + value * right_before_that
        right_before, right_before_that = value, right_before
    left_1, left_2 = _predictor(left_energy, left_one, left_two)
    right_1, right_2 = _predictor(right_energy, right_one, right_two)
    return left_1, left_2, right_1, right_2


@kernel()
def _predictor(energy: Any, one: Any, two: Any) -> tuple[Any, Any]:
    # From the autocorrelation at the lags of no, one and two strides
    ballast = energy * splat(np.float32(1 + _BALLAST))
    scale = splat(np.float32(1)) / (ballast * ballast - one * one)
    return one * (ballast - two) * scale, (ballast * two - one * one) * scale


@kernel()
def _equalise(rows: NDArray[np.float32], search: int, refiner: Refiner) -> None:
    # rows (2, sample * lane), in place: each side through its own inverse resonance, both through the damped resonance
    # of the left. Samples one stride apart are a series of their own, of which the left side needs the first.
    damping, stride = np.float32(_DAMPING), refiner.stride * LANES
    left, right = rows[0], rows[1]
    left_1, left_2, right_1, right_2 = _resonances(left, right[search * LANES :], refiner)
    common_1, common_2 = splat(damping) * left_1, splat(damping * damping) * left_2
    for first in range(0, stride, LANES):
        left_before = left_before_that = right_before = right_before_that = splat(np.float32(0))
        left_out = left_out_before = right_out = right_out_before = splat(np.float32(0))
        for at in range(first, left.size, stride):
            if first == 0:
                value = load(left, at)
                result = value - left_1 * left_before - left_2 * left_before_that + common_2 * left_out_before
                left_before_that, left_before, left_out_before = left_before, value, left_out
                left_out = result + common_1 * left_out
                store(left, at, left_out)
            value = load(right, at)
            result = value - right_1 * right_before - right_2 * right_before_that + common_2 * right_out_before
            right_before_that, right_before, right_out_before = right_before, value, right_out
            right_out = result + common_1 * right_out
            store(right, at, right_out)


@kernel()
def _correlate(
    left: NDArray[np.float32],  # (sample, lane); becomes weighted
    right: NDArray[np.float32],  # (search + sample + search, lane)
    refiner: Refiner,
    correlation: NDArray[np.float32],  # (lag, lane), whole threes
    centres: NDArray[np.float32],  # (lane): of the products in the middle of the lags, from the middle of the window
) -> None:
    # One stride is short enough for the sum of products
    window, stride = refiner.window, refiner.stride
    energy = first_energy = last_energy = mass = splat(np.float32(1e-9))
    moment = splat(np.float32(0))
    last = correlation.size - LANES
    for index in range(0, window.size, stride):
        at, weight = index * LANES, splat(window[index] * window[index])
        value, first_value, last_value = load(left, at), load(right, at), load(right, at + last)
        weighted = weight * value
        energy = energy + weighted * value
        first_energy = first_energy + weight * first_value * first_value
        last_energy = last_energy + weight * last_value * last_value
        shared = maximum(weighted * load(right, at + last // 2), splat(np.float32(0)))
        mass = mass + shared
        moment = moment + splat(np.float32(index - 0.5 * (window.size - 1))) * shared
        store(left, at, weighted)
    store(centres, 0, moment / mass)
    first_energy, change = energy * first_energy, energy * (last_energy - first_energy)
    half = window.size // 2 * LANES  # both at a time: a sum would wait for itself
    for lag in range(0, correlation.size, 3 * LANES):
        sum_0 = sum_1 = sum_2 = late_0 = late_1 = late_2 = splat(np.float32(0))
        for at in range(0, half, stride * LANES):
            value, to = load(left, at), at + lag
            sum_0 = sum_0 + value * load(right, to)
            sum_1 = sum_1 + value * load(right, to + LANES)
            sum_2 = sum_2 + value * load(right, to + 2 * LANES)
            value, to = load(left, at + half), to + half
            late_0 = late_0 + value * load(right, to)
            late_1 = late_1 + value * load(right, to + LANES)
            late_2 = late_2 + value * load(right, to + 2 * LANES)
        store(correlation, lag, sum_0 + late_0)
        store(correlation, lag + LANES, sum_1 + late_1)
        store(correlation, lag + 2 * LANES, sum_2 + late_2)
    for lag in range(0, correlation.size, LANES):
        share = splat(np.float32(lag / last))
        store(correlation, lag, load(correlation, lag) * inverse_root(first_energy + share * change))


@kernel()
def _read_peaks(
    correlation: NDArray[np.float32],  # (lag, lane)
    centres: NDArray[np.float32],  # (lane)
    frames: NDArray[np.int64],  # (lane)
    peaks: _Peaks,  # the lag in the middle, and where the windows lie, become those of the highest peak
) -> None:
    # A parabola through the highest peak
    search = correlation.size // LANES // 2
    highest = np.zeros(LANES, dtype=np.int64)  # 0: no peak above 0
    for lag in range(1, 2 * search):
        at = lag * LANES
        bits = local_maxima(
            load(correlation, at - LANES), load(correlation, at), load(correlation, at + LANES), splat(np.float32(0))
        )
        while bits:
            lane = lowest_bit(bits)
            bits &= bits - 1
            if correlation[at + lane] > (correlation[highest[lane] + lane] if highest[lane] > 0 else 0):
                highest[lane] = at
    for lane in range(frames.size):
        frame, at, lag = frames[lane], highest[lane] + lane, highest[lane] // LANES
        height, sharpness, measured = 0.0, 1.0, 0.0
        if lag > 0:
            before, peak, after = correlation[at - LANES], correlation[at], correlation[at + LANES]
            curvature = float(peak + peak - before - after)
            shift = 0.5 * (after - before) / curvature
            height = peak + 0.25 * (after - before) * shift
            measured = peaks.lags[frame] + lag - search + shift
            sharpness = curvature * measured * measured
        peaks.lags[frame] = measured
        peaks.dissent[frame] = max(1 - height, 1e-3)
        peaks.errors[frame] = math.sqrt(peaks.dissent[frame] / sharpness)
        peaks.places[frame] += centres[lane]


@kernel()
def _trim(dissent: NDArray[np.float64], variances: NDArray[np.float64]) -> None:
    # Frames at the beginning of a stretch whose windows do not agree lose their variance: they are unvoiced
    before = 0.0
    for frame in range(variances.size):
        if before == 0 and dissent[frame] > _MOST_DISSENT:
            variances[frame] = 0
        before = variances[frame]
