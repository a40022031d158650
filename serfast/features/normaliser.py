"""Standardisation of features with the mean and deviation of a fold's training utterances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serfast.features.store import FeatureStore

__all__ = ["Normaliser"]


@dataclass(frozen=True)
class Normaliser:
    """Maps each feature x to (x - mean) / deviation; ``mean`` and ``deviation`` have shape (feature,), float32."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def fit(cls, store: FeatureStore, indices: Sequence[int]) -> "Normaliser":
        """Mean and standard deviation over all frames of the utterances ``indices``: the training part, and no other.

        A feature that never changes keeps deviation 1, so that it becomes 0.
        """
        n_rows = int(store.lengths[list(indices)].sum())
        total = np.zeros(len(store.feature_names))
        for index in indices:
            total += store.utterance_rows(index).sum(axis=0, dtype=np.float64)
        mean = total / n_rows
        squares = np.zeros_like(mean)
        for index in indices:
            squares += np.square(store.utterance_rows(index) - mean).sum(axis=0)
        deviation = np.sqrt(squares / n_rows)
        constant = deviation <= 1e-6 * np.maximum(1.0, np.abs(mean))
        deviation[constant] = 1.0
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise features (row, feature) into a new array."""
        return (features - self.mean) / self.deviation
