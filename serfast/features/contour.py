"""The contour of F0 through what was measured of each frame: smooth, but free to bend as much as the voice does.

Whittaker's graduation: the contour x of a voiced stretch costs the squares of its distances from what was measured,
over their variances, and the squares of its second differences, over the square of what the voice bends. A steady voice
hardly bends, a lively one bends often. From frame to frame, errors of measurement look like bends; over several frames,
bends add up and errors do not. What was measured beside a frame's centre is carried there along the contour.

Source: Whittaker (1923), On a new method of graduation.
"""

import math

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel

__all__ = ["mean_bend", "smooth_contour"]

_LEAP = 400.0  # cents from frame to frame over which nothing is smoothed
_STEP_MS = 40.0  # of the differences that tell how much a voice bends
_NOISE_SHARE = 0.72  # of the standard deviation of a measured second difference: its magnitude without a bend
_FITTED_HOP_MS = 10.0  # for which the next ones hold: second differences grow with the square of the hop
_LEAST_BEND = 2.7  # cents: second differences of the steadiest voices
_USUAL_BEND = 10.0  # cents: of a voice too short to tell
_BEND_SCALE = 2.2  # cents: where the cube of the second differences is the square of the bend


@kernel()
def mean_bend(cents: NDArray[np.float64], variances: NDArray[np.float64], hop_ms: float) -> float:
    """How far an utterance's contour may bend from frame to frame, in cents.

    Args:
        cents: what was measured, on a logarithmic scale, shape (frame,).
        variances: its error in squared cents, shape (frame,); 0 where unvoiced.
        hop_ms: milliseconds from frame to frame.
    """
    step = max(1, round(_STEP_MS / hop_ms))
    growth = step * (2 * step * step + 1) / 3  # of the variance of second differences that do not depend on each other
    scale = (hop_ms / _FITTED_HOP_MS) ** 2
    total, magnitude, noise = 0.0, 0.0, 0.0
    first = 0  # of the stretch
    for frame in range(cents.size):
        if variances[frame] == 0:
            first = frame + 1
        elif frame > first and abs(cents[frame] - cents[frame - 1]) >= _LEAP:
            first = frame
        if frame - first >= 2 * step:
            middle, start = frame - step, frame - 2 * step
            variance = variances[start] + 4 * variances[middle] + variances[frame]
            total += 1 / variance
            magnitude += abs(cents[start] - 2 * cents[middle] + cents[frame]) / variance
            noise += _NOISE_SHARE / math.sqrt(variance)
    if total == 0:
        return scale * _USUAL_BEND
    square = max(magnitude * magnitude - noise * noise, 0.0) / (total * total * growth)
    least = scale * _LEAST_BEND
    return math.sqrt(least * least + square * math.sqrt(square) / (scale * _BEND_SCALE))


@kernel()
def smooth_contour(
    cents: NDArray[np.float64], variances: NDArray[np.float64], places: NDArray[np.float64], bend: float
) -> None:
    """Smooth ``cents`` (frame,) in place.

    Args:
        cents: what was measured, on a logarithmic scale.
        variances: its error in squared cents, shape (frame,); 0 where unvoiced.
        places: frames behind the frame's centre where it was measured, shape (frame,).
        bend: what :func:`mean_bend` tells.
    """
    smoothed = np.empty(cents.size)
    bands = np.empty((6, cents.size + 2))
    first = 0
    while first < cents.size:
        behind = first + 1
        if variances[first] > 0:
            while behind < cents.size and variances[behind] > 0 and abs(cents[behind] - cents[behind - 1]) < _LEAP:
                behind += 1
            stretch = slice(first, behind)
            _factorise(variances[stretch], 1 / (bend * bend), bands)
            _substitute(cents[stretch], bands, smoothed[stretch])
            _carry(smoothed[stretch], places[stretch], cents[stretch])
            _substitute(cents[stretch], bands, smoothed[stretch])
            cents[stretch] = smoothed[stretch]
        first = behind


@kernel()
def _carry(contour: NDArray[np.float64], places: NDArray[np.float64], cents: NDArray[np.float64]) -> None:
    # To the centres of the frames, along the slope of the contour
    for frame in range(cents.size):
        before, behind = max(frame - 1, 0), min(frame + 1, cents.size - 1)
        if behind > before:
            cents[frame] -= places[frame] * (contour[behind] - contour[before]) / (behind - before)


@kernel()
def _factorise(
    variances: NDArray[np.float64],  # (frame)
    cost: float,  # of the square of a second difference
    bands: NDArray[np.float64],  # (6, at least 2 + frame): costs, weights, and the factors
) -> None:
    # Normal equations: a diagonal and two bands on either side, factorised as L D L'. What the second differences cost,
    # from that of the frames 0, 1 and 2 on, has two zeros before and behind it.
    costs, weights, inverses, near, far = bands[0], bands[1], bands[2], bands[3], bands[4]
    count = variances.size
    bands[:, :2] = 0.0
    costs[2 : count + 2] = 0.0
    costs[2:count] = cost
    left = 0.0  # near, before it is multiplied by the inverse
    for frame in range(count):
        before_that, before, at = frame, frame + 1, frame + 2
        weights[at] = 1 / variances[frame]
        diagonal = weights[at] + costs[before_that] + 4 * costs[before] + costs[at]
        inverses[at] = 1 / (diagonal - near[before] * left - far[before_that] * costs[before_that])
        left = -2 * (costs[before] + costs[at]) - left * far[before]
        near[at], far[at] = left * inverses[at], costs[at] * inverses[at]


@kernel()
def _substitute(
    targets: NDArray[np.float64],  # (frame)
    bands: NDArray[np.float64],  # (6, at least 2 + frame): what was factorised, and room
    smoothed: NDArray[np.float64],  # (frame)
) -> None:
    weights, inverses, near, far, forward = bands[1], bands[2], bands[3], bands[4], bands[5]
    for frame in range(targets.size):
        before_that, before, at = frame, frame + 1, frame + 2
        earlier = near[before] * forward[before] + far[before_that] * forward[before_that]
        forward[at] = weights[at] * targets[frame] - earlier
    behind = behind_that = 0.0
    for frame in range(targets.size - 1, -1, -1):
        at = frame + 2
        smoothed[frame] = forward[at] * inverses[at] - near[at] * behind - far[at] * behind_that
        behind, behind_that = smoothed[frame], behind
