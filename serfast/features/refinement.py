"""Periods of voiced frames, measured anew without the bias of moving formants, and smoothed.

A formant that moves from one period to the next shifts the phases of the harmonics near it, and with them the peak of
the correlation. So both windows that a period sets apart pass through a filter that takes out their own strongest
resonance, then through one damped resonance for both, without which the noise beside the formant would come up. A
smooth contour goes through what is measured, the nearer the better the windows of a frame agree. Frames at the ends of
a voiced stretch whose windows do not agree become unvoiced.

Source: Markel (1972), The SIFT algorithm for fundamental frequency estimation. The constants are fitted to the
development signals of ``benchmarks/pitch_accuracy.py``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.contour import smooth_contour
from serfast.features.lanes import LANES, load, logarithm, maximum, minimum, root, splat, store
from serfast.features.transposition import transpose

__all__ = ["Refiner", "make_refiner", "refine_periods"]

_WINDOW_MS = 26.0  # its square, which weighs the correlation, has half its height over 9.5 ms
_SEARCH_MS = 0.5  # before and behind the period that is refined
_PREDICTOR_RATE = 4000  # of the samples that predict each other: the waveform ends below half of it
_BALLAST = 0.01  # noise that the predictor expects, relative to the energy
_DAMPING = 0.87  # of the common resonance, per sample of the predictor
_MAX_TILT = 6.0  # of the logarithm of the weight from end to end of a window
_DELAY_MS = 0.75  # a vocal tract sounds on after each pulse: the waveform tells of the pitch a little earlier
_MOST_DISSENT = 0.6  # 1 less the correlation, over which a frame at the end of a stretch becomes unvoiced
_TRUST = 1.0  # dissent at which the estimate before and the refined one count alike
_LEAST_ERROR = 5.3  # cents: deviation of the period of a voice from its trend
_ERROR = 76.0  # cents: what is added where the windows do not agree, for the fourth root of dissent over curvature
_CENTS = 1200 / math.log(2)


class Refiner(NamedTuple):
    """Sizes in samples of the decimated waveform, and the window."""

    hop: int
    lead: int  # of the waveform before where frame 0 is measured
    window: NDArray[np.float32]  # whole registers
    search: int  # lags before and behind the period; with the period itself, whole threes
    stride: int  # between the samples of the predictor, and of the correlation
    n_rows: int  # of a side: the window and what is searched, whole registers
    shortest: int  # waveform that can be looked at


def make_refiner(rate: float, hop: int, reach: int, longest: int) -> Refiner:
    """Prepare for a waveform of ``rate`` samples per second with periods up to ``longest``."""
    length = round(_WINDOW_MS * rate / 1000 / LANES) * LANES
    search = 1 + 3 * round((_SEARCH_MS * rate / 1000 - 1) / 3)
    n_rows = -(-(length + 2 * search) // LANES) * LANES
    return Refiner(
        hop=hop,
        lead=reach + round(_DELAY_MS * rate / 1000),
        window=(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32),
        search=search,
        stride=round(rate / _PREDICTOR_RATE),
        n_rows=n_rows,
        shortest=n_rows + longest,
    )


@kernel()
def refine_periods(decimated: NDArray[np.float32], refiner: Refiner, periods: NDArray[np.float32]) -> None:
    """Replace the ``periods`` (frame,) of voiced frames, in samples, by refined ones, or by 0, which is unvoiced.

    Args:
        decimated: waveform (sample,) of at least ``shortest`` samples, the centre of frame t at ``reach + t * hop``.
        refiner: sizes.
        periods: estimates within half a millisecond.
    """
    voiced = np.flatnonzero(periods)
    length, search, n_rows = refiner.window.size, refiner.search, refiner.n_rows
    segments = np.zeros(LANES * n_rows, dtype=np.float32)
    tile = np.empty(2 * LANES * LANES, dtype=np.float32)
    rows, lags = np.empty((2, n_rows * LANES), dtype=np.float32), np.ones(LANES, dtype=np.float32)
    correlation = np.empty((2 * search + 1) * LANES, dtype=np.float32)
    cents, dissent, variances = np.zeros(periods.size), np.zeros(periods.size), np.zeros(periods.size)
    for first in range(0, voiced.size, LANES):
        frames = voiced[first : first + LANES]
        for side in range(2):
            for lane in range(frames.size):
                lag = int(periods[frames[lane]] + np.float32(0.5))
                left = refiner.lead + frames[lane] * refiner.hop - (length + lag) // 2
                start = min(max(left, 0), decimated.size - n_rows - lag) + side * (lag - search)
                for at in range(0, n_rows, LANES):
                    store(segments, lane * n_rows + at, load(decimated, start + at))
                lags[lane] = lag
            transpose(segments, n_rows, n_rows, tile, rows[side], LANES)
        slope = logarithm(_equalise(rows, refiner)) / load(lags, 0)
        _correlate(rows[0], rows[1], slope, refiner, correlation)
        _read_peaks(correlation, frames, periods, cents, dissent, variances)
    for direction in (1, -1):
        _trim(dissent[::direction], variances[::direction])
    smooth_contour(cents, variances)
    for frame in voiced:
        periods[frame] = math.exp(cents[frame] / _CENTS) if variances[frame] > 0 else 0.0


@kernel()
def _resonance(rows: NDArray[np.float32], first: int, refiner: Refiner) -> tuple[Any, Any, Any]:
    # The two coefficients that predict a sample from those one and two strides before, by the autocorrelation method,
    # and the energy under the window
    window, stride = refiner.window, refiner.stride
    energy, one, two = splat(np.float32(1e-6)), splat(np.float32(0)), splat(np.float32(0))
    before, before_that = splat(np.float32(0)), splat(np.float32(0))
    for index in range(0, window.size, stride):
        value = splat(window[index]) * load(rows, (first + index) * LANES)
        energy, one, two = energy + value * value, one + value * before, two + value * before_that
        before, before_that = value, before
    ballast = energy * splat(np.float32(1 + _BALLAST))
    scale = splat(np.float32(1)) / (ballast * ballast - one * one)
    return one * (ballast - two) * scale, (ballast * two - one * one) * scale, energy


@kernel()
def _equalise(rows: NDArray[np.float32], refiner: Refiner) -> Any:
    # rows (2, sample * lane), in place: each side through its own inverse resonance, both through the damped resonance
    # of the left. Samples one stride apart are a series of their own, of which the left side needs the first. Returns
    # how many times the energy grows from the left side to the right one.
    damping, stride = np.float32(_DAMPING), refiner.stride * LANES
    left, right = rows[0], rows[1]
    left_1, left_2, left_energy = _resonance(left, 0, refiner)
    right_1, right_2, right_energy = _resonance(right, refiner.search, refiner)
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
    return right_energy / left_energy


@kernel()
def _correlate(
    left: NDArray[np.float32],  # (sample, lane); becomes weighted
    right: NDArray[np.float32],  # (search + sample + search, lane)
    slope: Any,  # (lane): of the logarithm of the energy, per sample
    refiner: Refiner,
    correlation: NDArray[np.float32],  # (lag, lane), whole threes
) -> None:
    # The loud end of a window would draw the estimate of a glide to itself: the weight falls as the energy grows. One
    # stride is short enough for the sum of products.
    window, stride = refiner.window, refiner.stride
    most = splat(np.float32(_MAX_TILT / window.size))
    slope = minimum(maximum(slope, splat(np.float32(0)) - most), most)
    slope = slope * splat(np.float32(stride))
    fall = splat(np.float32(1)) - slope + splat(np.float32(0.5)) * slope * slope  # exp(-slope), which is small
    tilt = splat(np.float32(1))
    energy = first_energy = last_energy = splat(np.float32(1e-9))
    last = correlation.size - LANES
    for index in range(0, window.size, stride):
        at, weight = index * LANES, splat(window[index] * window[index]) * tilt
        value, first_value, last_value = load(left, at), load(right, at), load(right, at + last)
        weighted = weight * value
        energy = energy + weighted * value
        first_energy = first_energy + weight * first_value * first_value
        last_energy = last_energy + weight * last_value * last_value
        store(left, at, weighted)
        tilt = tilt * fall
    first_energy, change = energy * first_energy, energy * (last_energy - first_energy)
    for lag in range(0, correlation.size, 3 * LANES):
        sum_0 = sum_1 = sum_2 = splat(np.float32(0))
        for at in range(0, window.size * LANES, stride * LANES):
            value = load(left, at)
            sum_0 = sum_0 + value * load(right, at + lag)
            sum_1 = sum_1 + value * load(right, at + lag + LANES)
            sum_2 = sum_2 + value * load(right, at + lag + 2 * LANES)
        store(correlation, lag, sum_0)
        store(correlation, lag + LANES, sum_1)
        store(correlation, lag + 2 * LANES, sum_2)
    for lag in range(0, correlation.size, LANES):
        share = splat(np.float32(lag / last))
        store(correlation, lag, load(correlation, lag) / root(first_energy + share * change))


@kernel()
def _read_peaks(
    correlation: NDArray[np.float32],  # (lag, lane)
    frames: NDArray[np.int64],  # (lane)
    periods: NDArray[np.float32],  # (frame)
    cents: NDArray[np.float64],  # (frame)
    dissent: NDArray[np.float64],  # (frame)
    variances: NDArray[np.float64],  # (frame), of the error in cents
) -> None:
    # A parabola through the highest peak gives the period; where there is none, what it was stays, with little weight.
    search = correlation.size // LANES // 2
    for lane in range(frames.size):
        frame = frames[lane]
        period = measured = float(periods[frame])
        best, height, curvature = np.float32(0), 0.0, 0.0
        for lag in range(1, 2 * search):
            at = lag * LANES + lane
            before, peak, after = correlation[at - LANES], correlation[at], correlation[at + LANES]
            if peak > best and peak >= before and peak > after:
                best, curvature = peak, float(peak + peak - before - after)
                shift = 0.5 * (after - before) / curvature
                height = peak + 0.25 * (after - before) * shift
                measured = int(period + 0.5) + lag - search + shift
        dissent[frame] = max(1 - height, 1e-3)
        sharpness = curvature * measured * measured if curvature > 0 else 1.0
        variances[frame] = _LEAST_ERROR * _LEAST_ERROR + _ERROR * _ERROR * math.sqrt(dissent[frame] / sharpness)
        share = dissent[frame] / (dissent[frame] + _TRUST)
        cents[frame] = _CENTS * ((1 - share) * math.log(measured) + share * math.log(period))


@kernel()
def _trim(dissent: NDArray[np.float64], variances: NDArray[np.float64]) -> None:
    # Frames at the beginning of a stretch whose windows do not agree lose their variance: they are unvoiced
    before = 0.0
    for frame in range(variances.size):
        if before == 0 and dissent[frame] > _MOST_DISSENT:
            variances[frame] = 0
        before = variances[frame]
