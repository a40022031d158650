"""Scores of an utterance classifier, their bootstrap intervals, and tests of two systems on the same utterances."""

from serfast.metrics.bootstrap import MIN_BOOTSTRAP_SPEAKERS, Interval, bootstrap_intervals
from serfast.metrics.comparison import Comparison, Difference, compare, holm
from serfast.metrics.confusion import MEASURES, confusion_matrix, macro_f1, recalls, ua, wa
from serfast.metrics.scores import Scores, score

__all__ = [
    "MEASURES",
    "MIN_BOOTSTRAP_SPEAKERS",
    "Comparison",
    "Difference",
    "Interval",
    "Scores",
    "bootstrap_intervals",
    "compare",
    "confusion_matrix",
    "holm",
    "macro_f1",
    "recalls",
    "score",
    "ua",
    "wa",
]
