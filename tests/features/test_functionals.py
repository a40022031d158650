import numpy as np
import pytest
import scipy.stats

from serfast.features import FUNCTIONALS, functionals


def named(series: np.ndarray) -> dict[str, float]:
    found = functionals(np.asarray(series, dtype=np.float32)[:, None])
    return dict(zip(FUNCTIONALS, found[:, 0].tolist(), strict=True))


@pytest.mark.parametrize("n_frames", [2, 3, 10, 301])
def test_functionals_are_those_of_other_libraries(n_frames: int):
    features = np.random.default_rng(0).gamma(2.0, size=(n_frames, 5)).astype(np.float32)
    values, time = features.astype(np.float64), np.arange(n_frames)
    slopes, starts = np.polyfit(time, values, 1)
    expected = {
        "mean": np.mean(values, axis=0),
        "deviation": scipy.stats.tstd(values, ddof=0, axis=0),
        "skewness": scipy.stats.skew(values, axis=0),
        "kurtosis": scipy.stats.kurtosis(values, axis=0),
        "minimum": values.min(axis=0),
        "lower_quartile": scipy.stats.scoreatpercentile(values, 25, axis=0),
        "median": np.median(values, axis=0),
        "upper_quartile": scipy.stats.scoreatpercentile(values, 75, axis=0),
        "maximum": values.max(axis=0),
        "range": np.ptp(values, axis=0),
        "slope": slopes,
        "residual": np.sqrt(np.mean((values - starts - slopes * time[:, None]) ** 2, axis=0)),
    }
    assert tuple(expected) == FUNCTIONALS
    np.testing.assert_allclose(functionals(features), list(expected.values()), rtol=1e-9, atol=1e-9)


def test_a_ramp_is_all_slope():
    found = named(3 + 0.5 * np.arange(9))
    assert found["slope"] == pytest.approx(0.5)
    assert found["residual"] == pytest.approx(0, abs=1e-12)
    assert (found["mean"], found["median"], found["range"]) == (5, 5, 4)
    assert (found["lower_quartile"], found["upper_quartile"]) == (4, 6)
    assert found["skewness"] == pytest.approx(0, abs=1e-12)


def test_a_single_peak_is_skewed_and_peaked():
    # One of n values is 1: variance p q, skewness (q - p) / sqrt(p q), kurtosis (1 - 6 p q) / (p q), p = 1 / n.
    found = named(np.eye(16)[8])
    share = 1 / 16 * 15 / 16
    assert found["deviation"] == pytest.approx(np.sqrt(share))
    assert found["skewness"] == pytest.approx((15 / 16 - 1 / 16) / np.sqrt(share))
    assert found["kurtosis"] == pytest.approx((1 - 6 * share) / share)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
@pytest.mark.parametrize("n_frames", [1, 2, 77])
def test_a_constant_has_no_shape(n_frames: int, value: float):
    found = named(np.full(n_frames, value))
    for name in ("mean", "minimum", "lower_quartile", "median", "upper_quartile", "maximum"):
        assert found[name] == pytest.approx(np.float32(value), rel=1e-12)
    for name in ("deviation", "range", "slope", "residual"):
        assert found[name] == pytest.approx(0, abs=1e-12 * max(1, abs(value)))
    assert (found["skewness"], found["kurtosis"]) == (0, 0)


def test_offset_and_scale_move_places_and_leave_shapes():
    values = np.random.default_rng(0).gamma(2.0, size=50)
    found, moved = named(values), named(4 * values - 3)
    for name in FUNCTIONALS:
        if name in ("skewness", "kurtosis"):
            expected = found[name]
        elif name in ("deviation", "range", "slope", "residual"):
            expected = 4 * found[name]
        else:
            expected = 4 * found[name] - 3
        assert moved[name] == pytest.approx(expected, rel=1e-5), name


def test_columns_are_on_their_own():
    features = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    together = functionals(features)
    for column in range(7):
        np.testing.assert_allclose(functionals(features[:, column : column + 1])[:, 0], together[:, column], rtol=1e-12)
