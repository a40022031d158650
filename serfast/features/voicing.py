"""Evidence that a frame is voiced: a quadratic form of correlation and energies, of the frame and of its neighbours.

The weights are those of a logistic regression on the development signals of ``benchmarks/pitch_accuracy.py``, fitted by
``benchmarks/fit_voicing.py``. No test signal, and no speaker of one, had a part in it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import REORDERED, kernel
from serfast.features.correlation import Candidates
from serfast.features.lanes import LANES, empty, load, logarithm, maximum, minimum, splat, store

__all__ = ["MEASURES", "evidence", "hop_energies", "measures"]

MEASURES = (
    "clarity",  # height of the highest peak
    "clarity_1",  # mean of the clarity one frame before and behind, then two, then three
    "clarity_2",
    "clarity_3",
    "low_rise",  # energy below the cutoff in decibels, above its fifth percentile in the utterance; in tens
    "low_level",  # the same above the utterance's mean, which is 0
    "low_share",  # ... above the energy of all frequencies
    "change",  # energy of the differences of samples above the energy: near 0 in fricatives
    "rise",  # energy of all frequencies above its fifth percentile
    "low_before_2",  # energy below the cutoff two frames before above this frame's, then one, and those behind
    "low_before_1",
    "low_behind_1",
    "low_behind_2",
)
_CONTEXT = 3  # frames before and behind
_QUIET_SHARE = 0.05  # of the frames: the loudest of them is the utterance's floor
_ENERGY_FLOOR = 1e-6  # relative to the utterance's mean
_BELS = 1 / np.log(10)


_PRODUCTS = (  # weights of 1 and of every measure times 1, itself and those behind it
    (-7.655, -0.008816, 2.292, 1.013, 2.561, 6.32, -1.265, -6.397, -3.684, -6.071, 0.2907, -1.367, -1.25, -0.7791),  # 1
    (1.968, 0.2219, 2.676, -0.7623, 3.368, 1.476, -0.8072, 2.439, -1.358, 0.0358, 1.631, 5.421, -1.624),  # clarity
    (-0.2476, -1.638, 0.4575, 2.236, 0.987, -1.032, 0.301, -0.6513, 1.631, 0.2017, 1.052, 1.773),  # clarity_1
    (-2.398, 3.929, -0.2243, 0.4709, -1.906, 0.8792, 1.094, 1.026, -2.744, -4.473, 1.641),  # clarity_2
    (-1.483, -2.195, -0.5909, 0.1042, -1.071, 0.1554, -2.146, 3.006, 1.045, -0.8434),  # clarity_3
    (-1.516, -0.8998, 3.26, 0.7192, 0.06034, -0.6519, -0.2363, 0.1152, -0.2428),  # low_rise
    (-0.1496, -0.277, -0.7333, 0.176, -0.2553, -0.561, -0.311, -0.4348),  # low_level
    (-1.372, 3.474, -1.003, 0.8472, 0.2703, -0.5964, 0.6986),  # low_share
    (-0.03216, -1.321, -0.03644, 0.08875, 0.09449, -0.1523),  # change
    (1.165, 0.4473, -0.02596, -0.4252, 0.4878),  # rise
    (-0.3872, 0.7135, -1.395, 0.2884),  # low_before_2
    (-1.369, 3.647, -1.436),  # low_before_1
    (-1.599, 0.8858),  # low_behind_1
    (-0.439,),  # low_behind_2
)


def _upper_triangle(rows: tuple[tuple[float, ...], ...]) -> NDArray[np.float32]:
    matrix = np.zeros((len(rows), len(rows)), dtype=np.float32)
    matrix[np.triu_indices(len(rows))] = np.concatenate(rows)
    return matrix


_WEIGHTS = _upper_triangle(_PRODUCTS)


@kernel()
def hop_energies(samples: NDArray[np.float32], hop: int, first: int, count: int) -> NDArray[np.float32]:
    """Mean square of the samples and of their differences, shape (2, frame), in the two hops about each centre.

    Args:
        samples: waveform of zero mean and unit mean square, shape (sample,); it holds all hops and the sample before.
        hop: samples from frame to frame.
        first: centre of frame 0.
        count: frames.
    """
    of_hops = np.empty((2, count + 1), dtype=np.float32)
    _sum_squares(samples[first - hop - 1 :], hop, of_hops)
    energies = np.empty((2, count), dtype=np.float32)
    for row in range(2):
        for frame in range(count):
            energies[row, frame] = (of_hops[row, frame] + of_hops[row, frame + 1]) / np.float32(2 * hop)
    return energies


@kernel()
def measures(candidates: Candidates, energies: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the evidence is weighed from, shape (group, measure, lane); void behind the last frame.

    Args:
        candidates: peaks of every frame.
        energies: mean square of the samples and of their differences, shape (2, frame).
    """
    count = energies.shape[1]
    n_groups = (count + LANES - 1) // LANES
    tracks = empty(4 * (n_groups + 1) * LANES).reshape(4, -1)  # what is behind the last frame repeats it
    inside = slice(_CONTEXT, _CONTEXT + count)
    _highest_peaks(candidates.counts, candidates.heights, tracks[0, inside])
    tracks[1, inside] = candidates.low_energy[:count]
    tracks[2:, inside] = energies
    for row in range(4):
        tracks[row, :_CONTEXT] = tracks[row, _CONTEXT]
        tracks[row, _CONTEXT + count :] = tracks[row, _CONTEXT + count - 1]
        if row > 0:
            _to_bels(tracks[row], _ENERGY_FLOOR)
    quiet = int(_QUIET_SHARE * count)
    low_floor = _ranked(tracks[1, inside].copy(), quiet)
    full_floor = _ranked(tracks[2, inside].copy(), quiet)
    observed: NDArray[np.float32] = empty(n_groups * len(MEASURES) * LANES)
    _fill_measures(tracks, low_floor, full_floor, observed)
    return observed.reshape(n_groups, len(MEASURES), LANES)


