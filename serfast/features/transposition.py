"""Segments of a waveform side by side: the lanes of a frame kernel."""

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, transpose_block

__all__ = ["transpose"]


@kernel()
def transpose(
    samples: NDArray[np.float32],
    starts: NDArray[np.int64],  # (lane)
    n_rows: int,
    rows: NDArray[np.float32],
    row_step: int,
) -> None:
    # samples[starts[lane] + row] -> rows[row * row_step + lane], for `n_rows` rows rounded up to LANES: 16 segments of
    # the samples, which may overlap, side by side.
    for first in range(0, n_rows, LANES):
        transpose_block(samples, starts, first, rows, first * row_step, row_step)
