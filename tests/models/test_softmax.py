import numpy as np
import pytest

from serfast.models import softmax


def test_probabilities_of_known_scores():
    scores = np.log([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]])
    np.testing.assert_allclose(softmax(scores), [[1 / 8, 2 / 8, 5 / 8], [3 / 8, 3 / 8, 2 / 8]], rtol=1e-12)


@pytest.mark.parametrize("offset", [-1e6, 1e6])
def test_large_scores_stay_finite(offset: float):
    scores = np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(softmax(scores + offset), softmax(scores), rtol=1e-8)


def test_minus_infinity_is_no_probability():
    assert softmax(np.array([[0.0, -np.inf, 0.0]])).tolist() == [[0.5, 0, 0.5]]


def test_single_precision_is_answered_in_double():
    found = softmax(np.array([[0.1, 0.2]], dtype=np.float32))
    assert found.dtype == np.float64
    assert found.sum() == pytest.approx(1, abs=1e-15)
