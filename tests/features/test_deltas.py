"""Deltas: known slopes, and librosa as an independent implementation."""

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfast.features.deltas import deltas


def test_ramp_has_its_slope_inside() -> None:
    ramp = (3 * np.arange(20, dtype=np.float32))[:, None]
    np.testing.assert_allclose(deltas(ramp)[2:-2], 3, rtol=1e-6)


def test_repeated_edge_frames_halve_the_slope_at_the_ends() -> None:
    ramp = np.arange(6, dtype=np.float32)[:, None]
    np.testing.assert_allclose(deltas(ramp)[:2, 0], [(1 + 2 * 2) / 10, (2 + 2 * 3) / 10], rtol=1e-6)


def test_interpolated_edges_keep_the_slope_of_a_ramp() -> None:
    ramp = np.arange(6, dtype=np.float32)[:, None]
    np.testing.assert_allclose(deltas(ramp, edge="interp"), 1, rtol=1e-6)


def test_constant_has_no_slope() -> None:
    assert not deltas(np.full((7, 3), 5.5, dtype=np.float32)).any()


@pytest.mark.parametrize("edge", ["nearest", "interp"])
@pytest.mark.parametrize("width", [3, 5, 9])
@pytest.mark.parametrize("count", [9, 10, 57])
def test_deltas_equal_librosa(width: int, edge: str, count: int) -> None:
    features = np.random.default_rng(count).standard_normal((count, 14)).astype(np.float32)
    expected = librosa.feature.delta(features, width=width, mode=edge, axis=0)
    np.testing.assert_allclose(deltas(features, width=width, edge=edge), expected, atol=1e-6)


@given(count=st.integers(1, 12), half=st.integers(1, 6))
def test_any_number_of_frames_is_enough_for_repeated_edges(count: int, half: int) -> None:
    features = np.random.default_rng(count).standard_normal((count, 2)).astype(np.float32)
    expected = librosa.feature.delta(features, width=2 * half + 1, mode="nearest", axis=0)
    np.testing.assert_allclose(deltas(features, width=2 * half + 1), expected, atol=1e-6)


def test_too_few_frames_for_interpolated_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="features must have at least 5 frames for interpolated edges, got 4"):
        deltas(np.zeros((4, 1), dtype=np.float32), edge="interp")
