"""UA, WA and macro-F1 of confusion matrices.

WA is the share of utterances classified right; UA is the mean of the per-class recalls. An emotion that no utterance
of the truth carries has no recall: it is left out of UA and macro-F1, never counted as 0 or 1.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "confusion_matrix", "macro_f1", "recalls", "ua", "wa"]


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


MEASURES = {"ua": ua, "wa": wa, "macro_f1": macro_f1}
"""Every score by its name: a function of confusion matrices (..., emotion, emotion)."""


def _mean_of_present(values: NDArray[np.float64], confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    present = confusion.sum(axis=-1) > 0
    return np.asarray(_ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1)))


def _ratio(part: NDArray[np.float64] | NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0))
