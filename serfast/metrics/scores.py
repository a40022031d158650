"""Scores of one set of utterances, always together and with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serfast.metrics.bootstrap import Interval, bootstrap_intervals
from serfast.metrics.confusion import confusion_matrix, macro_f1, recalls, ua, wa

__all__ = ["Scores", "score"]


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
        intervals=bootstrap_intervals(truth, predicted[None], speakers, len(emotions)),
    )
