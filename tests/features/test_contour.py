"""The contour through measured frames: trends, noise, sharp bends, leaps, and a dense solution."""

import numpy as np
import pytest
from numpy.typing import NDArray

from serfast.features import contour
from serfast.features.contour import smooth_contour


def _smoothed(cents: NDArray[np.float64], variances: NDArray[np.float64]) -> NDArray[np.float64]:
    smoothed = cents.copy()
    smooth_contour(smoothed, variances)
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


def test_sharp_bend_stays_sharp() -> None:
    truth = 5000 + 60.0 * np.abs(np.arange(-20, 21))
    assert np.abs(_smoothed(truth, np.full(41, 25.0)) - truth).max() < 3


def test_stretches_and_leaps_are_smoothed_apart() -> None:
    first, second = 5000 + 4.0 * np.arange(20), 6000 - 5.0 * np.arange(20)
    cents, variances = np.concatenate([first, [0.0, 0.0], second, second + 1200]), np.full(62, 100.0)
    variances[20:22] = 0
    np.testing.assert_allclose(_smoothed(cents, variances), cents, rtol=1e-9)


@pytest.mark.parametrize("count", [3, 5, 60])
def test_contour_minimises_its_cost(count: int) -> None:
    # The same weights, set anew as often, with dense matrices
    generator = np.random.default_rng(count)
    cents = 5000 + np.cumsum(generator.normal(0, 25, count))
    variances = generator.uniform(20, 2000, count)
    difference = np.diff(np.eye(count), 2, axis=0)
    spread = np.square(difference) @ variances
    magnitude = np.average(np.abs(difference @ cents), weights=1 / spread)
    noise = contour._NOISE_SHARE * np.average(np.sqrt(spread), weights=1 / spread)
    square = max(magnitude**2 - noise**2, 0) + contour._LEAST_BEND**2
    bends = np.maximum(np.square(difference @ cents) - spread, 0)
    for _ in range(contour._ROUNDS):
        costs = contour._BEND_COST / square / (1 + bends / square / contour._BEND_SCALE**2)
        matrix = np.diag(1 / variances) + difference.T @ np.diag(costs) @ difference
        expected = np.linalg.solve(matrix, cents / variances)
        bends = np.square(difference @ expected)
    np.testing.assert_allclose(_smoothed(cents, variances), expected, rtol=1e-9)
