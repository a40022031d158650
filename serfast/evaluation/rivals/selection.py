"""Choice of what a publication leaves open, by the validation part of a fold."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serfast import metrics

__all__ = ["UtteranceClassifier", "select_by_validation"]


class UtteranceClassifier(Protocol):
    """What answers features of utterances with class probabilities."""

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (utterance, emotion) of features (utterance, feature)."""


_Value = TypeVar("_Value")
_Classifier = TypeVar("_Classifier", bound=UtteranceClassifier)


def select_by_validation(
    fit: Callable[[_Value], _Classifier],
    grid: Sequence[_Value],
    features: NDArray[np.float64],
    truth: NDArray[np.int64],
) -> tuple[_Value, _Classifier]:
    """The value of ``grid`` whose classifier has the highest UA on a validation part, and that classifier.

    Among equals the one that comes first in ``grid`` is taken: begin it with the simplest.

    Args:
        fit: learns on the training part with a value of the grid.
        grid: the values to try.
        features: of the validation part, (utterance, feature).
        truth: its emotions, (utterance,).
    """
    classifiers = [fit(value) for value in grid]
    scores = [_ua(classifier.probabilities(features), truth) for classifier in classifiers]
    best = int(np.argmax(scores))
    return grid[best], classifiers[best]


def _ua(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    n_emotions = probabilities.shape[1]
    return float(metrics.ua(metrics.confusion_matrix(truth, probabilities.argmax(axis=1), n_emotions)))
