"""Some of the columns of a source of features, chosen by name."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serfast.features.normaliser import FrameSource

__all__ = ["ColumnSource"]


class ColumnSource:
    """The utterances of ``source``, whose columns are called ``feature_names``, with the columns ``chosen`` alone.

    Raises:
        ValueError: if a chosen column is none of the source's.
    """

    def __init__(self, source: FrameSource, feature_names: Sequence[str], chosen: Sequence[str]) -> None:
        missing = [name for name in chosen if name not in feature_names]
        if missing:
            raise ValueError(f"chosen must name columns of the features, got {', '.join(missing)}")
        self._source = source
        self._columns = [list(feature_names).index(name) for name in chosen]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each utterance, (utterance,)."""
        return self._source.lengths

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """The chosen columns, in their order, of the utterances ``indices`` end to end, (row, column)."""
        return np.take(self._source.gather(indices), self._columns, axis=1)
