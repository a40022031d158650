"""Periods of voiced frames, measured anew without the bias of moving formants, and smoothed.

A formant that moves from one period to the next shifts the phases of the harmonics near it, and with them the peak of
the correlation. So both windows that a period sets apart pass through a filter that takes out their own strongest
resonance, then through one damped resonance for both, without which the noise beside the formant would come up. A
parabola through the frames about each, weighed by how well their windows agree, smooths what is measured.

Sources: Markel (1972), The SIFT algorithm for fundamental frequency estimation; Savitzky and Golay (1964).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, load, logarithm, maximum, minimum, root, splat, store
from serfast.features.transposition import transpose

__all__ = ["Refiner", "make_refiner", "refine_periods"]

_WINDOW_MS = 26.0  # its square, which weighs the correlation, has half its height over 9.5 ms
_SEARCH_MS = 0.5  # before and behind the period that is refined
_PREDICTOR_RATE = 4000  # of the samples that predict each other: the waveform ends below half of it
_BALLAST = 0.01  # noise that the predictor expects, relative to the energy
_DAMPING = 0.87  # of the common resonance, per sample of the predictor
_MAX_TILT = 6.0  # of the logarithm of the weight from end to end of a window
_SMOOTHING_MS = 20.0  # before and behind a frame
_DISSENT = 0.02  # taken for granted of every correlation, so that weights are bounded
_STIFFNESS = 0.3  # holds back the curvature of the parabola, in squares of frames to the fourth
_LEAP = 0.25  # change of the period from frame to frame over which nothing is smoothed


class Refiner(NamedTuple):
    """Sizes in samples of the decimated waveform, and the window."""

    hop: int
    reach: int  # of the waveform before the centre of frame 0
    window: NDArray[np.float32]  # whole registers
    search: int  # lags before and behind the period; with the period itself, whole threes
    stride: int  # between the samples of the predictor
    n_rows: int  # of a side: the window and what is searched, whole registers
    shortest: int  # waveform that can be looked at
    half: int  # frames that smooth a frame, on either side


def make_refiner(rate: float, hop: int, hop_ms: float, reach: int, longest: int) -> Refiner:
    """Prepare for a waveform of ``rate`` samples per second with periods up to ``longest``."""
    length = round(_WINDOW_MS * rate / 1000 / LANES) * LANES
    search = 1 + 3 * round((_SEARCH_MS * rate / 1000 - 1) / 3)
    n_rows = -(-(length + 2 * search) // LANES) * LANES
    return Refiner(
        hop=hop,
        reach=reach,
        window=(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32),
        search=search,
        stride=round(rate / _PREDICTOR_RATE),
        n_rows=n_rows,
        shortest=n_rows + longest,
        half=max(1, round(_SMOOTHING_MS / hop_ms)),
    )


@kernel()
def refine_periods(decimated: NDArray[np.float32], refiner: Refiner, periods: NDArray[np.float32]) -> None:
    """Replace the ``periods`` (frame,) of voiced frames, in samples, by refined ones; 0 is unvoiced.

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
    measured, weights = np.zeros(periods.size, dtype=np.float32), np.zeros(periods.size, dtype=np.float32)
    for first in range(0, voiced.size, LANES):
        frames = voiced[first : first + LANES]
        for side in range(2):
            for lane in range(frames.size):
                lag = int(periods[frames[lane]] + np.float32(0.5))
                left = refiner.reach + frames[lane] * refiner.hop - (length + lag) // 2
                start = min(max(left, 0), decimated.size - n_rows - lag) + side * (lag - search)
                for at in range(0, n_rows, LANES):
                    store(segments, lane * n_rows + at, load(decimated, start + at))
                lags[lane] = lag
            transpose(segments, n_rows, n_rows, tile, rows[side], LANES)
        slope = logarithm(_equalise(rows, refiner)) / load(lags, 0)
        _correlate(rows[0], rows[1], slope, refiner.window, correlation)
        _read_peaks(correlation, frames, periods, measured, weights)
    _smooth(measured, weights, refiner.half, periods)


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
    # of the left. Samples one stride apart are a series of their own. Returns how many times the energy grows from the
    # left side to the right one.
    damping, stride = np.float32(_DAMPING), refiner.stride * LANES
    left, right = rows[0], rows[1]
    left_1, left_2, left_energy = _resonance(left, 0, refiner)
    right_1, right_2, right_energy = _resonance(right, refiner.search, refiner)
    common_1, common_2 = splat(damping) * left_1, splat(damping * damping) * left_2
    for first in range(0, stride, LANES):
        left_before = left_before_that = right_before = right_before_that = splat(np.float32(0))
        left_out = left_out_before = right_out = right_out_before = splat(np.float32(0))
        for at in range(first, left.size, stride):
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
    window: NDArray[np.float32],
    correlation: NDArray[np.float32],  # (lag, lane), whole threes
) -> None:
    # The loud end of a window would draw the estimate of a glide to itself: the weight falls as the energy grows.
    most = splat(np.float32(_MAX_TILT / window.size))
    slope = minimum(maximum(slope, splat(np.float32(0)) - most), most)
    fall = splat(np.float32(1)) - slope + splat(np.float32(0.5)) * slope * slope  # exp(-slope), which is small
    tilt = splat(np.float32(1))
    energy = first_energy = last_energy = splat(np.float32(1e-9))
    last = correlation.size - LANES
    for index in range(window.size):
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
        for at in range(0, window.size * LANES, LANES):
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
    measured: NDArray[np.float32],  # (frame)
    weights: NDArray[np.float32],  # (frame)
) -> None:
    # A parabola through the highest peak gives the period; where there is none, what it was stays, with little weight.
    search = correlation.size // LANES // 2
    for lane in range(frames.size):
        frame = frames[lane]
        measured[frame], best = periods[frame], np.float32(0)
        for lag in range(1, 2 * search):
            at = lag * LANES + lane
            before, peak, after = correlation[at - LANES], correlation[at], correlation[at + LANES]
            if peak > best and peak >= before and peak > after:
                shift = np.float32(0.5) * (after - before) / (peak + peak - before - after)
                measured[frame] = int(periods[frame] + np.float32(0.5)) + lag - search + shift
                best = peak
        dissent = max(np.float32(1) - best, np.float32(0)) + np.float32(_DISSENT)
        weights[frame] = 1 / (dissent * dissent)


