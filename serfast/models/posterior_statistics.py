"""From the class posteriors of an utterance's pieces to features of the utterance."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["posterior_statistics"]


def posterior_statistics(
    posteriors: NDArray[np.float64], lengths: NDArray[np.int64], *, threshold: float = 0.2
) -> NDArray[np.float64]:
    r"""Summarise how the class posteriors :math:`P_s(k)` of the pieces s of an utterance are distributed.

    .. math:: \max_s P_s(k), \quad \min_s P_s(k), \quad \operatorname{mean}_s P_s(k), \quad
        \operatorname{mean}_s [P_s(k) > \theta]

    Args:
        posteriors: of segments or frames, utterances end to end, shape (row, emotion).
        lengths: rows of each utterance, at least 1, shape (utterance,).
        threshold: :math:`\theta`.

    Returns:
        Features (utterance, 4 * emotion): the maxima of all emotions, then minima, means and shares.

    Source: Han, Yu and Tashev (2014), section 2.3, with their threshold.
    """
    utterances = np.split(posteriors, np.cumsum(lengths)[:-1])
    return np.stack(
        [
            np.concatenate(
                [
                    rows.max(axis=0),
                    rows.min(axis=0),
                    rows.mean(axis=0),
                    (rows > threshold).mean(axis=0, dtype=np.float64),
                ]
            )
            for rows in utterances
        ]
    )
