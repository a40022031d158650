"""The contour through measured frames: trends, noise, steady and lively voices, leaps, and a dense solution."""

import numpy as np
import pytest
from numpy.typing import NDArray

from serfast.features import contour
from serfast.features.contour import mean_bend, smooth_contour


def _smoothed(
    cents: NDArray[np.float64], variances: NDArray[np.float64], places: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    smoothed = cents.copy()
    smooth_contour(
        smoothed, variances, np.zeros(len(cents)) if places is None else places, mean_bend(cents, variances, 10.0)
    )
    return smoothed


@pytest.mark.parametrize("count", [1, 2, 3, 4, 40])
def test_straight_line_stays(count: int) -> None:
    line = 5000 + 7.5 * np.arange(count)
    variances = np.random.default_rng(count).uniform(10, 5000, count)
    np.testing.assert_allclose(_smoothed(line, variances), line, rtol=1e-9)


def test_errors_about_a_slow_movement_shrink() -> None:
    truth = 5000 + 200 * np.sin(2 * np.pi * np.arange(300) / 100)
    errors = np.random.default_rng(0).normal(0, 15, 300)
    left = _smoothed(truth + errors, np.full(300, 225.0)) - truth
    assert np.square(left).mean() < 0.4 * np.square(errors).mean()


def test_frame_measured_badly_follows_its_neighbours() -> None:
    truth = 5000 + 3.0 * np.arange(30)
    cents, variances = truth.copy(), np.full(30, 25.0)
    cents[11], variances[11] = truth[11] + 200, 50000.0
    assert abs(_smoothed(cents, variances)[11] - truth[11]) < 10


def test_lively_voice_keeps_its_bends_and_a_steady_one_loses_its_errors() -> None:
    # Both were measured as well as each other; from frame to frame, the second differences of the errors are as large
    frames, variances = np.arange(200), np.full(200, 225.0)
    lively = 5000 + 300 * np.sin(2 * np.pi * frames / 15)
    steady = 5000 + np.random.default_rng(1).normal(0, 15, 200)
    assert np.abs(_smoothed(lively, variances) - lively).mean() < 1
    assert np.abs(_smoothed(steady, variances) - 5000).mean() < 5


def test_sharp_bend_is_rounded_a_little() -> None:
    truth = 5000 + 60.0 * np.abs(np.arange(-20, 21))
    assert np.abs(_smoothed(truth, np.full(41, 25.0)) - truth).max() < 13


@pytest.mark.parametrize("hop_ms", [5.0, 10.0, 20.0, 40.0, 50.0])
def test_vibrato_is_kept_at_any_hop(hop_ms: float) -> None:
    times_s = np.arange(0, 4, hop_ms / 1000)
    truth, variances = 5000 + 150 * np.sin(2 * np.pi * 5.5 * times_s), np.full(len(times_s), 25.0)
    smoothed = truth.copy()
    smooth_contour(smoothed, variances, np.zeros(len(truth)), mean_bend(truth, variances, hop_ms))
    assert np.sqrt(np.mean(np.square(smoothed - truth))) < 5


def test_errors_are_not_taken_for_bends() -> None:
    # Their variance is said to be half of what it is; the second differences of the frames have a mean of 30 cents
    cents = 5000 + np.random.default_rng(2).normal(0, 15, 500)
    assert np.abs(np.diff(cents, 2)).mean() > 28
    assert mean_bend(cents, np.full(500, 112.5), 10.0) < 8


def test_bend_is_that_of_stretches_long_enough() -> None:
    cents, variances = 5000 + np.random.default_rng(4).normal(0, 40, 60), np.full(60, 25.0)
    variances[8::9] = 0
    assert mean_bend(cents, variances, 10.0) == contour._USUAL_BEND
    assert mean_bend(np.full(9, 5000.0), np.full(9, 25.0), 10.0) == contour._LEAST_BEND


def test_what_was_measured_beside_a_centre_is_carried_there() -> None:
    places = np.random.default_rng(5).uniform(-0.5, 0.5, 40)
    line = 5000 + 60.0 * np.arange(40)
    measured, variances = line + 60 * places, np.full(40, 25.0)
    assert np.abs(measured - line).mean() > 13
    assert np.abs(_smoothed(measured, variances, places) - line).mean() < 3


def test_stretches_and_leaps_are_smoothed_apart() -> None:
    first, second = 5000 + 4.0 * np.arange(20), 6000 - 5.0 * np.arange(20)
    cents, variances = np.concatenate([first, [0.0, 0.0], second, second + 1200]), np.full(62, 100.0)
    variances[20:22] = 0
    np.testing.assert_allclose(_smoothed(cents, variances), cents, rtol=1e-9)


@pytest.mark.parametrize("count", [3, 5, 60])
def test_contour_minimises_its_cost(count: int) -> None:
    generator = np.random.default_rng(count)
    cents = 5000 + np.cumsum(generator.normal(0, 25, count))
    variances, places = generator.uniform(20, 2000, count), generator.uniform(-0.5, 0.5, count)
    difference = np.diff(np.eye(count), 2, axis=0)
    matrix = np.diag(1 / variances) + difference.T @ difference / mean_bend(cents, variances, 10.0) ** 2
    slope = np.gradient(np.linalg.solve(matrix, cents / variances))
    expected = np.linalg.solve(matrix, (cents - places * slope) / variances)
    np.testing.assert_allclose(_smoothed(cents, variances, places), expected, rtol=1e-9)


def test_bend_follows_from_differences_over_four_frames() -> None:
    generator = np.random.default_rng(6)
    cents, variances = 5000 + np.cumsum(generator.normal(0, 25, 80)), generator.uniform(20, 2000, 80)
    far = cents[:-8] - 2 * cents[4:-4] + cents[8:]
    spread = variances[:-8] + 4 * variances[4:-4] + variances[8:]
    noise = contour._NOISE_SHARE * np.average(np.sqrt(spread), weights=1 / spread)
    # Independent second differences with weights 1 2 3 4 3 2 1 make one over four frames
    square = (np.average(np.abs(far), weights=1 / spread) ** 2 - noise**2) / 44
    expected = np.sqrt(contour._LEAST_BEND**2 + square**1.5 / contour._BEND_SCALE)
    assert mean_bend(cents, variances, 10.0) == pytest.approx(expected, rel=1e-9)
