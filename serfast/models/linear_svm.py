"""The linear support vector machine, one emotion against the rest."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.models.softmax import softmax
from serfast.ops import linear

__all__ = ["LinearSvm"]


@dataclass(frozen=True)
class LinearSvm:
    """A separating plane per emotion; the score is the signed distance from it, in units of the margin.

    Attributes:
        weights: shape (emotion, feature), float64, the standardisation of the features included.
        biases: shape (emotion,), float64, likewise; minus infinity for an emotion that was not trained.

    Source: Fan, Chang, Hsieh, Wang and Lin (2008), "LIBLINEAR: a library for large linear classification", with the
    squared hinge loss.
    """

    weights: NDArray[np.float64]
    biases: NDArray[np.float64]

    @classmethod
    def fit(
        cls, features: NDArray[np.float64], labels: NDArray[np.int64], *, n_emotions: int, cost: float
    ) -> "LinearSvm":
        """Learn from utterances; equal arguments give equal machines.

        Features are standardised with their own mean and deviation. Each emotion counts alike, however rare.

        Args:
            features: of the training part alone, shape (utterance, feature).
            labels: emotion of each utterance, shape (utterance,), in 0..n_emotions - 1, at least two different.
            n_emotions: classes.
            cost: what an utterance on the wrong side costs, above 0; the smaller, the simpler the planes.
        """
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC

        scaler = StandardScaler().fit(features)
        machine = LinearSVC(C=cost, dual=False, class_weight="balanced").fit(scaler.transform(features), labels)
        planes, offsets = machine.coef_, machine.intercept_
        if len(machine.classes_) == 2:  # one plane between them: half of it for each
            planes, offsets = np.outer([-0.5, 0.5], planes), np.outer([-0.5, 0.5], offsets)[:, 0]
        weights = np.zeros((n_emotions, features.shape[1]))
        biases = np.full(n_emotions, -np.inf)
        weights[machine.classes_] = planes / scaler.scale_
        biases[machine.classes_] = offsets - (planes / scaler.scale_) @ scaler.mean_
        return cls(weights, biases)

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (utterance, emotion) of features (utterance, feature); the same bits in any batch."""
        rows = np.ascontiguousarray(features, dtype=np.float64)
        return linear(*(torch.from_numpy(array) for array in (rows, self.weights, self.biases))).numpy()

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Softmax of the scores, (utterance, emotion). They rank the emotions; nothing calibrates them."""
        return softmax(self.scores(features))
