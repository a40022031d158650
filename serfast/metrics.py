"""Scores of an utterance classifier: confusion matrix, UA, WA, macro-F1 and their bootstrap intervals.

WA is the share of utterances classified right; UA is the mean of the per-class recalls. An emotion that no utterance
of the truth carries has no recall: it is left out of UA and macro-F1, never counted as 0 or 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "Scores", "bootstrap_intervals", "confusion_matrix", "macro_f1", "recalls", "score", "ua", "wa"]

MIN_BOOTSTRAP_SPEAKERS = 5
N_RESAMPLES = 2000
INTERVAL_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval of one score."""

    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """UA, WA and macro-F1 of one set of utterances, always together.

    ``confusion`` counts utterances, shape (emotion, emotion): truth by row, prediction by column. ``absent`` names
    the emotions that the truth does not hold. ``intervals`` maps "ua", "wa", "macro_f1" to 95 % intervals and is empty
    where they are refused (fewer than five speakers).
    """

    n_utterances: int
    ua: float
    wa: float
    macro_f1: float
    emotions: tuple[str, ...]
    recalls: dict[str, float]
    absent: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    intervals: dict[str, Interval]


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64], n_emotions: int) -> NDArray[np.int64]:
    """Count utterances by truth (row) and prediction (column), shape (emotion, emotion)."""
    cells = np.bincount(truth * n_emotions + predicted, minlength=n_emotions * n_emotions)
    return cells.reshape(n_emotions, n_emotions).astype(np.int64)


def recalls(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each emotion, shape (..., emotion), from (..., emotion, emotion); NaN where the truth lacks it."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def ua(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unweighted accuracy: the mean recall of the emotions present in the truth. Shape (...)."""
    return _mean_of_present(recalls(confusion), confusion)


def wa(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weighted accuracy: the share of utterances classified right. Shape (...)."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(_ratio(right, confusion.sum(axis=(-2, -1))))


def macro_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean F1 = 2 tp / (2 tp + fp + fn) of the emotions present in the truth. Shape (...)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _mean_of_present(_ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2)), confusion)


def bootstrap_intervals(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    speakers: Sequence[str],
    n_emotions: int,
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of UA, WA and macro-F1 that respect speakers.

    Each of 2000 resamples draws speakers with replacement, then utterances with replacement within each drawn
    speaker (drawn as a multinomial over that speaker's confusion cells, which is the same thing).

    Returns:
        Intervals by score name; empty with fewer than five speakers, where a resample of speakers says little.
    """
    names = sorted(set(speakers))
    if len(names) < MIN_BOOTSTRAP_SPEAKERS:
        return {}
    generator = np.random.default_rng(seed)
    who = np.array(speakers)
    cells = [confusion_matrix(truth[who == name], predicted[who == name], n_emotions).ravel() for name in names]
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_RESAMPLES)
    resamples = np.zeros((N_RESAMPLES, n_emotions * n_emotions), dtype=np.int64)
    for times_drawn, counts in zip(draws.T, cells, strict=True):
        resamples += generator.multinomial(times_drawn * counts.sum(), counts / counts.sum())
    matrices = resamples.reshape(N_RESAMPLES, n_emotions, n_emotions)
    tail = (1 - INTERVAL_LEVEL) / 2
    intervals = {}
    for name, measure in (("ua", ua), ("wa", wa), ("macro_f1", macro_f1)):
        low, high = np.quantile(measure(matrices), [tail, 1 - tail])
        intervals[name] = Interval(float(low), float(high))
    return intervals


def score(
    truth: Sequence[int] | NDArray[np.int64],
    predicted: Sequence[int] | NDArray[np.int64],
    speakers: Sequence[str],
    emotions: Sequence[str],
) -> Scores:
    """Score predictions against the truth, both as indices into ``emotions``; one speaker name per utterance.

    Raises:
        ValueError: if there is no utterance, the lengths differ or an index is not one of an emotion.
    """
    truth, predicted = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if not len(truth) == len(predicted) == len(speakers) or len(truth) == 0:
        raise ValueError(
            f"truth, predicted and speakers must be equally long and not empty, got {len(truth)}, {len(predicted)} "
            f"and {len(speakers)}"
        )
    for name, labels in (("truth", truth), ("predicted", predicted)):
        if labels.min() < 0 or labels.max() >= len(emotions):
            raise ValueError(
                f"{name} must hold indices from 0 to {len(emotions) - 1}, got {labels.min()} to {labels.max()}"
            )
    confusion = confusion_matrix(truth, predicted, len(emotions))
    by_emotion = dict(zip(emotions, recalls(confusion).tolist(), strict=True))
    present = confusion.sum(axis=1) > 0
    return Scores(
        n_utterances=len(truth),
        ua=float(ua(confusion)),
        wa=float(wa(confusion)),
        macro_f1=float(macro_f1(confusion)),
        emotions=tuple(emotions),
        recalls={emotion: by_emotion[emotion] for emotion, held in zip(emotions, present, strict=True) if held},
        absent=tuple(emotion for emotion, held in zip(emotions, present, strict=True) if not held),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        intervals=bootstrap_intervals(truth, predicted, speakers, len(emotions)),
    )


def _mean_of_present(values: NDArray[np.float64], confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    present = confusion.sum(axis=-1) > 0
    return np.asarray(_ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1)))


def _ratio(part: NDArray[np.float64] | NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0))
