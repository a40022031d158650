"""Bootstrap intervals that respect speakers: a resample draws speakers, then utterances of each drawn speaker.

Several answers to one utterance (of models with other seeds, of two systems) are drawn together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serfast.metrics.confusion import MEASURES

__all__ = ["MIN_BOOTSTRAP_SPEAKERS", "Interval", "bootstrap_intervals", "percentile_interval", "resample"]

MIN_BOOTSTRAP_SPEAKERS = 5
N_RESAMPLES = 2000
INTERVAL_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval of one score, or of the difference of two."""

    low: float
    high: float


def bootstrap_intervals(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], speakers: Sequence[str], n_emotions: int
) -> dict[str, Interval]:
    """95 % percentile intervals of UA, WA and macro-F1, each the mean over the answers of every utterance.

    Args:
        truth: index of each utterance's emotion, (utterance,).
        predicted: indices that were answered, (answer, utterance): one row per seed of the model.
        speakers: who spoke each utterance.
        n_emotions: how many emotions there are.

    Returns:
        Intervals by score name; empty with fewer than five speakers, where a resample of speakers says little.
    """
    if len(set(speakers)) < MIN_BOOTSTRAP_SPEAKERS:
        return {}
    confusions = resample(truth, predicted, speakers, n_emotions)
    return {name: percentile_interval(measure(confusions).mean(axis=1)) for name, measure in MEASURES.items()}


def resample(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], speakers: Sequence[str], n_emotions: int
) -> NDArray[np.int64]:
    """Confusion matrices of 2000 resamples, (resample, answer, emotion, emotion); always the same draws.

    Each draws speakers with replacement, then as many utterances as each has with replacement. Utterances with equal
    truth and answers are one kind: a multinomial draw over a speaker's kinds is the same thing and quicker.
    """
    generator = np.random.default_rng(0)
    kinds, kind_of = np.unique(np.vstack([truth, predicted]), axis=1, return_inverse=True)
    names, speaker_of = np.unique(np.asarray(speakers), return_inverse=True)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_RESAMPLES)
    n_cells = n_emotions * n_emotions
    totals = np.zeros((N_RESAMPLES, len(predicted) * n_cells))
    for speaker, times_drawn in enumerate(drawn.T):
        own, counts = np.unique(kind_of[speaker_of == speaker], return_counts=True)
        draws = generator.multinomial(times_drawn * counts.sum(), counts / counts.sum())
        cells = kinds[0, own] * n_emotions + kinds[1:, own] + n_cells * np.arange(len(predicted))[:, None]
        in_cell = np.zeros((len(own), totals.shape[1]))  # (kind, answer * cell)
        in_cell[np.arange(len(own)), cells] = 1
        totals += draws.astype(np.float64) @ in_cell  # counts are exact in float64, whose products are quick
    return totals.astype(np.int64).reshape(N_RESAMPLES, len(predicted), n_emotions, n_emotions)


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of ``values``."""
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