@kernel()
def evidence(observed: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Logarithm of the odds that each of ``count`` frames is voiced, shape (frame,)."""
    odds: NDArray[np.float32] = empty(observed.shape[0] * LANES)
    _weigh(observed.reshape(-1), _WEIGHTS, odds)
    return odds[:count]


@kernel(fastmath=REORDERED)
def _sum_squares(samples: NDArray[np.float32], hop: int, energies: NDArray[np.float32]) -> None:
    # samples (1 + sample), the sample before the first in front -> energies (2, hop)
    for index in range(energies.shape[1]):
        before, now = samples[index * hop : (index + 1) * hop], samples[index * hop + 1 : (index + 1) * hop + 1]
        energy, change = np.float32(0), np.float32(0)
        for place in range(now.size):
            energy += now[place] * now[place]
            difference = now[place] - before[place]
            change += difference * difference
        energies[0, index], energies[1, index] = energy, change


@kernel()
def _highest_peaks(counts: NDArray[np.int64], heights: NDArray[np.float32], highest: NDArray[np.float32]) -> None:
    # counts (frame), heights (frame, candidate) -> highest (frame), 0 without a peak
    for frame in range(highest.size):
        best = np.float32(0)
        for place in range(counts[frame]):
            best = max(best, heights[frame, place])
        highest[frame] = best


@kernel()
def _ranked(values: NDArray[np.float32], rank: int) -> Any:
    # The value at place `rank` once sorted, by Hoare's selection; reorders the values. np.partition takes seconds to
    # compile.
    first, last = 0, values.size - 1
    while first < last:
        pivot, low, high = values[(first + last) // 2], first, last
        while low <= high:
            while values[low] < pivot:
                low += 1
            while values[high] > pivot:
                high -= 1
            if low <= high:
                values[low], values[high] = values[high], values[low]
                low += 1
                high -= 1
        if rank <= high:
            last = high
        elif rank >= low:
            first = low
        else:
            break
    return values[rank]


@kernel()
def _to_bels(values: NDArray[np.float32], floor: float) -> None:
    # log10(value + floor), in place; whole registers
    offset, scale = splat(np.float32(floor)), splat(np.float32(_BELS))
    for at in range(0, values.size, LANES):
        store(values, at, scale * logarithm(load(values, at) + offset))


@kernel()
def _clipped(values: Any, low: float, high: float) -> Any:
    return minimum(maximum(values, splat(np.float32(low))), splat(np.float32(high)))


@kernel()
def _fill_measures(
    tracks: NDArray[np.float32],  # (4, context + frame ...): clarity, and energies in bels
    low_floor: np.float32,
    full_floor: np.float32,
    observed: NDArray[np.float32],  # (group, measure, lane)
) -> None:
    clarity, low, full, change = tracks[0], tracks[1], tracks[2], tracks[3]
    half, quietest, quietest_full = splat(np.float32(0.5)), splat(low_floor), splat(full_floor)
    n_measures = len(MEASURES)
    for frame in range(0, observed.size // n_measures, LANES):
        to, centre = frame * n_measures, frame + _CONTEXT
        here, here_full = load(low, centre), load(full, centre)
        store(observed, to, load(clarity, centre))
        for step in range(1, 4):
            store(observed, to + step * LANES, half * (load(clarity, centre - step) + load(clarity, centre + step)))
        store(observed, to + 4 * LANES, _clipped(here - quietest, 0.0, 4.0))
        store(observed, to + 5 * LANES, _clipped(here, -4.0, 1.0))
        store(observed, to + 6 * LANES, _clipped(here - here_full, -3.0, 0.0))
        store(observed, to + 7 * LANES, _clipped(load(change, centre) - here_full, -3.0, 0.6))
        store(observed, to + 8 * LANES, _clipped(here_full - quietest_full, 0.0, 4.0))
        store(observed, to + 9 * LANES, _clipped(load(low, centre - 2) - here, -3.0, 3.0))
        store(observed, to + 10 * LANES, _clipped(load(low, centre - 1) - here, -3.0, 3.0))
        store(observed, to + 11 * LANES, _clipped(load(low, centre + 1) - here, -3.0, 3.0))
        store(observed, to + 12 * LANES, _clipped(load(low, centre + 2) - here, -3.0, 3.0))


@kernel()
def _weigh(
    observed: NDArray[np.float32],  # (group, measure, lane)
    weights: NDArray[np.float32],  # (1 + measure, 1 + measure), upper triangle; the first measure is 1
    odds: NDArray[np.float32],  # (group, lane)
) -> None:
    n_measures = weights.shape[0] - 1
    for at in range(0, odds.size, LANES):
        first = at * n_measures
        result = splat(weights[0, 0])
        for row in range(n_measures):
            inner = splat(weights[0, row + 1])
            for column in range(row, n_measures):
                inner = inner + splat(weights[row + 1, column + 1]) * load(observed, first + column * LANES)
            result = result + inner * load(observed, first + row * LANES)
        store(odds, at, result)
