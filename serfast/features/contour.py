"""The contour of F0 through what was measured of each frame: smooth, but free to bend where the voice does.

Whittaker's graduation: the contour x of a voiced stretch costs the squares of its distances from what was measured,
over their variances, and those of its second differences c. A steady voice hardly bends, a lively one bends often, and
either may bend sharply at a few places: so the second differences cost the logarithm of 1 + (c / a)^2 rather than their
squares, which is minimised by squares with weights that are set anew a few times, and a is found for each utterance.

Sources: Whittaker (1923), On a new method of graduation; Holland and Welsch (1977), Robust regression using iteratively
reweighted least-squares.
"""

import math

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel

__all__ = ["smooth_contour"]

_ROUNDS = 3
_LEAP = 400.0  # cents from frame to frame over which nothing is smoothed
_LEAST_BEND = 1.8  # cents: second differences of the steadiest voices
_NOISE_SHARE = 0.72  # of the standard deviation of a measured second difference: its magnitude without a bend
_BEND_SCALE = 4.4  # a, in mean bends of the utterance
_BEND_COST = 0.6  # of the second differences, in squares of mean bends


@kernel()
def smooth_contour(cents: NDArray[np.float64], variances: NDArray[np.float64]) -> None:
    """Smooth ``cents`` (frame,) in place.

    Args:
        cents: what was measured, on a logarithmic scale.
        variances: its error in squared cents, shape (frame,); 0 where unvoiced.
    """
    bend = _mean_bend(cents, variances)
    smoothed = np.empty(cents.size)
    bands = np.empty((5, cents.size + 2))
    first = 0
    while first < cents.size:
        behind = first + 1
        if variances[first] > 0:
            while behind < cents.size and variances[behind] > 0 and abs(cents[behind] - cents[behind - 1]) < _LEAP:
                behind += 1
            _smooth_stretch(cents[first:behind], variances[first:behind], bend, bands, smoothed[first:behind])
            cents[first:behind] = smoothed[first:behind]
        first = behind


@kernel()
def _bend_and_variance(cents: NDArray[np.float64], variances: NDArray[np.float64], frame: int) -> tuple[float, float]:
    # Second difference of the three frames that start here, and the variance that errors of the three give it
    return (
        cents[frame] - 2 * cents[frame + 1] + cents[frame + 2],
        variances[frame] + 4 * variances[frame + 1] + variances[frame + 2],
    )


@kernel()
def _mean_bend(cents: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    # Mean magnitude of the second differences, those measured well with more weight, less what errors add to it
    total, magnitude, noise = 0.0, 0.0, 0.0
    for frame in range(cents.size - 2):
        if variances[frame] > 0 and variances[frame + 1] > 0 and variances[frame + 2] > 0:
            bend, variance = _bend_and_variance(cents, variances, frame)
            if abs(bend) < _LEAP:
                total += 1 / variance
                magnitude += abs(bend) / variance
                noise += _NOISE_SHARE / math.sqrt(variance)
    if total == 0:
        return _LEAST_BEND
    return math.sqrt(max(magnitude * magnitude - noise * noise, 0.0) / (total * total) + _LEAST_BEND * _LEAST_BEND)


@kernel()
def _smooth_stretch(
    measured: NDArray[np.float64],  # (frame)
    variances: NDArray[np.float64],  # (frame)
    bend: float,
    bands: NDArray[np.float64],  # (5, at least 2 + frame)
    smoothed: NDArray[np.float64],  # (frame)
) -> None:
    # What the second differences cost, from that of the frames 0, 1 and 2 on, has two zeros before and behind it
    count = measured.size
    costs = bands[0]
    costs[0] = costs[1] = costs[count] = costs[count + 1] = 0.0
    most, scale = _BEND_COST / (bend * bend), 1 / (_BEND_SCALE * _BEND_SCALE * bend * bend)
    smoothed[:] = measured
    for turn in range(_ROUNDS):
        for frame in range(count - 2):
            change, variance = _bend_and_variance(smoothed, variances, frame)
            square = change * change if turn > 0 else max(change * change - variance, 0.0)
            costs[frame + 2] = most / (1 + scale * square)
        _solve(measured, variances, bands, smoothed)


@kernel()
def _solve(
    measured: NDArray[np.float64],  # (frame)
    variances: NDArray[np.float64],  # (frame)
    bands: NDArray[np.float64],  # (5, at least 2 + frame): costs of second differences, and room
    smoothed: NDArray[np.float64],  # (frame)
) -> None:
    # Normal equations: a diagonal and two bands on either side, factorised as L D L'
    costs, pivots, near, far, forward = bands[0], bands[1], bands[2], bands[3], bands[4]
    bands[1:, :2] = 0.0
    for frame in range(measured.size):
        before_that, before, at = frame, frame + 1, frame + 2
        weight = 1 / variances[frame]
        diagonal = weight + costs[before_that] + 4 * costs[before] + costs[at]
        left, far_left = near[before] * pivots[before], far[before_that] * pivots[before_that]
        pivots[at] = diagonal - near[before] * left - far[before_that] * far_left
        inverse = 1 / pivots[at]
        near[at] = (-2 * (costs[before] + costs[at]) - left * far[before]) * inverse
        far[at] = costs[at] * inverse
        forward[at] = (
            weight * measured[frame] - near[before] * forward[before] - far[before_that] * forward[before_that]
        )
    behind = behind_that = 0.0
    for frame in range(measured.size - 1, -1, -1):
        at = frame + 2
        smoothed[frame] = forward[at] / pivots[at] - near[at] * behind - far[at] * behind_that
        behind, behind_that = smoothed[frame], behind
