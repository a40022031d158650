"""Standardisation of features with the mean and deviation of a fold's training part, or of each speaker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serfast.features.store import FeatureStore

__all__ = ["NORMALISATIONS", "FrameSource", "Normaliser", "StandardisedSource", "speaker_source"]

NORMALISATIONS = ("training", "speaker")


class FrameSource(Protocol):
    """Where the features of numbered utterances come from: a feature store, or clips in memory."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each utterance, (utterance,)."""

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of the utterances ``indices`` end to end, (row, feature)."""


@dataclass(frozen=True)
class Normaliser:
    """Maps each feature x to (x - mean) / deviation; ``mean`` and ``deviation`` have shape (feature,), float32."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def fit(cls, source: FrameSource, indices: Sequence[int]) -> "Normaliser":
        """Mean and standard deviation over all frames of the utterances ``indices``, and of no other.

        A feature that never changes keeps deviation 1, so that it becomes 0.
        """
        utterances = [np.array([index]) for index in indices]
        n_rows = int(source.lengths[list(indices)].sum())
        mean = sum(source.gather(index).sum(axis=0, dtype=np.float64) for index in utterances) / n_rows
        squares = sum(np.square(source.gather(index) - mean).sum(axis=0) for index in utterances)
        deviation = np.sqrt(squares / n_rows)
        constant = deviation <= 1e-6 * np.maximum(1.0, np.abs(mean))
        deviation[constant] = 1.0
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise features (row, feature) into a new array."""
        return (features - self.mean) / self.deviation


class StandardisedSource:
    """The utterances of ``source``, utterance u standardised by ``normalisers[which[u]]``; read like a store."""

    def __init__(
        self, source: FrameSource, normalisers: Sequence[Normaliser], which: NDArray[np.int64] | None = None
    ) -> None:
        self._source = source
        self._means = np.stack([normaliser.mean for normaliser in normalisers])
        self._deviations = np.stack([normaliser.deviation for normaliser in normalisers])
        self._which = np.zeros(len(source.lengths), dtype=np.int64) if which is None else which

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each utterance, (utterance,)."""
        return self._source.lengths

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Standardised features of the utterances ``indices`` end to end, (row, feature)."""
        rows = self._source.gather(indices)
        if len(self._means) == 1:
            return np.asarray((rows - self._means[0]) / self._deviations[0])
        of_row = np.repeat(self._which[indices], self.lengths[indices])
        return np.asarray((rows - self._means[of_row]) / self._deviations[of_row])


def speaker_source(store: FeatureStore) -> StandardisedSource:
    """The utterances of ``store``, each standardised with the statistics of all recordings of its speaker.

    A test speaker's own unlabelled recordings are used too: results with it are transductive.

    Raises:
        ValueError: if an utterance has no speaker.
    """
    utterances = store.corpus.utterances
    without = [utterance.key for utterance in utterances if utterance.speaker is None]
    if without:
        raise ValueError(f"every utterance must have a speaker for normalisation 'speaker', got none for {without[0]}")
    speakers = store.corpus.speakers
    which = np.array([speakers.index(str(utterance.speaker)) for utterance in utterances], dtype=np.int64)
    own = [Normaliser.fit(store, np.flatnonzero(which == place).tolist()) for place in range(len(speakers))]
    return StandardisedSource(store, own, which)