@kernel()
def _smooth(
    measured: NDArray[np.float32], weights: NDArray[np.float32], half: int, periods: NDArray[np.float32]
) -> None:
    # The value at each frame of the parabola fitted to those about it, nearer ones with more weight, solved by Cramer's
    # rule: moments m_k of the distances, w_k of distances times changes of the period.
    for frame in range(periods.size):
        if measured[frame] == 0:
            continue
        m_0, m_1, m_2, m_3, m_4 = float(weights[frame]), 0.0, 0.0, 0.0, 0.0
        w_0, w_1, w_2 = 0.0, 0.0, 0.0
        for direction in (-1, 1):
            last = measured[frame]
            for distance in range(1, half + 1):
                place = frame + direction * distance
                if place < 0 or place >= measured.size or not abs(measured[place] - last) < _LEAP * last:
                    break
                last = measured[place]
                x, weight = float(direction * distance), weights[place] * (1 - distance / (half + 1))
                change = weight * (last - measured[frame])
                m_0, m_1, m_2 = m_0 + weight, m_1 + weight * x, m_2 + weight * x * x
                m_3, m_4 = m_3 + weight * x * x * x, m_4 + weight * x * x * x * x
                w_0, w_1, w_2 = w_0 + change, w_1 + change * x, w_2 + change * x * x
        m_2, m_4 = m_2 * (1 + 1e-9) + 1e-9 * m_0, m_4 + _STIFFNESS * m_0
        minor_0, minor_1, minor_2 = m_2 * m_4 - m_3 * m_3, m_1 * m_4 - m_2 * m_3, m_1 * m_3 - m_2 * m_2
        shift = (w_0 * minor_0 - w_1 * minor_1 + w_2 * minor_2) / (m_0 * minor_0 - m_1 * minor_1 + m_2 * minor_2)
        periods[frame] = measured[frame] + shift
