"""Tests of two systems on the same utterances, and the correction of several such tests.

Sources: Efron and Tibshirani (1993), An introduction to the bootstrap; Holm (1979), A simple sequentially rejective
multiple test procedure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serfast.metrics.bootstrap import MIN_BOOTSTRAP_SPEAKERS, Interval, percentile_interval, resample
from serfast.metrics.confusion import confusion_matrix, ua, wa

__all__ = ["Comparison", "Difference", "compare", "holm"]


@dataclass(frozen=True)
class Difference:
    """By how much one system scores better than another, its 95 % interval, and the two-sided p of no difference."""

    value: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Comparison:
    """One system against another on the same utterances: the differences of UA and WA."""

    ua: Difference
    wa: Difference


def compare(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    other: NDArray[np.int64],
    speakers: Sequence[str],
    n_emotions: int,
) -> Comparison:
    """Compare a system with an ``other`` one by a paired bootstrap.

    A resample draws speakers, then their utterances, the same for both systems, all seeds of an utterance together.
    With the share of resamples in which the difference is not above 0 or not below 0, whichever is smaller, p is twice
    that share, at most 1 (both counts begin at 1: p is never 0). Drawing at both levels is careful: where there is no
    difference, p falls below 0.05 in less than 5 % of cases.

    Args:
        truth: index of each utterance's emotion, (utterance,).
        predicted: the system's answers, (seed, utterance); its score is the mean over seeds.
        other: the other system's answers, (seed, utterance), for the same utterances; seeds may be fewer or more.
        speakers: who spoke each utterance.
        n_emotions: how many emotions there are.

    Raises:
        ValueError: if there are fewer than five speakers, or the arrays do not hold the same utterances.
    """
    n_speakers = len(set(speakers))
    if n_speakers < MIN_BOOTSTRAP_SPEAKERS:
        raise ValueError(f"speakers must be at least {MIN_BOOTSTRAP_SPEAKERS} for a paired test, got {n_speakers}")
    shapes = (predicted.shape[-1], other.shape[-1], len(speakers))
    if any(n_utterances != len(truth) for n_utterances in shapes):
        raise ValueError(f"predicted, other and speakers must hold {len(truth)} utterances, got {shapes}")
    answers, n_first = np.concatenate([predicted, other]), len(predicted)
    observed = np.stack([confusion_matrix(truth, row, n_emotions) for row in answers])
    resampled = resample(truth, answers, speakers, n_emotions)
    return Comparison(_difference(ua, observed, resampled, n_first), _difference(wa, observed, resampled, n_first))


def holm(p_values: Sequence[float]) -> list[float]:
    r"""P values corrected by Holm's method for having been tested together, in the order given.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) p_{(j)})
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.maximum.accumulate(np.minimum(1.0, factors * np.asarray(p_values, dtype=np.float64)[order]))
    corrected = np.empty(len(p_values))
    corrected[order] = raised
    return [float(p) for p in corrected]


def _difference(
    measure: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    observed: NDArray[np.int64],  # (answer, emotion, emotion), n_first of the first system, then those of the other
    resampled: NDArray[np.int64],  # (resample, answer, emotion, emotion)
    n_first: int,
) -> Difference:
    scores, drawn = measure(observed), measure(resampled)
    value = float(scores[:n_first].mean() - scores[n_first:].mean())
    differences = drawn[:, :n_first].mean(axis=1) - drawn[:, n_first:].mean(axis=1)
    differences = differences.round(12)  # equal scores stay equal, whatever the order in which seeds were summed
    n_extreme = 1 + min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p = min(1.0, 2 * n_extreme / (len(differences) + 1))
    return Difference(value, percentile_interval(differences), p)
