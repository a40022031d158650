"""From scores to probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["softmax"]


def softmax(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities (utterance, emotion) of scores (utterance, emotion); a score of minus infinity is probability 0."""
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
